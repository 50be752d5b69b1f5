//! Parameters into the string values of a parsed manifest.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Problem, pattern::Pattern};

/// Whether Kubernetes itself expands `$(VAR)` in the strings under this key of a container
/// (reference of `Container`: `command`, `args`; of `EnvVar`: `value`). There a `$` of a parameter is doubled, which is
/// Kubernetes' own escape: else a client could read another variable of the container, such as a secret.
fn is_expanded(key: &str) -> bool {
    matches!(key, "value" | "command" | "args")
}

/// The manifest with `values` in the places that refer to them. References were checked at load.
pub(super) fn render(manifest: &Value, values: &BTreeMap<String, String>) -> Value {
    node(manifest, values, false).unwrap_or(Value::Null)
}

/// `None` where a referred parameter has no value.
fn node(value: &Value, values: &BTreeMap<String, String>, expanded: bool) -> Option<Value> {
    Some(match value {
        Value::String(text) => match Pattern::parse(text) {
            Ok(pattern) => Value::String(pattern.fill(|name| {
                let value = values.get(name)?;
                Some(if expanded { value.replace('$', "$$") } else { value.clone() })
            })?),
            Err(_) => value.clone(),
        },
        // An entry that lacks a value is left out of its list: so an optional parameter has no empty env variable.
        Value::Array(items) => items.iter().filter_map(|item| node(item, values, expanded)).collect(),
        Value::Object(fields) => {
            let mut filled = Map::new();
            for (key, field) in fields {
                filled.insert(key.clone(), node(field, values, is_expanded(key))?);
            }
            Value::Object(filled)
        }
        other => other.clone(),
    })
}

/// Checks every reference of the manifest.
pub(super) fn check_references(manifest: &Value, declared: &dyn Fn(&str) -> bool) -> Result<(), Problem> {
    fn walk(value: &Value, path: &str, declared: &dyn Fn(&str) -> bool) -> Result<(), Problem> {
        match value {
            Value::String(text) => {
                let pattern = Pattern::parse(text).map_err(|e| Problem::at(path, e.to_string()))?;
                match pattern.references().find(|name| !declared(name)) {
                    None => Ok(()),
                    Some(name) => {
                        Err(Problem::at(path, format!("refers to `{name}`, which is no declared parameter")))
                    }
                }
            }
            Value::Array(items) => items
                .iter()
                .enumerate()
                .try_for_each(|(i, item)| walk(item, &format!("{path}[{i}]"), declared)),
            Value::Object(fields) => {
                fields.iter().try_for_each(|(key, field)| walk(field, &format!("{path}.{key}"), declared))
            }
            _ => Ok(()),
        }
    }
    walk(manifest, "job", declared)
}

/// The first field of `given` that the typed Job did not take over: a misspelt one.
pub(super) fn unknown_field(given: &Value, typed: &Value, path: &str) -> Option<String> {
    match (given, typed) {
        (Value::Object(given), Value::Object(typed)) => given.iter().find_map(|(key, value)| {
            let path = format!("{path}.{key}");
            match typed.get(key) {
                Some(typed) => unknown_field(value, typed, &path),
                None if value.is_null() => None,
                None => Some(path),
            }
        }),
        (Value::Array(given), Value::Array(typed)) => given
            .iter()
            .zip(typed)
            .enumerate()
            .find_map(|(i, (given, typed))| unknown_field(given, typed, &format!("{path}[{i}]"))),
        _ => None,
    }
}
