//! A template of Job: its parameters, the rule for its default name, and a `batch/v1` Job manifest.
//!
//! Operators own the manifest; a client gives declared parameters, which are put into string values of the *parsed*
//! manifest wherever it says `${parameter}`. Text is never templated, so no parameter can add a key or change a type.
//! Loaded and checked once, at start: what comes out of [`Template::load`] renders for every valid request.

use std::{collections::BTreeMap, num::NonZeroU32, path::Path, sync::Arc};

use k8s_openapi::api::batch::v1::Job;
use serde_json::Value;

use crate::contract::names::{JobName, TemplateName};

mod file;
mod log_tail;
mod manifest;
mod parameters;
mod pattern;
mod policy;
mod problem;
mod quantity;
mod render;
mod scalar;
mod schema_errors;

pub use file::schema;
pub use log_tail::LogTail;
pub use parameters::{Parameters, RESERVED};
pub use pattern::Pattern;
pub use policy::{ImagePattern, Policy};
pub use problem::{Problem, TemplateError};
pub use schema_errors::type_of;

/// A checked template.
#[derive(Debug, Clone)]
pub struct Template {
    /// The template that it makes.
    pub name: TemplateName,
    /// What a request may carry.
    pub parameters: Parameters,
    /// The name of a Job whose request gives none.
    pub job_name: Pattern,
    /// Seconds that a finished Job stays once its outcome is stored; patched onto the Job only then.
    pub ttl_seconds: Option<i32>,
    /// At most so many unfinished Jobs of this template; further requests wait. Without it there is no limit.
    pub max_active: Option<NonZeroU32>,
    /// How much of a pod's log its attempt tells; `None` for nothing of it.
    pub log_tail: Option<LogTail>,
    manifest: Value,
    policy: Arc<Policy>,
}

impl Template {
    /// Reads and checks one template file.
    ///
    /// # Errors
    /// [`TemplateError`] names the file, the fields and what is wrong with each.
    pub fn load(path: &Path) -> Result<Self, TemplateError> {
        let in_file = |problems| TemplateError { file: path.display().to_string(), problems };
        let text = std::fs::read_to_string(path)
            .map_err(|e| in_file(vec![Problem::of_file(format!("cannot be read: {e}"))]))?;
        Self::parse(&text).map_err(in_file)
    }

    /// Reads and checks the text of a template file.
    ///
    /// # Errors
    /// All that is wrong with it, as far as one thing does not hide another.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        let file::File { metadata, spec, .. } = file::File::read(text)?;
        Self::build(metadata.name, spec)
            .map_err(|problems| problems.into_iter().map(|problem| problem.within("spec")).collect())
    }

    fn build(name: TemplateName, file: file::Spec) -> Result<Self, Vec<Problem>> {
        let parameters = Parameters::read(file.parameters)?;
        let mut problems = Vec::new();
        let mut manifest = file.job;
        let ttl_seconds = manifest::take_ttl(&mut manifest).unwrap_or_else(|problem| {
            problems.push(problem);
            None
        });
        problems.extend(manifest::problems(&manifest, &parameters));
        match job_name(&file.job_name, &parameters) {
            Ok(job_name) if problems.is_empty() => Ok(Self {
                name,
                parameters,
                job_name,
                ttl_seconds,
                max_active: file.limits.max_active,
                log_tail: file.log_tail.bounds(),
                manifest,
                policy: Arc::default(),
            }),
            Ok(_) => Err(problems),
            Err(message) => {
                problems.push(Problem::at("jobName", message));
                Err(problems)
            }
        }
    }

    /// The template under the operator's limits.
    ///
    /// # Errors
    /// What the limits do not allow in any Job of this template: an image or ServiceAccount that no parameter changes.
    pub fn under(self, policy: Arc<Policy>) -> Result<Self, Vec<Problem>> {
        let sample = render::render(&self.manifest, &self.parameters.sample(true));
        let mut problems = policy.problems(&manifest::typed(sample).map_err(|problem| vec![problem])?);
        problems.retain(|problem| manifest::is_fixed(&self.manifest, &problem.field));
        if problems.is_empty() {
            Ok(Self { policy, ..self })
        } else {
            Err(problems.into_iter().map(|problem| problem.within("spec")).collect())
        }
    }

    /// The Job with `values` put in: a string value that refers to parameters gets them, and an entry of a list that
    /// refers to a parameter without a value is left out. It has no name yet.
    ///
    /// # Errors
    /// The field of the Job that the operator's limits, or the refusals that nothing lifts, do not allow.
    pub fn render(&self, values: &BTreeMap<String, String>) -> Result<Job, Problem> {
        let mut job = manifest::typed(render::render(&self.manifest, values))?;
        let refused = policy::refusals(&job).into_iter().chain(self.policy.problems(&job)).next();
        policy::fill_in(&mut job, &self.policy);
        refused.map_or(Ok(job), Err)
    }
}

fn job_name(text: &str, parameters: &Parameters) -> Result<Pattern, String> {
    let pattern = Pattern::parse(text).map_err(|e| e.to_string())?;
    for name in pattern.references() {
        if !parameters.is_declared(name) {
            return Err(format!("refers to `{name}`, which is no declared parameter"));
        }
        if !parameters.is_always_there(name) {
            return Err(format!("refers to `{name}`, which a request may leave out"));
        }
        if parameters.label_sample(name).is_none() {
            return Err(format!("refers to `{name}`, none of whose values can stand in a name"));
        }
    }
    let sample = pattern.fill(|name| parameters.label_sample(name)).unwrap_or_default();
    match JobName::try_from(sample) {
        Ok(_) => Ok(pattern),
        Err(error) => Err(format!("makes no valid name of any request; for one: {error}")),
    }
}

/// The template files of a folder, by name: at least one.
///
/// # Errors
/// A folder that cannot be read, or holds none.
pub fn files_of(folder: &Path) -> Result<Vec<std::path::PathBuf>, TemplateError> {
    let in_folder = |message: String| TemplateError {
        file: folder.display().to_string(),
        problems: vec![Problem::of_file(message)],
    };
    let unreadable = |e: std::io::Error| in_folder(format!("cannot be read: {e}"));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|e| e == "yaml" || e == "yml") && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(in_folder("holds no template: no file ends in .yaml or .yml".to_owned()));
    }
    Ok(files)
}

#[cfg(test)]
pub(crate) mod tests;
