//! Finds fields that the types of the API do not have. Pure.

use serde_json::Value;

/// The paths of the fields of `body` that `known`, its typed copy, lacks.
///
/// A null is no field. Keys with `$` are directives of a strategic merge patch.
pub(super) fn unknown(body: &Value, known: &Value) -> Vec<String> {
    let mut found = Vec::new();
    collect(body, known, "", &mut found);
    found
}

fn collect(body: &Value, known: &Value, path: &str, found: &mut Vec<String>) {
    match (body, known) {
        (Value::Object(body), Value::Object(known)) => {
            for (name, value) in
                body.iter().filter(|(name, value)| !name.starts_with('$') && !value.is_null())
            {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match known.get(name) {
                    Some(known) => collect(value, known, &path, found),
                    None => found.push(path),
                }
            }
        }
        (Value::Array(body), Value::Array(known)) => {
            for (index, (value, known)) in body.iter().zip(known).enumerate() {
                collect(value, known, &format!("{path}[{index}]"), found);
            }
        }
        _ => {}
    }
}
