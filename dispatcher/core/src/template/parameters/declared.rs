//! One declared parameter: what the dispatcher reads of its schema, beside what the schema itself allows.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::contract::names::Quoted;
use crate::template::{
    parameters::{DRAFT, RESERVED},
    pattern,
    problem::Problem,
    scalar::{self, is_truthy},
};

/// The longest text where the schema sets no `maxLength`, in characters.
const DEFAULT_MAX_LENGTH: usize = 4096;

/// The keywords of the draft (its core, applicator, validation and annotation vocabularies). Others are taken for
/// misspelt, unless they begin with `x-`: to a validator they are annotations, which allow anything.
const KEYWORDS: [&str; 55] = [
    "$anchor",
    "$comment",
    "$defs",
    "$dynamicAnchor",
    "$dynamicRef",
    "$id",
    "$ref",
    "$schema",
    "additionalProperties",
    "allOf",
    "anyOf",
    "const",
    "contains",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
    "default",
    "dependentRequired",
    "dependentSchemas",
    "deprecated",
    "description",
    "else",
    "enum",
    "examples",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "if",
    "items",
    "maxContains",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minContains",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "not",
    "oneOf",
    "pattern",
    "patternProperties",
    "prefixItems",
    "properties",
    "propertyNames",
    "readOnly",
    "required",
    "then",
    "title",
    "type",
    "unevaluatedProperties",
    "uniqueItems",
    "writeOnly",
];

/// What is known of one parameter.
#[derive(Debug, Clone)]
pub(super) struct Parameter {
    pub(super) required: bool,
    /// `x-truthy`: any value, as `true` where JavaScript takes it for true, else as none.
    pub(super) truthy: bool,
    /// The value of a request that gives none.
    pub(super) default: Option<Value>,
    schema: Value,
}

/// Reads what the schema declares, and tells what cannot be.
pub(super) fn read(schema: &Map<String, Value>, problems: &mut Vec<Problem>) -> BTreeMap<String, Parameter> {
    check_root(schema, problems);
    let properties = schema.get("properties").and_then(Value::as_object);
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut declared = BTreeMap::new();
    for (name, schema) in properties.into_iter().flatten() {
        let field = format!("parameters.properties.{name}");
        let parameter = Parameter {
            required: required.contains(&name.as_str()),
            truthy: schema.get("x-truthy") == Some(&Value::Bool(true)),
            default: schema.get("default").cloned(),
            schema: schema.clone(),
        };
        let messages = name_problem(name).into_iter().chain(parameter.problems());
        problems.extend(messages.map(|message| Problem::at(field.clone(), message)));
        declared.insert(name.clone(), parameter);
    }
    for name in required.iter().filter(|name| !declared.contains_key(**name)) {
        let message = format!("{} is no declared property", Quoted::new(name));
        problems.push(Problem::at("parameters.required", message));
    }
    declared
}

fn check_root(schema: &Map<String, Value>, problems: &mut Vec<Problem>) {
    let mut problem = |field: &str, message: &str| {
        problems.push(Problem::at(format!("parameters{field}"), message));
    };
    if schema.get("type") != Some(&Value::from("object")) {
        problem(".type", "must be `object`");
    }
    if schema.get("$schema").is_some_and(|draft| draft != DRAFT) {
        problem(".$schema", &format!("must be {DRAFT}"));
    }
    if schema.contains_key("patternProperties") {
        problem(".patternProperties", "parameters are declared one by one, in `properties`");
    }
    for keyword in ["additionalProperties", "unevaluatedProperties"] {
        if schema.get(keyword).is_some_and(|value| value != &Value::Bool(false)) {
            problem(&format!(".{keyword}"), "must be `false`: what is not declared is always rejected");
        }
    }
    for keyword in unknown_keywords(schema) {
        problem(&format!(".{keyword}"), "is no keyword of JSON Schema; your own begin with `x-`");
    }
}

fn unknown_keywords(schema: &Map<String, Value>) -> impl Iterator<Item = &String> {
    schema.keys().filter(|key| !KEYWORDS.contains(&key.as_str()) && !key.starts_with("x-"))
}

fn name_problem(name: &str) -> Option<String> {
    if RESERVED.contains(&name) {
        return Some("is a reserved key of every request".to_owned());
    }
    (!pattern::is_parameter_name(name))
        .then(|| "a parameter's name is made of letters, digits and '_'".to_owned())
}

impl Parameter {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for keyword in self.schema.as_object().into_iter().flat_map(unknown_keywords) {
            problems.push(format!("`{keyword}` is no keyword of JSON Schema; your own begin with `x-`"));
        }
        if self.schema.get("x-truthy").is_some_and(|value| !value.is_boolean()) {
            problems.push("`x-truthy` must be `true` or `false`".to_owned());
        }
        if self.truthy && self.required {
            problems.push("an `x-truthy` parameter cannot be required".to_owned());
        }
        let no_text = ["array", "object", "null"].into_iter().filter(|word| self.types().any(|t| t == *word));
        for word in no_text.filter(|_| !self.truthy) {
            problems.push(format!(
                "the type `{word}` cannot be put into a text, allowed are string, integer, number and boolean"
            ));
        }
        if let Some(Err(message)) = self.default.as_ref().map(|value| self.text(value)) {
            problems.push(format!("`default`: {message}"));
        }
        problems
    }

    fn types(&self) -> impl Iterator<Item = &str> {
        let types = self.schema.get("type");
        let one = types.and_then(Value::as_str);
        let many = types.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        one.into_iter().chain(many)
    }

    /// The text that a value becomes which the schema allows; `None` where it stands for no value.
    pub(super) fn text(&self, value: &Value) -> Result<Option<String>, String> {
        if self.truthy {
            return Ok(is_truthy(value).then(|| "true".to_owned()));
        }
        let text = scalar::text(value)?;
        let bounded = ["maxLength", "enum", "const"].iter().any(|keyword| self.schema.get(keyword).is_some());
        match text.chars().count() {
            length if !bounded && length > DEFAULT_MAX_LENGTH => {
                Err(format!("found {length} characters, allowed are at most {DEFAULT_MAX_LENGTH}"))
            }
            _ if text.contains('\0') => {
                Err("found a NUL character, which no variable or argument can hold".to_owned())
            }
            _ => Ok(Some(text)),
        }
    }

    /// A text that it may have, as far as that can be known.
    pub(super) fn sample(&self) -> String {
        self.candidates().into_iter().next().unwrap_or_else(|| "a".to_owned())
    }

    /// A text that it may have and that can stand in a label.
    pub(super) fn label_sample(&self) -> Option<String> {
        let fits =
            |text: &String| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        self.candidates().into_iter().filter(fits).min_by_key(String::len)
    }

    fn candidates(&self) -> Vec<String> {
        let texts = |values: &[Value]| values.iter().filter_map(|value| scalar::text(value).ok()).collect();
        if self.truthy {
            return vec!["true".to_owned()];
        }
        if let Some(options) = self.schema.get("enum").and_then(Value::as_array) {
            return texts(options);
        }
        if let Some(only) = self.schema.get("const") {
            return texts(std::slice::from_ref(only));
        }
        match self.types().next() {
            Some("boolean") => vec!["true".to_owned(), "false".to_owned()],
            Some("integer" | "number") => vec!["1".to_owned()],
            _ => {
                let least = self.schema.get("minLength").and_then(Value::as_u64).unwrap_or(1).clamp(1, 1024);
                vec!["a".repeat(usize::try_from(least).unwrap_or(1))]
            }
        }
    }
}
