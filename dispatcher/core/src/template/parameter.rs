//! One declared parameter: the rules that the dispatcher adds to those of JSON Schema.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::{
    contract::names::Quoted,
    template::{
        pattern,
        problem::Problem,
        scalar::{self, is_truthy},
    },
};

/// The draft of the schemas.
pub(super) const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Fields of every request, which no parameter can redefine.
pub const RESERVED: [&str; 2] = ["name", "generateName"];

/// The longest text if the schema sets no `maxLength`, in characters.
const DEFAULT_MAX_LENGTH: usize = 4096;

/// The keywords of the draft: its core, applicator, validation and annotation vocabularies. Others
/// are refused as misspelled unless they start with `x-`, since a validator would ignore them.
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

/// A declared parameter.
#[derive(Debug, Clone)]
pub(super) struct Parameter {
    pub(super) required: bool,
    /// `x-truthy`: any value is allowed; a value that is truthy in JavaScript becomes `true`, any
    /// other becomes no value.
    pub(super) truthy: bool,
    /// The value if a request gives none.
    pub(super) default: Option<Value>,
    /// Some values that satisfy the schema; none if it is too intricate to find one.
    pub(super) candidates: Vec<Value>,
    pub(super) schema: Value,
}

/// The declared parameters; adds the problems of the schema to `problems`.
pub(super) fn declared(
    schema: &Map<String, Value>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, Parameter> {
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
            candidates: Vec::new(),
            schema: schema.clone(),
        };
        let messages = name_problem(name).into_iter().chain(parameter.problems());
        problems.extend(messages.map(|message| Problem::at(field.clone(), message)));
        declared.insert(name.clone(), parameter);
    }
    for name in required.iter().filter(|name| !declared.contains_key(**name)) {
        let message = format!("{} is not declared in `properties`", Quoted::new(name));
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
        problem(".patternProperties", "not supported; declare each parameter in `properties`");
    }
    for keyword in ["additionalProperties", "unevaluatedProperties"] {
        if schema.get(keyword).is_some_and(|value| value != &Value::Bool(false)) {
            problem(&format!(".{keyword}"), "must be `false`: undeclared fields are always rejected");
        }
    }
    for keyword in unknown_keywords(schema) {
        problem(&format!(".{keyword}"), "unknown JSON Schema keyword (custom keywords start with `x-`)");
    }
}

fn unknown_keywords(schema: &Map<String, Value>) -> impl Iterator<Item = &String> {
    schema.keys().filter(|key| !KEYWORDS.contains(&key.as_str()) && !key.starts_with("x-"))
}

fn name_problem(name: &str) -> Option<String> {
    if RESERVED.contains(&name) {
        return Some("reserved: every request has this field".to_owned());
    }
    (!pattern::is_parameter_name(name))
        .then(|| "not a valid parameter name (letters, digits and '_')".to_owned())
}

impl Parameter {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for keyword in self.schema.as_object().into_iter().flat_map(unknown_keywords) {
            problems
                .push(format!("`{keyword}`: unknown JSON Schema keyword (custom keywords start with `x-`)"));
        }
        if self.schema.get("x-truthy").is_some_and(|value| !value.is_boolean()) {
            problems.push("`x-truthy` must be `true` or `false`".to_owned());
        }
        if self.truthy && self.required {
            problems.push("an `x-truthy` parameter cannot be required".to_owned());
        }
        let no_scalars = ["array", "object", "null"];
        for kind in no_scalars.into_iter().filter(|kind| !self.truthy && self.types().any(|t| t == *kind)) {
            problems
                .push(format!("type `{kind}` has no text form (allowed: string, integer, number, boolean)"));
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

    /// The text of a value that satisfies the schema; `None` if it means no value.
    ///
    /// # Errors
    /// If the value has no text that an environment variable or argument can hold.
    pub(super) fn text(&self, value: &Value) -> Result<Option<String>, String> {
        if self.truthy {
            return Ok(is_truthy(value).then(|| "true".to_owned()));
        }
        let text = scalar::text(value)?;
        let bounded = ["maxLength", "enum", "const"].iter().any(|keyword| self.schema.get(keyword).is_some());
        match text.chars().count() {
            length if !bounded && length > DEFAULT_MAX_LENGTH => {
                Err(format!("expected at most {DEFAULT_MAX_LENGTH} characters, found {length}"))
            }
            _ if text.contains('\0') => {
                Err("contains a NUL character, which no variable or argument can hold".to_owned())
            }
            _ => Ok(Some(text)),
        }
    }

    /// The texts of the values that are known to satisfy the schema.
    fn texts(&self) -> impl Iterator<Item = String> {
        self.candidates.iter().filter_map(|value| self.text(value).ok().flatten())
    }

    /// A possible text of the parameter.
    pub(super) fn sample(&self) -> String {
        self.texts().next().unwrap_or_else(|| "x".to_owned())
    }

    /// A possible text of the parameter that can be part of an RFC 1123 label. A listed value must
    /// be one; for other schemas, the search for one may fail.
    pub(super) fn label_sample(&self) -> Option<String> {
        let is_listed = ["enum", "const"].iter().any(|keyword| self.schema.get(keyword).is_some());
        let found = self.texts().filter(|text| is_label_part(text)).min_by_key(String::len);
        found.or_else(|| (!is_listed).then(|| "x".to_owned()))
    }
}

/// Whether the text can be part of an RFC 1123 label.
pub(super) fn is_label_part(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}
