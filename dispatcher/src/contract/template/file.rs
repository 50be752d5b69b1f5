//! The template file as it is written. Its JSON Schema is generated from here, is published under `docs/schemas/`, and is
//! what a file is first held to; the rest of this folder checks what a schema cannot say.

use std::{num::NonZeroU32, sync::LazyLock};

use jsonschema::Validator;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{log_tail, parameters, problem::Problem, words};
use crate::contract::names::Kind;

/// A kind of Job for the dispatcher: what a request may carry, and the Job that it becomes.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(title = "dispatcher template")]
pub(super) struct File {
    /// The kind: the second token of `jobs.<kind>.create`.
    pub(super) kind: Kind,
    /// The name of a Job whose request gives none: text with `${parameter}`.
    pub(super) default_name: String,
    /// What a request may carry: JSON Schema (draft 2020-12) of an object. `x-truthy: true` beside it makes of any value
    /// `true` or nothing, as JavaScript would.
    #[schemars(schema_with = "schema_of_parameters")]
    pub(super) parameters: Map<String, Value>,
    /// How much of the kind there may be at once.
    #[serde(default)]
    pub(super) limits: Limits,
    /// How much of a pod's log its attempt tells; `false` for nothing of it.
    #[serde(default)]
    pub(super) log_tail: log_tail::Setting,
    /// A `batch/v1` Job as Kubernetes knows it; its string values may hold `${parameter}`.
    #[schemars(schema_with = "schema_of_job")]
    pub(super) job: Value,
}

/// How much of a kind there may be at once.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Limits {
    /// Unfinished Jobs of this kind; further requests wait in the stream.
    pub(super) max_active: Option<NonZeroU32>,
}

fn schema_of_parameters(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "allOf": [{"$ref": parameters::DRAFT}],
        "properties": {"type": {"const": "object"}},
        "required": ["type"],
    })
}

fn schema_of_job(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {"apiVersion": {"const": "batch/v1"}, "kind": {"const": "Job"}, "spec": {"type": "object"}},
        "required": ["apiVersion", "kind", "spec"],
    })
}

/// The JSON Schema of a template file.
pub fn schema() -> Value {
    schemars::schema_for!(File).to_value()
}

/// Fails only where the types above make no valid schema, which a test would see.
static VALIDATOR: LazyLock<Result<Validator, String>> =
    LazyLock::new(|| jsonschema::options().offline().build(&schema()).map_err(|error| error.to_string()));

impl File {
    /// Reads a file, as far as its schema goes.
    pub(super) fn read(text: &str) -> Result<Self, Vec<Problem>> {
        let one = |problem| vec![problem];
        // YAML 1.2: `n`, `off` and `yes` are texts, as in a list of parameters' names.
        let options = serde_saphyr::options! { strict_booleans: true };
        let value: Value = serde_saphyr::from_str_with_options(text, options)
            .map_err(|e| one(Problem::of_file(format!("is no YAML: {e}"))))?;
        let validator = VALIDATOR.as_ref().map_err(|e| one(Problem::of_file(e.clone())))?;
        let problems: Vec<Problem> = validator
            .iter_errors(&value)
            .flat_map(words::problems)
            // What is wrong with a schema is told by the room of the parameters, against the draft itself.
            .filter(|problem| !problem.field.starts_with("parameters."))
            .collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        serde_path_to_error::deserialize(value)
            .map_err(|e| one(Problem::at(e.path().to_string(), e.inner().to_string())))
    }
}
