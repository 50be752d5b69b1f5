//! Objects as JSON: reading and writing the fields that every object has.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value};

/// The text at a JSON pointer; empty where there is none.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The number at a JSON pointer; 0 where there is none.
pub(crate) fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

/// The list at a JSON pointer; empty where there is none.
pub(crate) fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Whether there is something at a JSON pointer, and it is not `null`.
pub(crate) fn has(object: &Value, pointer: &str) -> bool {
    object.pointer(pointer).is_some_and(|value| !value.is_null())
}

pub(crate) fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

pub(crate) fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

pub(crate) fn version(object: &Value) -> &str {
    text(object, "/metadata/resourceVersion")
}

pub(crate) fn is_being_deleted(object: &Value) -> bool {
    has(object, "/metadata/deletionTimestamp")
}

/// The map at `keys`, made where it is absent.
pub(crate) fn map_at<'a>(object: &'a mut Value, keys: &[&str]) -> &'a mut Map<String, Value> {
    let mut at = as_map(object);
    for key in keys {
        at = as_map(at.entry(*key).or_insert(Value::Null));
    }
    at
}

fn as_map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("it was made an object just now"),
    }
}

/// Sets `keys` and then `key`, the maps in between made where they are absent.
pub(crate) fn set(object: &mut Value, keys: &[&str], key: &str, value: impl Into<Value>) {
    map_at(object, keys).insert(key.to_owned(), value.into());
}

/// Sets a field unless it is there.
pub(crate) fn default(object: &mut Value, keys: &[&str], key: &str, value: impl Into<Value>) {
    let map = map_at(object, keys);
    if map.get(key).is_none_or(Value::is_null) {
        map.insert(key.to_owned(), value.into());
    }
}

/// Removes a field of the map at `keys`.
pub(crate) fn remove(object: &mut Value, keys: &[&str], key: &str) {
    map_at(object, keys).remove(key);
}

/// The finalizers.
pub(crate) fn finalizers(object: &Value) -> &[Value] {
    list(object, "/metadata/finalizers")
}

/// Whether one of the finalizers is `finalizer`.
pub(crate) fn has_finalizer(object: &Value, finalizer: &str) -> bool {
    finalizers(object).iter().any(|found| found == finalizer)
}

/// Now, to the second, as Kubernetes writes times.
pub(crate) fn now() -> String {
    seconds_from_now(0)
}

/// In `seconds` from now.
pub(crate) fn seconds_from_now(seconds: i64) -> String {
    let now = Timestamp::now();
    let then = Timestamp::from_second(now.as_second().saturating_add(seconds)).unwrap_or(now);
    then.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
