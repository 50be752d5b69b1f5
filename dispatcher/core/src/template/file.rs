//! The template file and its JSON Schema, which `docs/schemas/` publishes.
//!
//! The dispatcher first validates a file against this schema. The other modules of `template` check
//! what the schema cannot express.

use std::{borrow::Cow, collections::BTreeMap, num::NonZeroU32, sync::LazyLock};

use jsonschema::Validator;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::{
    contract::{hex::to_hex, names::TemplateName, prefixed},
    template::{
        parameters::DRAFT,
        problem::{self, Problem},
    },
};

/// The `apiVersion` of a template, as a file and as an object.
pub const API_VERSION: &str = prefixed!("v1alpha1");
/// The `kind` of a template.
pub const KIND: &str = "JobTemplate";
/// The finalizer of a `JobTemplate` in use: its queue is finished or rejected before the object
/// disappears.
pub const FINALIZER: &str = prefixed!("queue");
/// The longest name prefix, in bytes: it leaves room for a part that differs.
const MAX_NAME_PREFIX: u16 = 40;
/// The largest number of log lines that a template can set.
const MAX_LOG_LINES: u16 = 1000;
/// The largest log tail, in bytes. An outcome contains the log tails of several attempts and must
/// fit into a NATS message (1 MiB by default).
const MAX_LOG_BYTES: u32 = 16 * 1024;
/// The length of a template's hash, in hexadecimal digits.
const HASH_DIGITS: usize = 16;

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

/// A file that satisfies the schema, and the hash of its spec.
pub(super) struct Document {
    pub(super) file: File,
    /// The start of the SHA-256 of the spec, in hex, independent of white space and key order.
    pub(super) hash: String,
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
    /// The Job's name if the request has no `name`. It may contain `${parameter}`.
    pub(super) job_name: String,
    /// The start of every Job's name, also of a `name` that a client gives. No other template's Jobs can
    /// have such a name.
    #[serde(default)]
    #[schemars(schema_with = "schema_of_name_prefix")]
    pub(super) name_prefix: Option<String>,
    /// The parameters of a request: JSON Schema (draft 2020-12) of an object. A parameter with
    /// `x-truthy: true` accepts any value. It becomes `true` if JavaScript converts the value to
    /// true, and has no value otherwise.
    #[schemars(schema_with = "schema_of_parameters")]
    pub(super) parameters: Map<String, Value>,
    /// Limits on the Jobs of the template.
    #[serde(default)]
    pub(super) limits: Limits,
    /// The size of the log tail in the attempt of a failed pod; `false` for no log tail.
    #[serde(default)]
    pub(super) log_tail: LogTailSetting,
    /// What happens to the queued requests when the template is deleted. Applies to `JobTemplate`
    /// objects and to files that are removed while the dispatcher runs.
    #[serde(default)]
    pub(super) deletion_policy: DeletionPolicy,
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

/// What happens to the queued requests of a deleted template.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// They still become Jobs.
    #[default]
    Finish,
    /// They become dead letters with the reason `TemplateDeleted`.
    Reject,
}

/// The maximum size of a log tail, the last lines of a failed pod's log in its attempt.
///
/// Logs can contain secrets, and every subscriber to the status events receives the log tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogTail {
    /// The maximum number of lines, 1 to 1,000.
    pub lines: u16,
    /// The maximum number of bytes, 1 to 16,384.
    pub bytes: u32,
}

impl Default for LogTail {
    fn default() -> Self {
        Self { lines: 20, bytes: 4096 }
    }
}

/// The field `logTail`: a boolean or bounds. The schema validates the bounds.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum LogTailSetting {
    Enabled(bool),
    Bounds(LogTail),
}

impl Default for LogTailSetting {
    fn default() -> Self {
        Self::Enabled(true)
    }
}

impl LogTailSetting {
    /// The bounds; `None` if the template turns the log tail off.
    pub(super) fn bounds(&self) -> Option<LogTail> {
        match self {
            Self::Enabled(enabled) => enabled.then(LogTail::default),
            Self::Bounds(bounds) => Some(*bounds),
        }
    }
}

/// Written by hand: the derived schema would report an invalid number only as "matches none of the
/// two variants".
impl JsonSchema for LogTailSetting {
    fn schema_name() -> Cow<'static, str> {
        "LogTail".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let LogTail { lines, bytes } = LogTail::default();
        json_schema!({
            "type": ["boolean", "object"],
            "properties": {
                "lines": {"type": "integer", "minimum": 1, "maximum": MAX_LOG_LINES, "default": lines},
                "bytes": {"type": "integer", "minimum": 1, "maximum": MAX_LOG_BYTES, "default": bytes},
            },
            "additionalProperties": false,
        })
    }
}

fn schema_of_api_version(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"const": API_VERSION})
}

fn schema_of_kind(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"const": KIND})
}

fn schema_of_name_prefix(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "pattern": "^[a-z0-9][-a-z0-9]*$", "maxLength": MAX_NAME_PREFIX})
}

fn schema_of_parameters(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "allOf": [{"$ref": DRAFT}],
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
#[must_use]
pub fn schema() -> Value {
    SCHEMA.clone()
}

static SCHEMA: LazyLock<Value> = LazyLock::new(|| schemars::schema_for!(File).to_value());

/// The compiled schema, or an error if the types above produce an invalid schema. A test ensures
/// that they do not.
static VALIDATOR: LazyLock<Result<Validator, String>> =
    LazyLock::new(|| jsonschema::options().offline().build(&SCHEMA).map_err(|error| error.to_string()));

impl Document {
    /// Parses the text of a file.
    ///
    /// # Errors
    /// As [`Self::of_value`], and if the text is not YAML.
    pub(super) fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        // YAML 1.2: `n`, `off` and `yes` are strings.
        let options = serde_saphyr::options! { strict_booleans: true };
        let value = serde_saphyr::from_str_with_options(text, options)
            .map_err(|e| vec![Problem::of_file(format!("not valid YAML: {e}"))])?;
        Self::of_value(value)
    }

    /// Validates a document against the schema.
    ///
    /// # Errors
    /// The problems of the document.
    pub(super) fn of_value(value: Value) -> Result<Self, Vec<Problem>> {
        let one = |problem| vec![problem];
        let validator = VALIDATOR.as_ref().map_err(|e| one(Problem::of_file(e.clone())))?;
        let problems: Vec<Problem> = validator
            .iter_errors(&value)
            .flat_map(|error| problem::of_violation(&error, &SCHEMA))
            // The module `parameters` reports these with clearer messages.
            .filter(|problem| !problem.field.starts_with("spec.parameters."))
            .collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        let hash = hash_of(value.get("spec"));
        serde_path_to_error::deserialize(value)
            .map(|file| Self { file, hash })
            .map_err(|e| one(Problem::at(e.path().to_string(), e.inner().to_string())))
    }
}

fn hash_of(spec: Option<&Value>) -> String {
    let mut spec = spec.cloned().unwrap_or_default();
    spec.sort_all_objects();
    let digest = to_hex(&Sha256::digest(spec.to_string()));
    digest.chars().take(HASH_DIGITS).collect()
}
