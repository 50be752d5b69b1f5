//! Substitutes the parameters in the string values of a parsed manifest.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::template::pattern::Pattern;

/// The position of a value in the manifest. It decides whether a `$` must be escaped.
#[derive(Clone, Copy, Default)]
struct Place<'a> {
    key: &'a str,
    /// The key of the innermost list that contains the value.
    list: &'a str,
    in_lifecycle: bool,
}

impl<'a> Place<'a> {
    fn field(self, key: &'a str) -> Self {
        Self { key, list: self.list, in_lifecycle: self.in_lifecycle || key == "lifecycle" }
    }

    fn entry(self) -> Self {
        Self { list: self.key, ..self }
    }

    /// Whether Kubernetes expands `$(VAR)` in the value: in `command`, `args`, `env[].value`,
    /// `volumeMounts[].subPathExpr`, and in the commands of probes but not of `lifecycle`. A `$` is
    /// escaped there as `$$`. Otherwise a client could read another variable of the container, such
    /// as a secret.
    fn is_expanded(self) -> bool {
        match self.key {
            "command" | "args" => !self.in_lifecycle,
            "value" => self.list == "env",
            "subPathExpr" => self.list == "volumeMounts",
            _ => false,
        }
    }
}

/// Substitutes `values` in the manifest, whose references are valid.
pub(super) fn render(manifest: &Value, values: &BTreeMap<String, String>) -> Value {
    render_value(manifest, values, Place::default()).unwrap_or(Value::Null)
}

/// `None` if a referenced parameter has no value.
fn render_value(value: &Value, values: &BTreeMap<String, String>, place: Place<'_>) -> Option<Value> {
    Some(match value {
        Value::String(text) => match Pattern::parse(text) {
            Ok(pattern) => Value::String(pattern.fill(|name| {
                let value = values.get(name)?;
                Some(if place.is_expanded() { value.replace('$', "$$") } else { value.clone() })
            })?),
            Err(_) => value.clone(),
        },
        // Omit an entry without its value: an absent optional parameter leaves no empty variable.
        Value::Array(items) => {
            items.iter().filter_map(|item| render_value(item, values, place.entry())).collect()
        }
        Value::Object(fields) => {
            let mut rendered = Map::new();
            for (key, field) in fields {
                rendered.insert(key.clone(), render_value(field, values, place.field(key))?);
            }
            Value::Object(rendered)
        }
        other => other.clone(),
    })
}
