//! A kind of Job: its parameters, the rule for its default name, and a `batch/v1` Job manifest.
//!
//! Operators own the manifest; a client gives declared parameters, which are put into string values of the *parsed*
//! manifest wherever it says `${parameter}`. Text is never templated, so no parameter can add a key or change a type.
//! Loaded and checked once, at start: what comes out of [`Template::load`] renders for every valid request.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    path::Path,
};

use k8s_openapi::api::batch::v1::Job;
use serde::Deserialize;
use serde_json::Value;

use super::names::{Kind, NameError, is_label};

mod log_tail;
mod pattern;
mod render;

pub use log_tail::LogTail;
pub use pattern::Pattern;

/// Keys of a request that no parameter may have.
pub const RESERVED: [&str; 2] = ["name", "generateName"];

/// What labels and annotations of the dispatcher's own begin with.
const OWN_MARKS: &str = "dispatcher/";

/// The longest parameter value where the template sets no `maxLength`, in characters.
const DEFAULT_MAX_LENGTH: usize = 4096;

/// A template file that is none.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct TemplateError {
    file: String,
    problem: Problem,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    #[error("is no template: {0}")]
    Yaml(String),
    #[error("{field}: {message}")]
    Field { field: String, message: String },
}

impl Problem {
    fn at(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Field { field: field.into(), message: message.into() }
    }
}

/// A checked template.
#[derive(Debug, Clone)]
pub struct Template {
    /// The kind that it makes.
    pub kind: Kind,
    /// What a request may carry.
    pub parameters: BTreeMap<String, Parameter>,
    /// The name of a Job whose request gives none.
    pub default_name: Pattern,
    /// Seconds that a finished Job stays once its outcome is stored; patched onto the Job only then.
    pub ttl_seconds: Option<i32>,
    /// At most so many unfinished Jobs of this kind; further requests wait. Without it there is no limit.
    pub max_active: Option<NonZeroU32>,
    /// How much of a pod's log its attempt tells; `None` for nothing of it.
    pub log_tail: Option<LogTail>,
    manifest: Value,
}

/// What a request may give under one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// What is allowed.
    pub accepts: Accepts,
    /// Whether a request without it is rejected.
    pub required: bool,
}

/// What values a parameter accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepts {
    /// A string of at most so many characters.
    Text {
        /// The limit, in characters.
        max_length: usize,
    },
    /// Anything; given as `true` where JavaScript would take it for true, else not given at all.
    Truthy,
}

/// The file, in the shape of JSON Schema where it describes parameters.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct File {
    kind: Kind,
    default_name: String,
    parameters: Schema,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    log_tail: log_tail::Setting,
    job: Value,
}

/// How much of a kind there may be at once.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Limits {
    max_active: Option<NonZeroU32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Schema {
    #[serde(rename = "type")]
    type_: ObjectType,
    properties: BTreeMap<String, Property>,
    #[serde(default)]
    required: BTreeSet<String>,
}

#[derive(Deserialize)]
enum ObjectType {
    #[serde(rename = "object")]
    Object,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Property {
    #[serde(rename = "type")]
    type_: Option<StringType>,
    max_length: Option<usize>,
    #[serde(default, rename = "x-truthy")]
    truthy: bool,
    #[serde(default, rename = "description")]
    _description: Option<String>,
}

#[derive(Deserialize)]
enum StringType {
    #[serde(rename = "string")]
    String,
}

impl Template {
    /// Reads and checks one template file.
    ///
    /// # Errors
    /// [`TemplateError`] names the file, the field and what is wrong with it.
    pub fn load(path: &Path) -> Result<Self, TemplateError> {
        let in_file = |problem| TemplateError { file: path.display().to_string(), problem };
        let text = std::fs::read_to_string(path).map_err(|e| in_file(e.into()))?;
        Self::parse(&text).map_err(in_file)
    }

    fn parse(text: &str) -> Result<Self, Problem> {
        let file: File = serde_saphyr::from_str(text).map_err(|e| Problem::Yaml(e.to_string()))?;
        let ObjectType::Object = file.parameters.type_;
        let mut parameters = BTreeMap::new();
        for (name, property) in file.parameters.properties {
            let required = file.parameters.required.contains(&name);
            let accepts = accepts(&name, &property, required)?;
            parameters.insert(name, Parameter { accepts, required });
        }
        if let Some(unknown) = file.parameters.required.iter().find(|r| !parameters.contains_key(*r)) {
            return Err(Problem::at("parameters.required", format!("`{unknown}` is no declared property")));
        }
        let default_name = default_name(&file.default_name, &parameters)?;
        let mut manifest = file.job;
        let ttl_seconds = take_ttl(&mut manifest)?;
        let template = Self {
            kind: file.kind,
            parameters,
            default_name,
            ttl_seconds,
            max_active: file.limits.max_active,
            log_tail: file.log_tail.checked()?,
            manifest,
        };
        template.check_manifest()?;
        Ok(template)
    }

    /// The Job's manifest with `values` put in: a string value that refers to parameters gets them, and an entry of a
    /// list whose `value` refers to a parameter without a value is left out.
    ///
    /// # Errors
    /// Where the result is no `batch/v1` Job; a template that was loaded makes one of any strings.
    pub fn render(&self, values: &BTreeMap<String, String>) -> Result<Job, serde_json::Error> {
        serde_json::from_value(render::render(&self.manifest, values))
    }

    fn check_manifest(&self) -> Result<(), Problem> {
        for (field, value) in [("apiVersion", "batch/v1"), ("kind", "Job")] {
            if self.manifest.get(field).and_then(Value::as_str) != Some(value) {
                return Err(Problem::at(format!("job.{field}"), format!("must be `{value}`")));
            }
        }
        for field in ["name", "generateName", "namespace"] {
            if self.manifest.pointer(&format!("/metadata/{field}")).is_some() {
                return Err(Problem::at(
                    format!("job.metadata.{field}"),
                    "is set by the dispatcher; leave it out",
                ));
            }
        }
        for field in ["labels", "annotations"] {
            let marks = self.manifest.pointer(&format!("/metadata/{field}")).and_then(Value::as_object);
            if let Some(mark) =
                marks.into_iter().flat_map(|m| m.keys()).find(|key| key.starts_with(OWN_MARKS))
            {
                return Err(Problem::at(
                    format!("job.metadata.{field}"),
                    format!("`{mark}` is set by the dispatcher"),
                ));
            }
        }
        render::check_references(&self.manifest, &|name| self.parameters.contains_key(name))?;
        let sample = self.parameters.keys().map(|name| (name.clone(), "a".to_owned())).collect();
        let rendered = render::render(&self.manifest, &sample);
        let job = self.render(&sample).map_err(|e| Problem::at("job", format!("is no batch/v1 Job: {e}")))?;
        let typed = serde_json::to_value(&job).map_err(|e| Problem::at("job", e.to_string()))?;
        match render::unknown_field(&rendered, &typed, "job") {
            Some(field) => Err(Problem::at(field, "is no field of a batch/v1 Job")),
            None => Ok(()),
        }
    }
}

fn accepts(name: &str, property: &Property, required: bool) -> Result<Accepts, Problem> {
    let field = format!("parameters.properties.{name}");
    if RESERVED.contains(&name) {
        return Err(Problem::at(field, "is a reserved key of every request"));
    }
    if !pattern::is_parameter_name(name) {
        return Err(Problem::at(field, "a parameter's name is made of letters, digits and '_'"));
    }
    match (property.truthy, &property.type_) {
        (true, None) if required => Err(Problem::at(field, "an `x-truthy` parameter cannot be required")),
        (true, None) => Ok(Accepts::Truthy),
        (false, Some(StringType::String)) => {
            Ok(Accepts::Text { max_length: property.max_length.unwrap_or(DEFAULT_MAX_LENGTH) })
        }
        _ => Err(Problem::at(field, "must have either `type: string` or `x-truthy: true`")),
    }
}

fn default_name(text: &str, parameters: &BTreeMap<String, Parameter>) -> Result<Pattern, Problem> {
    let at = |message: String| Problem::at("defaultName", message);
    let pattern = Pattern::parse(text).map_err(|e| at(e.to_string()))?;
    for name in pattern.references() {
        match parameters.get(name) {
            Some(p) if p.required => {}
            Some(_) => return Err(at(format!("refers to `{name}`, which a request may leave out"))),
            None => return Err(at(format!("refers to `{name}`, which is no declared parameter"))),
        }
    }
    let sample = pattern.fill(|_| Some("a")).unwrap_or_default();
    if is_label(&sample) {
        Ok(pattern)
    } else {
        Err(at(NameError::NotALabel(super::names::Quoted::new(&sample)).to_string()))
    }
}

fn take_ttl(manifest: &mut Value) -> Result<Option<i32>, Problem> {
    let field = "job.spec.ttlSecondsAfterFinished";
    match manifest.get_mut("spec").and_then(Value::as_object_mut) {
        None => Err(Problem::at("job.spec", "is missing")),
        Some(spec) => match spec.remove("ttlSecondsAfterFinished") {
            None => Ok(None),
            Some(ttl) => match ttl.as_i64().and_then(|n| i32::try_from(n).ok()).filter(|n| *n >= 0) {
                Some(seconds) => Ok(Some(seconds)),
                None => {
                    Err(Problem::at(field, format!("found {ttl}, allowed is a number of seconds from 0 on")))
                }
            },
        },
    }
}

/// Reads every `*.yaml` and `*.yml` file of a folder, by name.
///
/// # Errors
/// The first file that is no template, two files of one kind, or a folder without any.
pub fn load_folder(folder: &Path) -> Result<Vec<Template>, TemplateError> {
    let in_folder = |problem| TemplateError { file: folder.display().to_string(), problem };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| in_folder(e.into()))? {
        let path = entry.map_err(|e| in_folder(e.into()))?.path();
        if path.extension().is_some_and(|e| e == "yaml" || e == "yml") && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    let mut templates: Vec<Template> = Vec::new();
    for path in files {
        let template = Template::load(&path)?;
        if templates.iter().any(|t| t.kind == template.kind) {
            let problem = Problem::at("kind", format!("`{}` has a template already", template.kind));
            return Err(TemplateError { file: path.display().to_string(), problem });
        }
        templates.push(template);
    }
    if templates.is_empty() {
        return Err(in_folder(Problem::at("(folder)", "holds no template: no file ends in .yaml or .yml")));
    }
    Ok(templates)
}

#[cfg(test)]
pub(crate) mod tests;
