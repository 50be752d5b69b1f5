//! What a schema does not allow, in words: the field, what was found, what is allowed. Bounded, and never a long value.

use jsonschema::{
    JsonType, ValidationError,
    error::{TypeKind, ValidationErrorKind as Kind},
    paths::LocationSegment,
};
use serde_json::Value;

use crate::contract::names::Quoted;
use crate::template::{problem::Problem, quantity};

/// How much of a list of allowed values is told, in bytes.
const MAX_LIST: usize = 200;

/// The problems that an error stands for: one for each unknown or missing property.
pub(super) fn problems(error: ValidationError<'_>) -> Vec<Problem> {
    let field = path(&error);
    let below = |name: &str| if field.is_empty() { name.to_owned() } else { format!("{field}.{name}") };
    match error.kind() {
        Kind::Required { property } => {
            vec![Problem::at(below(property.as_str().unwrap_or_default()), "is missing, but required")]
        }
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            unexpected.iter().map(|name| Problem::at(below(name), "is no field that is known here")).collect()
        }
        _ => vec![Problem::at(field, sentence(&error))],
    }
}

/// `job.spec.containers[0]`
fn path(error: &ValidationError<'_>) -> String {
    let mut path = String::new();
    for segment in error.instance_path().iter() {
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

fn sentence(error: &ValidationError<'_>) -> String {
    let found = found(error.instance());
    let length = || match error.instance().as_ref() {
        Value::String(text) => format!("{} characters", text.chars().count()),
        other => self::found(other),
    };
    match error.kind() {
        // A number where a whole one is allowed: which one says why.
        Kind::Type { kind: kind @ TypeKind::Single(JsonType::Integer) } if error.instance().is_number() => {
            format!("found {found}, allowed is {}", allowed_types(kind))
        }
        Kind::Type { kind } => {
            format!("found {}, allowed is {}", type_of(error.instance()), allowed_types(kind))
        }
        Kind::Enum { options } => format!("found {found}, allowed are {}", list(options)),
        Kind::Constant { expected_value } => {
            format!("found {found}, must be {}", self::found(expected_value))
        }
        Kind::MaxLength { limit } => format!("found {}, allowed are at most {limit}", length()),
        Kind::MinLength { limit } => format!("found {}, allowed are at least {limit}", length()),
        Kind::Maximum { limit } => format!("found {found}, allowed is at most {limit}"),
        Kind::Minimum { limit } => format!("found {found}, allowed is at least {limit}"),
        Kind::ExclusiveMaximum { limit } => format!("found {found}, allowed is less than {limit}"),
        Kind::ExclusiveMinimum { limit } => format!("found {found}, allowed is more than {limit}"),
        Kind::MultipleOf { multiple_of } => format!("found {found}, allowed are multiples of {multiple_of}"),
        Kind::Pattern { pattern } => {
            format!("found {found}, allowed is what matches {}", Quoted::new(pattern))
        }
        Kind::Format { format } if format == quantity::FORMAT => {
            format!("found {found}, allowed is a Kubernetes quantity such as 64Mi, 1.5G or 100m")
        }
        Kind::Format { format } => format!("found {found}, allowed is a text of the format {format}"),
        other => format!("is not as the schema's {} says", Quoted::new(other.keyword())),
    }
}

/// A value as an error shows it: scalars quoted and cut, the rest by type.
pub(super) fn found(value: &Value) -> String {
    match value {
        Value::String(text) => Quoted::new(text).to_string(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        other => type_of(other).to_owned(),
    }
}

/// A value's JSON type, with its article.
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
    let word = |kind| match kind {
        JsonType::Null => "null",
        JsonType::Boolean => "a boolean",
        JsonType::Integer => "a whole number",
        JsonType::Number => "a number",
        JsonType::String => "a string",
        JsonType::Array => "an array",
        JsonType::Object => "an object",
    };
    match kind {
        TypeKind::Single(kind) => word(*kind).to_owned(),
        TypeKind::Multiple(kinds) => kinds.iter().map(word).collect::<Vec<_>>().join(" or "),
    }
}

fn list(options: &Value) -> String {
    let mut text = String::new();
    for option in options.as_array().into_iter().flatten().map(found) {
        if text.len() + option.len() > MAX_LIST {
            text.push_str(", …");
            break;
        }
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(&option);
    }
    text
}
