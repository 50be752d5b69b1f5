//! Label and field selectors.

use std::borrow::Cow;

use serde_json::Value;

use crate::{
    error::{ApiError, ApiResult},
    object::text,
    resource::Resource,
};

/// The selector of a list or a watch.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<(String, String, bool)>,
}

#[derive(Clone, Debug, PartialEq)]
struct Requirement {
    key: String,
    operator: Operator,
}

#[derive(Clone, Debug, PartialEq)]
enum Operator {
    In(Vec<String>),
    /// Also matches objects without the label.
    NotIn(Vec<String>),
    Exists,
    Absent,
}

impl Selector {
    /// Parses the query parameters `labelSelector` and `fieldSelector`.
    ///
    /// # Errors
    /// 400 for a malformed selector or an unsupported field.
    pub(crate) fn parse(resource: &Resource, labels: &str, fields: &str) -> ApiResult<Self> {
        Ok(Self {
            labels: split_requirements(labels)
                .into_iter()
                .map(parse_requirement)
                .collect::<Result<_, _>>()?,
            fields: fields
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty())
                .map(|part| parse_field(resource, part))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Whether the object matches.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels");
        let label = |key: &str| labels.and_then(|map| map.get(key)).and_then(Value::as_str);
        self.labels.iter().all(|requirement| requirement.holds(label(&requirement.key)))
            && self.fields.iter().all(|(path, value, equal)| (field(object, path) == *value) == *equal)
    }
}

/// A field as text. Of a Job, `status.successful` stands for the number in `status.succeeded`.
fn field<'a>(object: &'a Value, path: &str) -> Cow<'a, str> {
    match path {
        "/status/successful" => {
            object.pointer("/status/succeeded").and_then(Value::as_i64).unwrap_or(0).to_string().into()
        }
        path => text(object, path).into(),
    }
}

impl Requirement {
    fn holds(&self, found: Option<&str>) -> bool {
        match &self.operator {
            Operator::In(values) => found.is_some_and(|found| values.iter().any(|value| value == found)),
            Operator::NotIn(values) => found.is_none_or(|found| values.iter().all(|value| value != found)),
            Operator::Exists => found.is_some(),
            Operator::Absent => found.is_none(),
        }
    }
}

/// Splits at commas outside parentheses.
fn split_requirements(selector: &str) -> Vec<&str> {
    let mut depth = 0_u32;
    selector
        .split(|c| {
            match c {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            c == ',' && depth == 0
        })
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect()
}

fn parse_requirement(part: &str) -> ApiResult<Requirement> {
    let invalid = || ApiError::bad_request(format!("unable to parse requirement: {part:?}"));
    let build = |key: &str, operator: Operator| match is_label_key(key.trim()) {
        true => Ok(Requirement { key: key.trim().to_owned(), operator }),
        false => Err(invalid()),
    };
    let one = |value: &str| vec![value.trim().to_owned()];
    if let Some((key, value)) = part.split_once("!=") {
        return build(key, Operator::NotIn(one(value)));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return build(key, Operator::In(one(value)));
    }
    if let Some((head, rest)) = part.split_once('(') {
        let inner = rest.trim_end().strip_suffix(')').ok_or_else(invalid)?;
        let values = inner.split(',').map(|value| value.trim().to_owned()).collect();
        return match head.split_whitespace().collect::<Vec<_>>().as_slice() {
            [key, "in"] => build(key, Operator::In(values)),
            [key, "notin"] => build(key, Operator::NotIn(values)),
            _ => Err(invalid()),
        };
    }
    match part.strip_prefix('!') {
        Some(key) => build(key, Operator::Absent),
        None => build(part, Operator::Exists),
    }
}

fn is_label_key(key: &str) -> bool {
    !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
}

fn parse_field(resource: &Resource, part: &str) -> ApiResult<(String, String, bool)> {
    let (name, value, equal) = if let Some((name, value)) = part.split_once("!=") {
        (name, value, false)
    } else if let Some((name, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        (name, value, true)
    } else {
        return Err(ApiError::bad_request(format!("invalid selector: '{part}'; can't understand '{part}'")));
    };
    let known =
        ["metadata.name", "metadata.namespace"].contains(&name) || resource.selectable_fields.contains(&name);
    match known {
        true => Ok((format!("/{}", name.replace('.', "/")), value.to_owned(), equal)),
        false => {
            Err(ApiError::bad_request(format!("field label \"{name}\" not supported for {}", resource.kind)))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resource::{JOBS, PODS};

    fn matches(labels: &str, fields: &str, object: &Value) -> bool {
        Selector::parse(&PODS, labels, fields).unwrap().matches(object)
    }

    #[test]
    fn labels_are_matched() {
        let object = json!({"metadata": {"labels": {"app.io/a": "1", "b": ""}}});
        for selector in [
            "",
            "app.io/a",
            "app.io/a=1",
            "app.io/a == 1",
            "app.io/a in (1, 2)",
            "!c",
            "c!=1",
            "c notin (1)",
            "b=",
            "app.io/a in (2,1),b,!c",
        ] {
            assert!(matches(selector, "", &object), "{selector}");
        }
        for selector in ["c", "app.io/a=2", "app.io/a!=1", "app.io/a notin (1,2)", "!b", "c in (1)", "b,c"] {
            assert!(!matches(selector, "", &object), "{selector}");
        }
    }

    #[test]
    fn fields_are_matched() {
        let object = json!({"metadata": {"name": "n"}, "status": {"phase": "Running"}});
        assert!(matches("", "metadata.name=n,status.phase!=Failed,spec.nodeName=", &object));
        assert!(!matches("", "status.phase=Failed", &object));
    }

    #[test]
    fn succeeded_pods_of_a_job_are_matched_by_their_number() {
        let matches = |fields: &str, status: Value| {
            Selector::parse(&JOBS, "", fields).unwrap().matches(&json!({ "status": status }))
        };
        assert!(matches("status.successful=0", json!({})));
        assert!(matches("status.successful=0", json!({"failed": 1})));
        assert!(matches("status.successful=2", json!({"succeeded": 2})));
        assert!(!matches("status.successful=0", json!({"succeeded": 1})));
    }

    #[test]
    fn malformed_selectors_are_bad_requests() {
        for (labels, fields) in
            [("a in 1", ""), ("a in (1", ""), ("a b", ""), ("=1", ""), ("", "name"), ("", "x.y=1")]
        {
            assert_eq!(Selector::parse(&JOBS, labels, fields).unwrap_err().code, 400, "{labels} {fields}");
        }
    }
}
