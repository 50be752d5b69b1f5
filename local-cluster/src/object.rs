//! Accessors for objects as JSON.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value};

/// The string at a JSON pointer; empty if absent.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The number at a JSON pointer; 0 if absent.
pub(crate) fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

/// The list at a JSON pointer; empty if absent.
pub(crate) fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Whether a JSON pointer leads to a value other than `null`.
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

/// The map at `keys`, created if absent.
pub(crate) fn map_at<'a>(object: &'a mut Value, keys: &[&str]) -> &'a mut Map<String, Value> {
    let mut map = as_map(object);
    for key in keys {
        map = as_map(map.entry(*key).or_insert(Value::Null));
    }
    map
}

fn as_map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("the value is an object"),
    }
}

/// Sets `key` in the map at `keys`.
pub(crate) fn set(object: &mut Value, keys: &[&str], key: &str, value: impl Into<Value>) {
    map_at(object, keys).insert(key.to_owned(), value.into());
}

/// Sets a field unless it has a value.
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

pub(crate) fn finalizers(object: &Value) -> &[Value] {
    list(object, "/metadata/finalizers")
}

pub(crate) fn has_finalizer(object: &Value, finalizer: &str) -> bool {
    finalizers(object).iter().any(|found| found == finalizer)
}

/// The current time in Kubernetes' format, in seconds.
pub(crate) fn now() -> String {
    seconds_from_now(0)
}

/// The time in `seconds` from now.
pub(crate) fn seconds_from_now(seconds: i64) -> String {
    let now = Timestamp::now();
    let then = Timestamp::from_second(now.as_second().saturating_add(seconds)).unwrap_or(now);
    then.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
