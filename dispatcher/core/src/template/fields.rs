//! The fields of a Job at any depth, with their paths.
//!
//! `policy` finds the refused fields by their names wherever they stand, so that a field that this
//! version does not know (a new list of containers) hides none of them.

use serde_json::Value;

/// The objects whose keys are chosen freely: a label may have the name of a field.
const FREE_KEYS: [&str; 7] =
    ["annotations", "labels", "limits", "matchLabels", "nodeSelector", "requests", "volumeAttributes"];

/// A field and its value.
pub(super) struct Field<'a> {
    /// The path: `job.spec.template.spec.containers[0].image`.
    pub(super) path: String,
    pub(super) key: &'a str,
    pub(super) value: &'a Value,
}

impl Field<'_> {
    /// Whether the field has this name. Kubernetes compares the case; a refusal need not.
    pub(super) fn is(&self, name: &str) -> bool {
        self.key.eq_ignore_ascii_case(name)
    }

    /// Whether the field has one of these names.
    pub(super) fn is_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.is(name))
    }

    /// Whether the field is set: neither `null`, nor `false`, nor an empty text.
    pub(super) fn is_set(&self) -> bool {
        !(self.value.is_null() || self.value == &Value::Bool(false) || self.value.as_str() == Some(""))
    }
}

/// All fields of a Job, parents first.
pub(super) fn all(job: &Value) -> Vec<Field<'_>> {
    let mut fields = Vec::new();
    collect(job, "job", &mut fields);
    fields
}

fn collect<'a>(value: &'a Value, path: &str, into: &mut Vec<Field<'a>>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                let path = format!("{path}.{key}");
                let is_free = FREE_KEYS.contains(&key.as_str()) && is_flat(value);
                into.push(Field { path: path.clone(), key, value });
                if !is_free {
                    collect(value, &path, into);
                }
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                collect(item, &format!("{path}[{i}]"), into);
            }
        }
        _ => {}
    }
}

fn is_flat(value: &Value) -> bool {
    value
        .as_object()
        .is_some_and(|object| object.values().all(|value| !value.is_object() && !value.is_array()))
}
