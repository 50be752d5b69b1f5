//! Substitutes the parameters in the string values of a parsed manifest. Its references are parsed
//! once, so that a request only fills them.

use std::{borrow::Cow, collections::BTreeMap};

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

/// A manifest with parsed references.
#[derive(Debug, Clone)]
pub(super) struct Renderer(Node);

#[derive(Debug, Clone)]
enum Node {
    /// A value without references.
    Fixed(Value),
    Text {
        pattern: Pattern,
        is_expanded: bool,
    },
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl Renderer {
    /// Parses the references of a manifest.
    pub(super) fn new(manifest: &Value) -> Self {
        Self(Node::parse(manifest, Place::default()))
    }

    /// Substitutes `values` in the manifest, whose references are valid.
    pub(super) fn render(&self, values: &BTreeMap<String, String>) -> Value {
        self.0.render(values).unwrap_or(Value::Null)
    }
}

impl Node {
    fn parse(value: &Value, place: Place<'_>) -> Self {
        let node = match value {
            Value::String(text) => match Pattern::parse(text) {
                Ok(pattern) => Self::Text { pattern, is_expanded: place.is_expanded() },
                Err(_) => Self::Fixed(value.clone()),
            },
            Value::Array(items) => {
                Self::List(items.iter().map(|item| Self::parse(item, place.entry())).collect())
            }
            Value::Object(fields) => {
                let nodes =
                    fields.iter().map(|(key, field)| (key.clone(), Self::parse(field, place.field(key))));
                Self::Object(nodes.collect())
            }
            other => Self::Fixed(other.clone()),
        };
        if node.has_references() {
            return node;
        }
        Self::Fixed(node.render(&BTreeMap::new()).unwrap_or(Value::Null))
    }

    /// Whether the node, whose entries are parsed, contains a reference.
    fn has_references(&self) -> bool {
        let is_fixed = |node: &Self| matches!(node, Self::Fixed(_));
        match self {
            Self::Fixed(_) => false,
            Self::Text { pattern, .. } => pattern.references().next().is_some(),
            Self::List(items) => !items.iter().all(is_fixed),
            Self::Object(fields) => !fields.iter().all(|(_, field)| is_fixed(field)),
        }
    }

    /// `None` if a referenced parameter has no value.
    fn render(&self, values: &BTreeMap<String, String>) -> Option<Value> {
        Some(match self {
            Self::Fixed(value) => value.clone(),
            Self::Text { pattern, is_expanded } => Value::String(pattern.fill(|name| {
                let value = values.get(name)?;
                Some(if *is_expanded {
                    Cow::Owned(value.replace('$', "$$"))
                } else {
                    Cow::Borrowed(value.as_str())
                })
            })?),
            // Omit an entry without its value: an absent optional parameter leaves no empty variable.
            Self::List(items) => items.iter().filter_map(|item| item.render(values)).collect(),
            Self::Object(fields) => {
                let mut rendered = Map::new();
                for (key, field) in fields {
                    rendered.insert(key.clone(), field.render(values)?);
                }
                Value::Object(rendered)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(manifest: &Value, values: &[(&str, &str)]) -> Value {
        let values = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Renderer::new(manifest).render(&values)
    }

    #[test]
    fn only_the_part_with_references_is_substituted_for_each_request() {
        let manifest =
            json!({"fixed": {"a": ["$${b}", 1, null]}, "list": [{"v": "${x}"}, "y"], "text": "${x}!"});
        let Renderer(Node::Object(fields)) = Renderer::new(&manifest) else { panic!("not an object") };
        let fixed: Vec<_> =
            fields.iter().filter(|(_, field)| !field.has_references()).map(|(key, _)| key.as_str()).collect();
        assert_eq!(fixed, ["fixed"]);
        for x in ["1", "$(HOME)", "${y}"] {
            let expected =
                json!({"fixed": {"a": ["${b}", 1, null]}, "list": [{"v": x}, "y"], "text": format!("{x}!")});
            assert_eq!(render(&manifest, &[("x", x)]), expected);
        }
    }

    #[test]
    fn entry_without_its_value_is_omitted_at_any_depth() {
        let manifest = json!({"a": [["${x}", "k"], {"b": {"c": "${x}"}}, "${x}${y}"], "d": "${y}"});
        assert_eq!(render(&manifest, &[("y", "1")]), json!({"a": [["k"]], "d": "1"}));
        assert_eq!(render(&json!({"d": "${x}"}), &[]), Value::Null);
    }

    #[test]
    fn dollar_is_escaped_only_where_kubernetes_expands_variables() {
        let manifest = json!({"command": ["${x}"], "env": [{"name": "${x}", "value": "${x}"}], "value": "${x}",
                              "lifecycle": {"command": ["${x}"]}});
        let expected = json!({"command": ["$$"], "env": [{"name": "$", "value": "$$"}], "value": "$",
                              "lifecycle": {"command": ["$"]}});
        assert_eq!(render(&manifest, &[("x", "$")]), expected);
    }
}
