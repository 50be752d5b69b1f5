//! Edits the objects of a JSON document.

use serde_json::{Map, Value};

/// Edits the object at `path`. Missing objects are created.
pub(crate) fn edit(value: &mut Value, path: &[&str], change: impl FnOnce(&mut Map<String, Value>)) {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let Some(object) = value.as_object_mut() else { return };
    match path {
        [] => change(object),
        [key, rest @ ..] => edit(object.entry(*key).or_insert(Value::Null), rest, change),
    }
}

/// Sets a field that is missing or `null`.
pub(crate) fn set_default(object: &mut Map<String, Value>, key: &str, default: impl Into<Value>) {
    let field = object.entry(key).or_insert(Value::Null);
    if field.is_null() {
        *field = default.into();
    }
}

/// The entries of the list at the pointer `list`; none if it is missing.
pub(crate) fn entries_mut<'a>(value: &'a mut Value, list: &str) -> impl Iterator<Item = &'a mut Value> {
    value.pointer_mut(list).and_then(Value::as_array_mut).into_iter().flatten()
}
