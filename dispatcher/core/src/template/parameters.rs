//! The parameters of a template: validates the values of a request and converts them to text.

use std::{collections::BTreeMap, sync::Arc};

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::{Map, Value, json};

pub(super) use crate::template::parameter::DRAFT;
pub use crate::template::parameter::RESERVED;
use crate::{
    contract::names::{MAX_LABEL, Quoted},
    template::{
        bounds, candidates,
        object::edit,
        parameter::{self, Parameter},
        pattern,
        problem::{self, Problem},
        quantity,
        scalar::{self, is_truthy},
    },
};

/// The largest number of problems in a rejection's message.
const MAX_PROBLEMS: usize = 3;
/// How many values are kept of each parameter, to build sample requests from.
const MAX_CANDIDATES: usize = 16;
/// The longest message of the JSON Schema library, in characters.
const MAX_LIBRARY_MESSAGE: usize = 300;
/// The longest `generateName`: twelve digits follow.
const MAX_PREFIX: usize = 51;

/// The parameters of a template.
#[derive(Debug, Clone)]
pub struct Parameters {
    schema: Arc<Value>,
    declared: BTreeMap<String, Parameter>,
    validator: Arc<Validator>,
}

impl Parameters {
    /// Validates a schema and the parameters that it declares.
    pub(super) fn parse(schema: Map<String, Value>) -> Result<Self, Vec<Problem>> {
        let mut problems: Vec<Problem> = jsonschema::draft202012::meta::validator()
            .iter_errors(&Value::Object(schema.clone()))
            .flat_map(|error| problem::of_violation(&error, &Value::Null))
            .map(|problem| problem.within("parameters"))
            .collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        let declared = parameter::declared(&schema, &mut problems);
        let schema = Value::Object(schema);
        problems.extend(bounds::problems(&schema, "parameters"));
        if !problems.is_empty() {
            return Err(problems);
        }
        let validator = compile(&schema).map_err(|problem| vec![problem])?;
        let mut parameters = Self { schema: Arc::new(schema), declared, validator: Arc::new(validator) };
        parameters.check_defaults()?;
        parameters.find_candidates();
        Ok(parameters)
    }

    /// Validates the defaults against the same schema as the values of a request.
    fn check_defaults(&self) -> Result<(), Vec<Problem>> {
        let defaults: Map<String, Value> = self
            .declared
            .iter()
            .filter_map(|(name, parameter)| Some((name.clone(), parameter.default.clone()?)))
            .collect();
        let fields = Value::Object(defaults);
        let problems: Vec<_> = self
            .violations(&fields)
            .into_iter()
            .filter(|problem| fields.get(&problem.field).is_some())
            .map(|p| Problem::at(format!("parameters.properties.{}.default", p.field), p.message))
            .collect();
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// Finds values that satisfy the schema of each parameter.
    fn find_candidates(&mut self) {
        let mut declared = self.declared.clone();
        for (name, parameter) in &mut declared {
            let mut found = candidates::candidates(&parameter.schema, &self.schema);
            found.retain(|value| {
                let fields = Value::Object([(name.clone(), value.clone())].into_iter().collect());
                parameter.text(value).is_ok() && self.violations(&fields).iter().all(|it| it.field != *name)
            });
            found.truncate(MAX_CANDIDATES);
            parameter.candidates = found;
        }
        self.declared = declared;
    }

    /// Requests that satisfy the schema, without optional parameters where possible. The values of
    /// the parameters that are part of the default name come from those that a name can contain.
    pub(crate) fn samples(&self, is_in_name: impl Fn(&str) -> bool) -> Vec<BTreeMap<String, Value>> {
        let choices: BTreeMap<&str, Vec<&Value>> = self
            .declared
            .iter()
            .map(|(name, parameter)| {
                let mut values: Vec<_> = parameter.candidates.iter().collect();
                if is_in_name(name) {
                    values.sort_by_key(|value| {
                        !scalar::text(value).is_ok_and(|text| parameter::is_label_part(&text))
                    });
                }
                (name.as_str(), values)
            })
            .collect();
        let first =
            |name: &str| choices.get(name).and_then(|values| values.first()).map(|value| (*value).clone());
        let required = self.declared.iter().filter(|(_, parameter)| parameter.required);
        let base: BTreeMap<String, Value> =
            required.filter_map(|(name, _)| Some((name.clone(), first(name)?))).collect();
        let variants = base.keys().flat_map(|name| {
            let values = choices.get(name.as_str()).into_iter().flatten();
            values.map(|value| {
                let mut fields = base.clone();
                fields.insert(name.clone(), (*value).clone());
                fields
            })
        });
        std::iter::once(base.clone())
            .chain(variants)
            .filter_map(|fields| self.completed(fields, &first))
            .collect()
    }

    /// The fields with those that a condition of the schema requires besides; `None` if the schema
    /// does not accept them.
    fn completed(
        &self,
        mut fields: BTreeMap<String, Value>,
        first: &impl Fn(&str) -> Option<Value>,
    ) -> Option<BTreeMap<String, Value>> {
        for _ in 0..=self.declared.len() {
            if self.texts(&fields).is_ok() {
                return Some(fields);
            }
            let instance = Value::Object(fields.clone().into_iter().collect());
            let missing: Vec<_> =
                self.violations(&instance).into_iter().filter(|it| it.message == problem::REQUIRED).collect();
            for Problem { field, .. } in missing {
                let value = first(&field)?;
                fields.insert(field, value);
            }
        }
        None
    }

    fn violations(&self, fields: &Value) -> Vec<Problem> {
        let errors = self.validator.iter_errors(fields);
        errors.flat_map(|error| problem::of_violation(&error, &self.schema)).collect()
    }

    /// Whether the parameter is declared.
    pub(super) fn is_declared(&self, name: &str) -> bool {
        self.declared.contains_key(name)
    }

    /// Whether every request has a value for the parameter: it is required, or has a default.
    pub(super) fn always_has_value(&self, name: &str) -> bool {
        self.declared.get(name).is_some_and(|p| p.required || p.default.is_some())
    }

    /// The text of a parameter's value, even if the request is invalid.
    #[must_use]
    pub fn text(&self, name: &str, fields: &BTreeMap<String, Value>) -> Option<String> {
        let parameter = self.declared.get(name)?;
        let value = fields.get(name).or(parameter.default.as_ref())?;
        if parameter.truthy { is_truthy(value).then(|| "true".to_owned()) } else { scalar::text(value).ok() }
    }

    /// The fields of a parameter that decide its text, in addition to the value in the request.
    pub(super) fn conversion(&self, name: &str) -> Value {
        let parameter = self.declared.get(name);
        parameter.map_or(Value::Null, |it| json!({"default": it.default, "truthy": it.truthy}))
    }

    /// Validates the fields of a request and converts the values of the parameters to text.
    ///
    /// # Errors
    /// A message that names the fields (at most three), what is allowed and what was found.
    pub fn texts(&self, fields: &BTreeMap<String, Value>) -> Result<BTreeMap<String, String>, String> {
        let is_parameter = |name: &str| !RESERVED.contains(&name);
        if let Some(unknown) = fields.keys().find(|key| is_parameter(key) && !self.is_declared(key)) {
            let mut allowed: Vec<_> = self.declared.keys().map(String::as_str).chain(RESERVED).collect();
            allowed.sort_unstable();
            return Err(format!("unknown field {} (allowed: {})", Quoted::new(unknown), allowed.join(", ")));
        }
        // The schema's conditions see the defaults of absent parameters too.
        let defaults = self.declared.iter().filter_map(|(name, p)| Some((name, p.default.as_ref()?)));
        let mut instance: Map<String, Value> =
            defaults.map(|(name, value)| (name.clone(), value.clone())).collect();
        let given = fields.iter().filter(|(name, _)| is_parameter(name));
        instance.extend(given.map(|(name, value)| (name.clone(), value.clone())));
        let instance = Value::Object(instance);
        // Valid requests are frequent, and the search for all violations is slow.
        let mut problems =
            if self.validator.is_valid(&instance) { Vec::new() } else { self.violations(&instance) };
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
        if problems.is_empty() { Ok(texts) } else { Err(message(problems)) }
    }

    /// Sample texts to validate a manifest: of all parameters, or without the optional ones.
    pub(super) fn sample(&self, with_optional: bool) -> BTreeMap<String, String> {
        let names = self.declared.iter().filter(|(name, _)| with_optional || self.always_has_value(name));
        names.map(|(name, parameter)| (name.clone(), parameter.sample())).collect()
    }

    /// A possible text of the parameter that can be part of an RFC 1123 label, if there is one.
    pub(super) fn label_sample(&self, name: &str) -> Option<String> {
        self.declared.get(name)?.label_sample()
    }

    /// The JSON Schema of a whole request: the parameters, `name` and `generateName`, which begin
    /// with `prefix`.
    pub(super) fn request_schema(&self, prefix: &str) -> Value {
        let mut schema = self.schema.as_object().cloned().unwrap_or_default();
        schema.insert("$schema".to_owned(), DRAFT.into());
        schema.insert("additionalProperties".to_owned(), false.into());
        let properties = schema.entry("properties").or_insert_with(|| json!({}));
        if let Some(properties) = properties.as_object_mut() {
            let name_pattern = match prefix {
                "" => "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$".to_owned(),
                // A name does not end with a hyphen.
                prefix if prefix.ends_with('-') => format!("^{prefix}[-a-z0-9]*[a-z0-9]$"),
                prefix => format!("^{prefix}([-a-z0-9]*[a-z0-9])?$"),
            };
            let name = json!({"type": "string", "pattern": name_pattern, "maxLength": MAX_LABEL,
                "description": "The Job's name."});
            let mut generate_name = json!({"type": "string", "minLength": 1, "maxLength": MAX_PREFIX,
                "description": "A prefix of the Job's name; twelve hexadecimal digits follow. Not together with `name`."});
            if !prefix.is_empty() {
                edit(&mut generate_name, &[], |it| {
                    drop(it.insert("pattern".to_owned(), format!("^{prefix}").into()));
                });
            }
            properties.extend(RESERVED.map(str::to_owned).into_iter().zip([name, generate_name]));
        }
        Value::Object(schema)
    }
}

/// References cannot leave the file, patterns take linear time, and an unknown format is an error.
fn compile(schema: &Value) -> Result<Validator, Problem> {
    bounds::with_keywords(jsonschema::options())
        .with_draft(Draft::Draft202012)
        .with_pattern_options(PatternOptions::regex())
        .with_format(quantity::FORMAT, quantity::is_quantity)
        .should_validate_formats(true)
        .should_ignore_unknown_formats(false)
        .offline()
        .build(schema)
        .map_err(|error| {
            let message: String = error.to_string().chars().take(MAX_LIBRARY_MESSAGE).collect();
            Problem::at("parameters", format!("not a usable JSON Schema: {message}"))
        })
}

/// One message for some problems.
fn message(mut problems: Vec<Problem>) -> String {
    problems.sort_by(|a, b| a.field.cmp(&b.field));
    problems.dedup_by(|a, b| a.field == b.field);
    let more = problems.len().saturating_sub(MAX_PROBLEMS);
    let parts =
        problems.into_iter().take(MAX_PROBLEMS).map(|Problem { field, message }| match field.as_str() {
            "" => format!("the request: {message}"),
            field if pattern::is_parameter_name(field) => format!("`{field}`: {message}"),
            field => format!("{}: {message}", Quoted::new(field)),
        });
    let mut text = parts.collect::<Vec<_>>().join("; ");
    if more > 0 {
        text.push_str(&format!("; and {more} more"));
    }
    text
}

#[cfg(test)]
mod tests;
