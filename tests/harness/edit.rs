//! Changes of a spec by its JSON: what a test asks for reads as it would in a config.json.

use oci_spec::runtime::{Process, Spec};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::bundle::put as put_json;

/// Puts `value` in at `pointer` (RFC 6901). Objects that are missing on the way are made.
pub fn put(spec: &mut Spec, pointer: &str, value: Value) {
    put_in(spec, pointer, value);
}

/// The same in the process of an exec: `/user/umask`.
pub fn put_in_process(process: &mut Process, pointer: &str, value: Value) {
    put_in(process, pointer, value);
}

fn put_in<T: Serialize + DeserializeOwned>(object: &mut T, pointer: &str, value: Value) {
    edit(object, |json| put_json(json, pointer, value));
}

/// Any change of the JSON.
pub fn edit<T: Serialize + DeserializeOwned>(object: &mut T, change: impl FnOnce(&mut Value)) {
    let mut json = serde_json::to_value(&*object).unwrap();
    change(&mut json);
    *object = serde_json::from_value(json.clone()).unwrap_or_else(|err| panic!("{err}: {json}"));
}

/// Adds one more to the list at `pointer`, which is made if it is missing.
pub fn push(spec: &mut Spec, pointer: &str, value: Value) {
    let json = serde_json::to_value(&*spec).unwrap();
    let mut list = json.pointer(pointer).cloned().unwrap_or_else(|| json!([]));
    list.as_array_mut().unwrap_or_else(|| panic!("{pointer} is no list")).push(value);
    put(spec, pointer, list);
}
