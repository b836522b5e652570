//! Reads a JSON object property by property, and refuses what nobody has read.
//!
//! The types of oci-spec have private fields, so the compiler cannot say which of them a conversion forgot. Their JSON
//! can: whatever is left of an object when its reader is done is a property that is known to OCI and was not converted.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::error::{Code, Error, Result};

/// What was being done, for errors.
const OPERATION: &str = "convert OCI spec";

/// An object of an OCI spec, with the properties that have not been read yet.
pub(super) struct Object {
    /// Where it is: empty for the spec itself, else `process.user` or `mounts[3]`.
    path: String,
    rest: Map<String, Value>,
}

impl Object {
    pub(super) fn new(path: &str, value: Value) -> Result<Self> {
        match value {
            Value::Object(rest) => Ok(Self { path: path.to_owned(), rest }),
            _ => Err(wrong(path, "an object")),
        }
    }

    pub(super) fn string(&mut self, name: &str) -> Result<String> {
        self.read(name, "a string", |value| value.as_str().map(str::to_owned))
    }

    pub(super) fn bool(&mut self, name: &str) -> Result<bool> {
        self.read(name, "true or false", Value::as_bool)
    }

    pub(super) fn i64(&mut self, name: &str) -> Result<i64> {
        self.read(name, "a 64-bit number", Value::as_i64)
    }

    pub(super) fn i32(&mut self, name: &str) -> Result<i32> {
        self.read(name, "a 32-bit number", |value| i32::try_from(value.as_i64()?).ok())
    }

    pub(super) fn u64(&mut self, name: &str) -> Result<u64> {
        self.read(name, "a 64-bit number, not negative", Value::as_u64)
    }

    pub(super) fn u32(&mut self, name: &str) -> Result<u32> {
        self.read(name, "a 32-bit number, not negative", as_u32)
    }

    /// A number whose absence means something else than zero.
    pub(super) fn optional_u32(&mut self, name: &str) -> Result<Option<u32>> {
        self.present(name).then(|| self.u32(name)).transpose()
    }

    pub(super) fn optional_i64(&mut self, name: &str) -> Result<Option<i64>> {
        self.present(name).then(|| self.i64(name)).transpose()
    }

    pub(super) fn strings(&mut self, name: &str) -> Result<Vec<String>> {
        self.read(name, "a list of strings", |value| {
            value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
        })
    }

    pub(super) fn u32s(&mut self, name: &str) -> Result<Vec<u32>> {
        self.read(name, "a list of 32-bit numbers", |value| {
            value.as_array()?.iter().map(as_u32).collect()
        })
    }

    pub(super) fn map<T: FromIterator<(String, String)> + Default>(
        &mut self,
        name: &str,
    ) -> Result<T> {
        self.read(name, "an object of strings", |value| {
            let pair = |(key, value): (&String, &Value)| {
                value.as_str().map(|value| (key.clone(), value.to_owned()))
            };
            value.as_object()?.iter().map(pair).collect()
        })
    }

    /// Converts an object, if it is there.
    pub(super) fn object<T>(
        &mut self,
        name: &str,
        convert: impl FnOnce(&mut Object) -> Result<T>,
    ) -> Result<Option<T>> {
        let path = self.path_of(name);
        match self.rest.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => convert_whole(&path, value, convert).map(Some),
        }
    }

    /// Converts a list of objects; an absent one is empty.
    pub(super) fn objects<T>(
        &mut self,
        name: &str,
        mut convert: impl FnMut(&mut Object) -> Result<T>,
    ) -> Result<Vec<T>> {
        let path = self.path_of(name);
        let items = match self.rest.remove(name) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(items)) => items,
            Some(_) => return Err(wrong(&path, "a list")),
        };
        let item = |(index, value)| convert_whole(&format!("{path}[{index}]"), value, &mut convert);
        items.into_iter().enumerate().map(item).collect()
    }

    /// Converts an object of objects; an absent one is empty.
    pub(super) fn objects_by_name<T>(
        &mut self,
        name: &str,
        mut convert: impl FnMut(&mut Object) -> Result<T>,
    ) -> Result<HashMap<String, T>> {
        let path = self.path_of(name);
        let items = match self.rest.remove(name) {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(items)) => items,
            Some(_) => return Err(wrong(&path, "an object")),
        };
        let item = |(name, value): (String, Value)| {
            let converted = convert_whole(&format!("{path}.{name}"), value, &mut convert)?;
            Ok((name, converted))
        };
        items.into_iter().map(item).collect()
    }

    /// The property is there, and so could be told from its default.
    pub(super) fn present(&self, name: &str) -> bool {
        self.rest.get(name).is_some_and(|value| !value.is_null())
    }

    /// An error about a property: the wire does not carry it.
    pub(super) fn not_carried(&self, name: &str) -> Error {
        let path = self.path_of(name);
        let cause = "the agent API cannot carry this property";
        Error::new(Code::Unimplemented, OPERATION, path, cause)
    }

    /// Refuses what has not been read, unless it says nothing.
    fn finish(self) -> Result<()> {
        match self.rest.iter().find(|(_, value)| !says_nothing(value)) {
            Some((name, _)) => Err(self.not_carried(name)),
            None => Ok(()),
        }
    }

    fn read<T: Default>(
        &mut self,
        name: &str,
        expected: &str,
        convert: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<T> {
        match self.rest.remove(name) {
            None | Some(Value::Null) => Ok(T::default()),
            Some(value) => convert(&value).ok_or_else(|| wrong(&self.path_of(name), expected)),
        }
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

/// Converts an object and refuses what `convert` has not read of it.
pub(super) fn convert_whole<T>(
    path: &str,
    value: Value,
    convert: impl FnOnce(&mut Object) -> Result<T>,
) -> Result<T> {
    let mut object = Object::new(path, value)?;
    let converted = convert(&mut object)?;
    object.finish()?;
    Ok(converted)
}

/// An empty or false value is what an absent property means, wherever the wire has no place for it.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) | Value::Number(_) => false,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.values().all(says_nothing),
    }
}

fn as_u32(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|number| u32::try_from(number).ok())
}

fn wrong(path: &str, expected: &str) -> Error {
    Error::new(Code::InvalidArgument, OPERATION, path, format_args!("not {expected}"))
}
