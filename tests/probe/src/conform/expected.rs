//! A config.json, read property by property. A wrong type in it is the test's mistake and an error.

use std::fs;
use std::io;

use serde_json::Value;

pub struct Expected(Value);

impl Expected {
    pub fn read(path: &str) -> io::Result<Self> {
        let text = fs::read(path).map_err(|err| io::Error::other(format!("{path}: {err}")))?;
        Ok(Self(serde_json::from_slice(&text)?))
    }

    /// What is at a JSON pointer (RFC 6901); null is absent.
    pub fn at(&self, pointer: &str) -> Option<&Value> {
        self.0.pointer(pointer).filter(|value| !value.is_null())
    }

    pub fn is_true(&self, pointer: &str) -> bool {
        self.at(pointer).and_then(Value::as_bool).unwrap_or(false)
    }

    pub fn integer(&self, pointer: &str) -> Option<i64> {
        self.at(pointer).and_then(Value::as_i64)
    }

    pub fn text(&self, pointer: &str) -> Option<&str> {
        self.at(pointer).and_then(Value::as_str)
    }

    pub fn list(&self, pointer: &str) -> &[Value] {
        self.at(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    pub fn texts(&self, pointer: &str) -> Vec<&str> {
        self.list(pointer).iter().filter_map(Value::as_str).collect()
    }

    /// An object of texts.
    pub fn map(&self, pointer: &str) -> Vec<(&str, &str)> {
        let entries = self.at(pointer).and_then(Value::as_object).into_iter().flatten();
        entries.filter_map(|(name, value)| Some((name.as_str(), value.as_str()?))).collect()
    }
}

/// A property of an item of a list.
pub fn text<'a>(item: &'a Value, name: &str) -> &'a str {
    item.get(name).and_then(Value::as_str).unwrap_or_default()
}

pub fn texts<'a>(item: &'a Value, name: &str) -> Vec<&'a str> {
    let list = item.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    list.iter().filter_map(Value::as_str).collect()
}

pub fn number(item: &Value, name: &str) -> Option<u64> {
    item.get(name).and_then(Value::as_u64)
}
