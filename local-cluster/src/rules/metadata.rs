//! Validation of metadata: names (RFC 1123), labels, annotations and immutable fields.

use serde_json::Value;

use crate::{
    error::Cause,
    object::{has, name, text},
    resource::Resource,
};

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
     and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
/// The message for an invalid RFC 1123 label.
pub(super) const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
     and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
     start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
     validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const KEY: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
     alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
     '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

/// Validates name, labels, annotations and owner references.
pub(crate) fn validate_metadata(resource: &Resource, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let found = name(object);
    let is_namespace = resource.kind == "Namespace";
    let (limit, valid, message) = match is_namespace {
        true => (63, is_label(found), LABEL),
        false => (253, is_subdomain(found), SUBDOMAIN),
    };
    let value = Value::from(found);
    if found.is_empty() {
        causes.push(Cause::required("metadata.name", "name or generateName is required"));
    } else if !valid {
        causes.push(Cause::invalid("metadata.name", &value, message));
    }
    if found.len() > limit {
        let why = format!("must be no more than {limit} bytes");
        causes.push(Cause::invalid("metadata.name", &value, why));
    }
    causes.extend(validate_labels(object.pointer("/metadata/labels"), "metadata.labels"));
    for key in keys(object.pointer("/metadata/annotations")) {
        causes.extend(
            key_error(&key.to_lowercase())
                .map(|why| Cause::invalid("metadata.annotations", &key.into(), why)),
        );
    }
    if let Some(references) = object.pointer("/metadata/ownerReferences").and_then(Value::as_array) {
        for (index, reference) in references.iter().enumerate() {
            if text(reference, "/uid").is_empty() {
                let field = format!("metadata.ownerReferences[{index}].uid");
                causes.push(Cause::required(field, "must not be empty"));
            }
        }
    }
    causes
}

/// Validates labels.
pub(crate) fn validate_labels(labels: Option<&Value>, field: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    for key in keys(labels) {
        causes.extend(key_error(key).map(|why| Cause::invalid(field, &key.into(), why)));
        let value = labels.and_then(|map| map.get(key)).unwrap_or(&Value::Null);
        let found = value.as_str().unwrap_or_default();
        if found.len() > 63 {
            causes.push(Cause::invalid(field, value, "must be no more than 63 bytes"));
        } else if !found.is_empty() && !is_qualified(found) {
            causes.push(Cause::invalid(field, value, VALUE));
        }
    }
    causes
}

/// Validates that `fields` below `prefix` have not changed.
pub(super) fn validate_immutable(old: &Value, new: &Value, prefix: &str, fields: &[&str]) -> Vec<Cause> {
    let mut causes = Vec::new();
    for field in fields {
        let pointer = format!("/{}/{field}", prefix.replace('.', "/"));
        let (before, after) = (old.pointer(&pointer), new.pointer(&pointer));
        let both_absent = !has(old, &pointer) && !has(new, &pointer);
        if before != after && !both_absent {
            causes.push(Cause::immutable(format!("{prefix}.{field}"), after.unwrap_or(&Value::Null)));
        }
    }
    causes
}

fn keys(map: Option<&Value>) -> impl Iterator<Item = &str> {
    map.and_then(Value::as_object).into_iter().flat_map(|map| map.keys().map(String::as_str))
}

fn key_error(key: &str) -> Option<String> {
    let (prefix, part) = key.split_once('/').map_or((None, key), |(prefix, part)| (Some(prefix), part));
    if prefix.is_some_and(|prefix| prefix.is_empty() || prefix.len() > 253 || !is_subdomain(prefix)) {
        return Some(format!("prefix part {SUBDOMAIN}"));
    }
    match part.len() {
        0 => Some("name part must be non-empty".to_owned()),
        64.. => Some("name part must be no more than 63 bytes".to_owned()),
        _ => (!is_qualified(part)).then(|| KEY.to_owned()),
    }
}

/// Whether the text has `[A-Za-z0-9]` at both ends and only these, `-`, `_` and `.` inside.
fn is_qualified(text: &str) -> bool {
    let is_alphanumeric = |c: char| c.is_ascii_alphanumeric();
    text.starts_with(is_alphanumeric)
        && text.ends_with(is_alphanumeric)
        && text.chars().all(|c| is_alphanumeric(c) || "-_.".contains(c))
}

/// Whether the text is an RFC 1123 label, without a limit of its length.
pub(super) fn is_label(text: &str) -> bool {
    let is_alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(is_alphanumeric)
        && text.ends_with(is_alphanumeric)
        && text.chars().all(|c| is_alphanumeric(c) || c == '-')
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resource::{JOBS, NAMESPACES};

    fn causes(metadata: Value) -> Vec<String> {
        validate_metadata(&JOBS, &json!({"metadata": metadata})).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_are_validated() {
        for good in ["a", "a-b", "a.b", "1", &"a".repeat(253)] {
            assert_eq!(causes(json!({"name": good})), Vec::<String>::new());
        }
        for bad in ["", "A", "-a", "a-", "a_b", "a..b", &"a".repeat(254)] {
            assert_eq!(causes(json!({"name": bad})).len(), 1, "{bad}");
        }
        assert_eq!(validate_metadata(&NAMESPACES, &json!({"metadata": {"name": "a.b"}})).len(), 1);
        assert!(
            causes(json!({"name": "A"}))[0]
                .starts_with("metadata.name: Invalid value: \"A\": a lowercase RFC 1123")
        );
    }

    #[test]
    fn labels_annotations_and_owners_are_validated() {
        let good =
            json!({"name": "a", "labels": {"a/b": "", "c": "X_y.z-1"}, "annotations": {"a/B": "any thing"}});
        assert_eq!(causes(good), Vec::<String>::new());
        let long = "a".repeat(64);
        for (key, value) in
            [("a", "-"), ("a", "b c"), ("a", &long), (&long, "b"), ("/a", "b"), ("A/a", "b"), ("a/", "b")]
        {
            assert_eq!(causes(json!({"name": "a", "labels": {key: value}})).len(), 1, "{key}={value}");
        }
        assert_eq!(causes(json!({"name": "a", "annotations": {"a b": "c"}})).len(), 1);
        assert_eq!(causes(json!({"name": "a", "ownerReferences": [{"name": "b"}]})).len(), 1);
    }
}
