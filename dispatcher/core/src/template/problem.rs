//! A problem of a template or a request: the field, the expected value, the actual one.
//!
//! The messages are bounded and never contain a long value.

use std::fmt;

use jsonschema::{
    JsonType, ValidationError,
    error::{TypeKind, ValidationErrorKind as Kind},
    paths::LocationSegment,
};
use serde_json::Value;

use crate::{contract::names::Quoted, template::quantity};

/// The message about a required field without a value.
pub(super) const REQUIRED: &str = "required field is missing";
/// The longest list of allowed values in a message, in bytes.
const MAX_LIST: usize = 200;

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The path of the field: `spec.job.spec.template.spec.containers[0].image`; empty for the
    /// whole file.
    pub field: String,
    /// The expected value and the actual one.
    pub message: String,
}

impl Problem {
    /// A problem of a field.
    pub fn at(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }

    /// A problem of the whole file.
    pub fn of_file(message: impl Into<String>) -> Self {
        Self::at("", message)
    }

    /// The same problem, with its field inside the field `parent`.
    #[must_use]
    pub fn within(self, parent: &str) -> Self {
        let field =
            if self.field.is_empty() { parent.to_owned() } else { format!("{parent}.{}", self.field) };
        Self { field, ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field.as_str() {
            "" => f.write_str(&self.message),
            field => write!(f, "{field}: {}", self.message),
        }
    }
}

/// A template file is not valid, or the operator's limits do not allow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateError {
    /// The path of the file.
    pub file: String,
    /// At least one problem.
    pub problems: Vec<Problem>,
}

/// One line: the first problem and the number of further ones.
impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file)?;
        match self.problems.as_slice() {
            [] => f.write_str("not a valid template"),
            [only] => write!(f, "{only}"),
            [first, more @ ..] => {
                write!(f, "{first} (and {} more: run `dispatcher check {}`)", more.len(), self.file)
            }
        }
    }
}

impl std::error::Error for TemplateError {}

/// The problems of a violation of `schema`: one for each missing or unknown property.
pub(super) fn of_violation(error: &ValidationError<'_>, schema: &Value) -> Vec<Problem> {
    let field = path(error);
    let below = |name: &str| if field.is_empty() { name.to_owned() } else { format!("{field}.{name}") };
    match error.kind() {
        Kind::Required { property } => {
            vec![Problem::at(below(property.as_str().unwrap_or_default()), REQUIRED)]
        }
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            let message = unknown_field(error, schema);
            unexpected.iter().map(|name| Problem::at(below(name), &message)).collect()
        }
        _ => vec![Problem::at(field, message(error))],
    }
}

/// `job.spec.containers[0]`
fn path(error: &ValidationError<'_>) -> String {
    let mut path = String::new();
    for segment in error.instance_path() {
        match segment {
            LocationSegment::Index(index) => path.push_str(&format!("[{index}]")),
            LocationSegment::Property(name) if path.is_empty() => path.push_str(&name),
            LocationSegment::Property(name) => {
                path.push('.');
                path.push_str(&name);
            }
        }
    }
    path
}

fn unknown_field(error: &ValidationError<'_>, schema: &Value) -> String {
    let keyword = error.schema_path().as_str();
    let parent = keyword.rsplit_once('/').map_or("", |(parent, _)| parent);
    match schema.pointer(parent).and_then(|object| object.get("properties")).and_then(Value::as_object) {
        Some(known) => format!("unknown field (allowed: {})", list(known.keys().cloned())),
        None => "unknown field".to_owned(),
    }
}

fn message(error: &ValidationError<'_>) -> String {
    let found = describe(error.instance());
    match error.kind() {
        // For a number, the value itself shows why it is not a whole one.
        Kind::Type { kind: kind @ TypeKind::Single(JsonType::Integer) } if error.instance().is_number() => {
            format!("expected {}, found {found}", allowed_types(kind))
        }
        Kind::Type { kind } => {
            format!("expected {}, found {}", allowed_types(kind), type_of(error.instance()))
        }
        Kind::Enum { options } => {
            let options = options.as_array().into_iter().flatten().map(describe);
            format!("found {found} (allowed: {})", list(options))
        }
        Kind::Constant { expected_value } => format!("expected {}, found {found}", describe(expected_value)),
        Kind::MaxLength { limit } => format!("expected at most {limit} characters, found {}", length(error)),
        Kind::MinLength { limit } => format!("expected at least {limit} characters, found {}", length(error)),
        Kind::Maximum { limit } => format!("expected at most {limit}, found {found}"),
        Kind::Minimum { limit } => format!("expected at least {limit}, found {found}"),
        Kind::ExclusiveMaximum { limit } => format!("expected less than {limit}, found {found}"),
        Kind::ExclusiveMinimum { limit } => format!("expected more than {limit}, found {found}"),
        Kind::MultipleOf { multiple_of } => format!("expected a multiple of {multiple_of}, found {found}"),
        Kind::Pattern { pattern } => {
            format!("expected a match of the pattern {}, found {found}", Quoted::new(pattern))
        }
        Kind::Format { format } if format == quantity::FORMAT => {
            format!("expected a Kubernetes quantity such as 64Mi, 1.5G or 100m, found {found}")
        }
        Kind::Custom { message, .. } => message.clone(),
        Kind::Format { format } => format!("expected the format {format}, found {found}"),
        other => format!("does not satisfy the schema keyword {}", Quoted::new(other.keyword())),
    }
}

fn length(error: &ValidationError<'_>) -> usize {
    error.instance().as_str().map_or(0, |text| text.chars().count())
}

/// A value in a message: scalars quoted and truncated, everything else by type.
fn describe(value: &Value) -> String {
    match value {
        Value::String(text) => Quoted::new(text).to_string(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        other => type_of(other).to_owned(),
    }
}

/// A value's JSON type, with its article.
#[must_use]
pub fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn allowed_types(kind: &TypeKind) -> String {
    let name = |kind| match kind {
        JsonType::Null => "null",
        JsonType::Boolean => "a boolean",
        JsonType::Integer => "a whole number",
        JsonType::Number => "a number",
        JsonType::String => "a string",
        JsonType::Array => "an array",
        JsonType::Object => "an object",
    };
    match kind {
        TypeKind::Single(kind) => name(*kind).to_owned(),
        TypeKind::Multiple(kinds) => kinds.iter().map(name).collect::<Vec<_>>().join(" or "),
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    let mut text = String::new();
    for item in items {
        if text.len() + item.len() > MAX_LIST {
            text.push_str(", …");
            break;
        }
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(&item);
    }
    text
}
