//! The template file and its JSON Schema, which `docs/schemas/` publishes.
//!
//! A file is first validated against this schema. The other modules check the rest.

use std::{collections::BTreeMap, num::NonZeroU32, sync::LazyLock};

use jsonschema::Validator;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::contract::names::TemplateName;
use crate::template::{log_tail, parameters, problem::Problem, schema_errors};

/// The `apiVersion` of a template.
pub(super) const API_VERSION: &str = "natsjobs.dev/v1alpha1";

/// The `kind` of a template.
pub(super) const KIND: &str = "JobTemplate";

/// One type of Job: the parameters of a request, and the Job that a request becomes.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(title = "JobTemplate")]
pub(super) struct File {
    /// The version of this format.
    #[schemars(schema_with = "schema_of_api_version")]
    #[serde(rename = "apiVersion")]
    _api_version: String,
    /// The type of this object.
    #[schemars(schema_with = "schema_of_kind")]
    #[serde(rename = "kind")]
    _kind: String,
    /// The name of the template, with optional labels and annotations.
    pub(super) metadata: Metadata,
    /// The template.
    pub(super) spec: Spec,
}

/// The metadata of a template.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Metadata {
    /// The name: the second token of `jobs.<template>.create`.
    pub(super) name: TemplateName,
    /// Labels, as on any Kubernetes object. The dispatcher ignores them.
    #[serde(default, rename = "labels")]
    _labels: BTreeMap<String, String>,
    /// Annotations, as on any Kubernetes object. The dispatcher ignores them.
    #[serde(default, rename = "annotations")]
    _annotations: BTreeMap<String, String>,
}

/// The parameters, naming rule, limits and manifest of a template.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Spec {
    /// The name of a Job whose request gives none: text with `${parameter}`.
    pub(super) job_name: String,
    /// The parameters of a request: JSON Schema (draft 2020-12) of an object. A parameter with
    /// `x-truthy: true` becomes `true` or has no value, by JavaScript's rules of truth.
    #[schemars(schema_with = "schema_of_parameters")]
    pub(super) parameters: Map<String, Value>,
    /// Limits on the Jobs of the template.
    #[serde(default)]
    pub(super) limits: Limits,
    /// The part of a pod's log that its attempt carries; `false` for none.
    #[serde(default)]
    pub(super) log_tail: log_tail::Setting,
    /// A `batch/v1` Job. Its string values may contain `${parameter}`.
    #[schemars(schema_with = "schema_of_job")]
    pub(super) job: Value,
}

/// Limits on the Jobs of a template.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Limits {
    /// The largest number of unfinished Jobs. Further requests wait in the stream.
    pub(super) max_active: Option<NonZeroU32>,
}

fn schema_of_api_version(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"const": API_VERSION})
}

fn schema_of_kind(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"const": KIND})
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

/// An error if the types above produce an invalid schema; a test excludes it.
static VALIDATOR: LazyLock<Result<Validator, String>> =
    LazyLock::new(|| jsonschema::options().offline().build(&schema()).map_err(|error| error.to_string()));

impl File {
    /// Parses a file and validates it against the schema.
    pub(super) fn read(text: &str) -> Result<Self, Vec<Problem>> {
        let one = |problem| vec![problem];
        // YAML 1.2: `n`, `off` and `yes` are strings.
        let options = serde_saphyr::options! { strict_booleans: true };
        let value: Value = serde_saphyr::from_str_with_options(text, options)
            .map_err(|e| one(Problem::of_file(format!("not valid YAML: {e}"))))?;
        let validator = VALIDATOR.as_ref().map_err(|e| one(Problem::of_file(e.clone())))?;
        let problems: Vec<Problem> = validator
            .iter_errors(&value)
            .flat_map(schema_errors::problems)
            // `parameters` validates itself against the JSON Schema draft, with clearer messages.
            .filter(|problem| !problem.field.starts_with("spec.parameters."))
            .collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        serde_path_to_error::deserialize(value)
            .map_err(|e| one(Problem::at(e.path().to_string(), e.inner().to_string())))
    }
}
