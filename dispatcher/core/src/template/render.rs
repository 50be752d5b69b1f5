//! Parameters into the string values of a parsed manifest.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::template::pattern::Pattern;

/// Where in the manifest a value stands, as far as that needs_reconcile for what becomes of a `$` in it.
#[derive(Clone, Copy, Default)]
struct Place<'a> {
    key: &'a str,
    /// The key that the list stands under whose entry holds `key`.
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

    /// Whether Kubernetes itself expands `$(VAR)` in the text: reference of `Container` (`command`, `args`), `EnvVar`
    /// (`value`) and `VolumeMount` (`subPathExpr`), and the kubelet's prober for the commands of probes; not those of
    /// `lifecycle`. There a `$` of a parameter is doubled, which is Kubernetes' own escape: else a client could read
    /// another variable of the container, such as a secret.
    fn is_expanded(self) -> bool {
        match self.key {
            "command" | "args" => !self.in_lifecycle,
            "value" => self.list == "env",
            "subPathExpr" => self.list == "volumeMounts",
            _ => false,
        }
    }
}

/// The manifest with `values` in the places that refer to them. References were checked at load.
pub(super) fn render(manifest: &Value, values: &BTreeMap<String, String>) -> Value {
    node(manifest, values, Place::default()).unwrap_or(Value::Null)
}

/// `None` where a referred parameter has no value.
fn node(value: &Value, values: &BTreeMap<String, String>, place: Place<'_>) -> Option<Value> {
    Some(match value {
        Value::String(text) => match Pattern::parse(text) {
            Ok(pattern) => Value::String(pattern.fill(|name| {
                let value = values.get(name)?;
                Some(if place.is_expanded() { value.replace('$', "$$") } else { value.clone() })
            })?),
            Err(_) => value.clone(),
        },
        // An entry that lacks a value is left out of its list: so an optional parameter has no empty env variable.
        Value::Array(items) => items.iter().filter_map(|item| node(item, values, place.entry())).collect(),
        Value::Object(fields) => {
            let mut filled = Map::new();
            for (key, field) in fields {
                filled.insert(key.clone(), node(field, values, place.field(key))?);
            }
            Value::Object(filled)
        }
        other => other.clone(),
    })
}
