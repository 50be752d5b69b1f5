//! What a request may carry: JSON Schema of its parameters, and the texts that their values become.

use std::{collections::BTreeMap, sync::Arc};

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::{Map, Value, json};

use crate::contract::names::Quoted;
use crate::template::{
    pattern,
    problem::Problem,
    quantity,
    scalar::{self, is_truthy},
    schema_errors,
};

mod declared;

use declared::Parameter;

/// The draft of the schemas.
pub(super) const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Keys of a request that no parameter may have.
pub const RESERVED: [&str; 2] = ["name", "generateName"];

/// How many problems of one request are told.
const MAX_TOLD: usize = 3;

/// The parameters of a template.
#[derive(Debug, Clone)]
pub struct Parameters {
    schema: Map<String, Value>,
    declared: BTreeMap<String, Parameter>,
    validator: Arc<Validator>,
}

impl Parameters {
    /// Checks a schema and what it declares.
    pub(super) fn read(schema: Map<String, Value>) -> Result<Self, Vec<Problem>> {
        let value = Value::Object(schema.clone());
        let mut problems: Vec<Problem> = jsonschema::draft202012::meta::validator()
            .iter_errors(&value)
            .flat_map(schema_errors::problems)
            .map(|problem| match problem.field.as_str() {
                "" => Problem::at("parameters", problem.message),
                field => Problem::at(format!("parameters.{field}"), problem.message),
            })
            .collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        let declared = declared::read(&schema, &mut problems);
        match compile(&value) {
            Ok(validator) if problems.is_empty() => {
                let parameters = Self { schema, declared, validator: Arc::new(validator) };
                parameters.check_defaults()?;
                Ok(parameters)
            }
            Ok(_) => Err(problems),
            Err(problem) => {
                problems.push(problem);
                Err(problems)
            }
        }
    }

    /// A default is held to the same schema as a value of a request.
    fn check_defaults(&self) -> Result<(), Vec<Problem>> {
        let defaults: Map<String, Value> = self
            .declared
            .iter()
            .filter_map(|(name, parameter)| Some((name.clone(), parameter.default.clone()?)))
            .collect();
        let fields = Value::Object(defaults);
        let wrong = self.validator.iter_errors(&fields).flat_map(schema_errors::problems);
        let problems: Vec<_> = wrong
            .filter(|problem| fields.get(&problem.field).is_some())
            .map(|p| Problem::at(format!("parameters.properties.{}.default", p.field), p.message))
            .collect();
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// Whether the parameter is declared.
    pub(super) fn is_declared(&self, name: &str) -> bool {
        self.declared.contains_key(name)
    }

    /// Whether every request has a value for it: it is required, or has a default.
    pub(super) fn is_always_there(&self, name: &str) -> bool {
        self.declared.get(name).is_some_and(|p| p.required || p.default.is_some())
    }

    /// The text that a parameter's value would become, whatever else is wrong with the request.
    pub fn text(&self, name: &str, fields: &BTreeMap<String, Value>) -> Option<String> {
        let parameter = self.declared.get(name)?;
        let value = fields.get(name).or(parameter.default.as_ref())?;
        if parameter.truthy { is_truthy(value).then(|| "true".to_owned()) } else { scalar::text(value).ok() }
    }

    /// The texts of a request's values.
    ///
    /// # Errors
    /// One sentence: which field, what was found, what is allowed. At most three fields are told.
    pub fn texts(&self, fields: &BTreeMap<String, Value>) -> Result<BTreeMap<String, String>, String> {
        let given = |name: &str| !RESERVED.contains(&name);
        if let Some(unknown) = fields.keys().find(|k| given(k) && !self.is_declared(k)) {
            let known: Vec<_> = self.declared.keys().map(String::as_str).chain(RESERVED).collect();
            let known = known.join(", ");
            return Err(format!("field {}: is no parameter, allowed are {known}", Quoted::new(unknown)));
        }
        // What is absent and has a default is there for the schema too: conditions may look at it.
        let defaults = self.declared.iter().filter_map(|(name, p)| Some((name, p.default.as_ref()?)));
        let mut instance: Map<String, Value> =
            defaults.map(|(name, value)| (name.clone(), value.clone())).collect();
        let of_request = fields.iter().filter(|(name, _)| given(name));
        instance.extend(of_request.map(|(name, value)| (name.clone(), value.clone())));
        let instance = Value::Object(instance);
        let mut problems: Vec<Problem> =
            self.validator.iter_errors(&instance).flat_map(schema_errors::problems).collect();
        let mut texts = BTreeMap::new();
        if problems.is_empty() {
            for (name, value) in instance.as_object().into_iter().flatten() {
                match self.declared.get(name).map(|parameter| parameter.text(value)) {
                    Some(Ok(text)) => texts.extend(text.map(|text| (name.clone(), text))),
                    Some(Err(message)) => problems.push(Problem::at(name, message)),
                    None => {}
                }
            }
        }
        if problems.is_empty() { Ok(texts) } else { Err(told(problems)) }
    }

    /// Texts as a request would give them, to try a manifest: of all parameters, or only of those that no request lacks.
    pub(super) fn sample(&self, all: bool) -> BTreeMap<String, String> {
        let names = self.declared.iter().filter(|(name, _)| all || self.is_always_there(name));
        names.map(|(name, parameter)| (name.clone(), parameter.sample())).collect()
    }

    /// A text that the parameter can have and that can stand in a label, where there is one.
    pub(super) fn label_sample(&self, name: &str) -> Option<String> {
        self.declared.get(name)?.label_sample()
    }

    /// The JSON Schema of a whole request: the parameters, `name` and `generateName`, and nothing else.
    pub fn request_schema(&self) -> Value {
        let mut schema = self.schema.clone();
        schema.insert("$schema".to_owned(), DRAFT.into());
        schema.insert("additionalProperties".to_owned(), false.into());
        let properties = schema.entry("properties").or_insert_with(|| json!({}));
        if let Some(properties) = properties.as_object_mut() {
            let name = json!({"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63,
                "description": "the Job's name"});
            let prefix = json!({"type": "string", "minLength": 1, "maxLength": 51,
                "description": "a prefix; twelve hexadecimal digits follow. Not beside `name`"});
            properties.extend(RESERVED.map(str::to_owned).into_iter().zip([name, prefix]));
        }
        Value::Object(schema)
    }
}

/// References reach nothing outside the file, patterns take linear time, and a format that is unknown is an error.
fn compile(schema: &Value) -> Result<Validator, Problem> {
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .with_pattern_options(PatternOptions::regex())
        .with_format(quantity::FORMAT, quantity::is_quantity)
        .should_validate_formats(true)
        .should_ignore_unknown_formats(false)
        .offline()
        .build(schema)
        .map_err(|error| {
            let message: String = error.to_string().chars().take(300).collect();
            Problem::at("parameters", format!("is no JSON Schema that can be used: {message}"))
        })
}

fn told(mut problems: Vec<Problem>) -> String {
    problems.sort_by(|a, b| a.field.cmp(&b.field));
    problems.dedup_by(|a, b| a.field == b.field);
    let more = problems.len().saturating_sub(MAX_TOLD);
    let told = problems.into_iter().take(MAX_TOLD).map(|Problem { field, message }| match field.as_str() {
        "" => format!("the request {message}"),
        field if pattern::is_parameter_name(field) => format!("field `{field}`: {message}"),
        field => format!("field {}: {message}", Quoted::new(field)),
    });
    let mut text = told.collect::<Vec<_>>().join("; ");
    if more > 0 {
        text.push_str(&format!("; and {more} more"));
    }
    text
}

#[cfg(test)]
mod tests;
