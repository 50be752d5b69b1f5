//! The fields of a Job at any depth, with their paths.
//!
//! `policy` finds the refused fields by their names wherever they stand, so that a field that this
//! version does not know (a new list of containers) hides none of them.

use std::fmt::Write as _;

use serde_json::Value;

/// The objects whose keys are chosen freely: a label may have the name of a field.
const FREE_KEYS: [&str; 7] =
    ["annotations", "labels", "limits", "matchLabels", "nodeSelector", "requests", "volumeAttributes"];

/// All fields of a Job, parents first. Every rendered Job is searched, so a path becomes text only
/// when it is needed.
pub(super) struct Fields<'a>(Vec<Node<'a>>);

/// A field, or an entry of a list.
struct Node<'a> {
    /// The position of the field or entry that contains it.
    parent: Option<usize>,
    step: Step<'a>,
    value: &'a Value,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// A field and its value.
#[derive(Clone, Copy)]
pub(super) struct Field<'a> {
    pub(super) key: &'a str,
    pub(super) value: &'a Value,
    nodes: &'a [Node<'a>],
    parent: Option<usize>,
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

    /// The path: `job.spec.template.spec.containers[0].image`.
    pub(super) fn path(&self) -> String {
        let mut steps = vec![Step::Key(self.key)];
        let mut parent = self.parent;
        while let Some(node) = parent.and_then(|at| self.nodes.get(at)) {
            steps.push(node.step);
            parent = node.parent;
        }
        let mut path = "job".to_owned();
        for step in steps.into_iter().rev() {
            // Writing to a String cannot fail.
            let _ = match step {
                Step::Key(key) => write!(path, ".{key}"),
                Step::Index(index) => write!(path, "[{index}]"),
            };
        }
        path
    }
}

impl<'a> Fields<'a> {
    /// All fields of a Job.
    pub(super) fn of(job: &'a Value) -> Self {
        let mut fields = Self(Vec::with_capacity(64));
        fields.collect(job, None);
        fields
    }

    /// The fields, without the entries of lists.
    pub(super) fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        let Self(nodes) = self;
        nodes.iter().filter_map(|node| match node.step {
            Step::Key(key) => Some(Field { key, value: node.value, nodes, parent: node.parent }),
            Step::Index(_) => None,
        })
    }

    fn collect(&mut self, value: &'a Value, parent: Option<usize>) {
        match value {
            Value::Object(object) => {
                for (key, value) in object {
                    let at = self.push(parent, Step::Key(key), value);
                    if !(FREE_KEYS.contains(&key.as_str()) && is_flat(value)) {
                        self.collect(value, Some(at));
                    }
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let at = self.push(parent, Step::Index(index), item);
                    self.collect(item, Some(at));
                }
            }
            _ => {}
        }
    }

    fn push(&mut self, parent: Option<usize>, step: Step<'a>, value: &'a Value) -> usize {
        self.0.push(Node { parent, step, value });
        self.0.len() - 1
    }
}

fn is_flat(value: &Value) -> bool {
    value
        .as_object()
        .is_some_and(|object| object.values().all(|value| !value.is_object() && !value.is_array()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn path_names_every_parent_and_index() {
        let job = json!({"a": [[{"b": 1}], {"labels": {"privileged": "x"}}], "c": {"d": null}});
        let fields = Fields::of(&job);
        let paths: Vec<_> = fields.iter().map(|field| field.path()).collect();
        assert_eq!(paths, ["job.a", "job.a[0][0].b", "job.a[1].labels", "job.c", "job.c.d"]);
    }
}
