//! Changes of a spec by its JSON: what a test asks for reads as it would in a config.json.

use oci_spec::runtime::{Process, Spec};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Puts `value` in at `pointer` (RFC 6901). Objects that are missing on the way are made.
pub fn put(spec: &mut Spec, pointer: &str, value: Value) {
    put_in(spec, pointer, value);
}

/// The same in the process of an exec: `/user/umask`.
pub fn put_in_process(process: &mut Process, pointer: &str, value: Value) {
    put_in(process, pointer, value);
}

fn put_in<T: Serialize + DeserializeOwned>(object: &mut T, pointer: &str, value: Value) {
    let mut json = serde_json::to_value(&*object).unwrap();
    let mut place = &mut json;
    for name in pointer.trim_start_matches('/').split('/') {
        if place.is_null() {
            *place = json!({});
        }
        place = match place {
            Value::Array(items) => items.get_mut(name.parse::<usize>().unwrap()).unwrap(),
            place => &mut place[name],
        };
    }
    *place = value;
    *object = serde_json::from_value(json).unwrap_or_else(|err| panic!("{pointer}: {err}"));
}

/// Adds one more to the list at `pointer`, which is made if it is missing.
pub fn push(spec: &mut Spec, pointer: &str, value: Value) {
    let json = serde_json::to_value(&*spec).unwrap();
    let mut list = json.pointer(pointer).cloned().unwrap_or_else(|| json!([]));
    list.as_array_mut().unwrap_or_else(|| panic!("{pointer} is no list")).push(value);
    put(spec, pointer, list);
}
