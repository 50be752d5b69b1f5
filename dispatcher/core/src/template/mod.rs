//! A template: parameters, the naming rule, limits, and a `batch/v1` Job manifest.
//!
//! Operators own the manifest. Clients give the declared parameters, which are substituted in the
//! string values of the *parsed* manifest, so that no parameter can add a key or change a type.
//! A template is validated once, at start: it then renders for every valid request.

use std::{cmp::Ordering, collections::BTreeMap, num::NonZeroU32, sync::Arc};

use serde_json::{Value, json};

use self::{
    fields::Fields,
    naming::{Other, Prefixes},
    render::Renderer,
};
use crate::contract::names::{JobName, TemplateName};

mod bounds;
mod candidates;
pub mod catalog;
mod enumerations;
mod fields;
mod file;
mod manifest;
mod naming;
pub(crate) mod object;
pub mod object_status;
mod parameter;
mod parameters;
mod pattern;
mod policy;
mod problem;
mod quantity;
mod references;
mod render;
mod scalar;

pub use file::{API_VERSION, DeletionPolicy, FINALIZER, KIND, LogTail, schema};
pub use parameters::{Parameters, RESERVED};
pub use pattern::Pattern;
pub use policy::{ImagePattern, Policy};
pub use problem::{Problem, TemplateError, type_of};
pub use references::References;

/// A valid template.
#[derive(Debug, Clone)]
pub struct Template {
    /// The name.
    pub name: TemplateName,
    /// The parameters of a request.
    pub parameters: Parameters,
    /// The naming rule: the name of a Job whose request gives none.
    pub job_name: Pattern,
    /// The TTL of a retired Job, in seconds. It is patched onto the Job when it is retired.
    pub ttl_seconds: Option<i32>,
    /// The concurrency limit: the largest number of unfinished Jobs. Further requests wait.
    pub max_active: Option<NonZeroU32>,
    /// How much of a pod's log its attempt carries; `None` for nothing.
    pub log_tail: Option<LogTail>,
    /// What happens to the queued requests when the template is deleted.
    pub deletion_policy: DeletionPolicy,
    /// The start of the SHA-256 of the document, in hex. It identifies the version of the template.
    pub hash: String,
    /// Fields of the manifest that this version does not know. They are passed through, since the
    /// cluster may know them.
    pub warnings: Vec<Problem>,
    prefixes: Prefixes,
    manifest: Value,
    renderer: Renderer,
    policy: Arc<Policy>,
}

impl Template {
    /// Parses and validates the text of a template file.
    ///
    /// # Errors
    /// All problems of the text, except those that others hide.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        Self::of_document(file::Document::parse(text)?)
    }

    /// Validates a `JobTemplate` object of the API server. Of its metadata, only the name counts.
    ///
    /// # Errors
    /// All problems of the object, except those that others hide.
    pub fn of_object(name: &str, spec: &Value) -> Result<Self, Vec<Problem>> {
        let document =
            json!({"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec});
        Self::of_document(file::Document::of_value(document)?)
    }

    fn of_document(document: file::Document) -> Result<Self, Vec<Problem>> {
        let file::Document { file: file::File { metadata, spec, .. }, hash } = document;
        Self::build(metadata.name, spec)
            .map(|template| Self { hash, ..template })
            .map_err(|problems| problems.into_iter().map(|problem| problem.within("spec")).collect())
    }

    fn build(name: TemplateName, spec: file::Spec) -> Result<Self, Vec<Problem>> {
        let parameters = Parameters::parse(spec.parameters)?;
        let mut problems = Vec::new();
        let mut manifest = spec.job;
        let ttl_seconds = manifest::take_ttl(&mut manifest).unwrap_or_else(|problem| {
            problems.push(problem);
            None
        });
        let found = manifest::check(&manifest, &parameters);
        problems.extend(found.problems);
        let prefixes = Prefixes::new(spec.name_prefix);
        let job_name = job_name(&spec.job_name, &parameters)
            .and_then(|job_name| prefixes.check_default(&job_name).map(|()| job_name));
        match job_name {
            Ok(job_name) if problems.is_empty() => Ok(Self {
                name,
                parameters,
                job_name,
                ttl_seconds,
                max_active: spec.limits.max_active,
                log_tail: spec.log_tail.bounds(),
                deletion_policy: spec.deletion_policy,
                hash: String::new(),
                warnings: found.warnings.into_iter().map(|warning| warning.within("spec")).collect(),
                prefixes,
                renderer: Renderer::new(&manifest),
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

    /// The template with the operator's limits.
    ///
    /// # Errors
    /// The values that the limits do not allow and no parameter changes.
    pub fn with_policy(self, policy: Arc<Policy>) -> Result<Self, Vec<Problem>> {
        let sample = self.renderer.render(&self.parameters.sample(true));
        let mut problems = policy.problems(&sample, &Fields::of(&sample));
        problems.retain(|problem| manifest::is_fixed(&self.manifest, &problem.field));
        if problems.is_empty() {
            Ok(Self { policy, ..self })
        } else {
            Err(problems.into_iter().map(|problem| problem.within("spec")).collect())
        }
    }

    /// Renders the manifest: substitutes `values`, and omits each list entry that references a
    /// parameter without a value. The Job has no name yet. It is JSON, because a type would drop the
    /// fields that it does not know.
    ///
    /// # Errors
    /// The first field that no template may set, or that the operator's limits do not allow.
    pub fn render(&self, values: &BTreeMap<String, String>) -> Result<Value, Problem> {
        let mut job = self.renderer.render(values);
        let fields = Fields::of(&job);
        let refused = policy::refusals(&fields).into_iter().chain(self.policy.problems(&job, &fields)).next();
        policy::set_defaults(&mut job, &self.policy);
        refused.map_or(Ok(job), Err)
    }

    /// The JSON Schema of a whole request: the parameters, `name` and `generateName`.
    #[must_use]
    pub fn request_schema(&self) -> Value {
        self.parameters.request_schema(self.prefixes.own())
    }

    /// The part of the template that decides the default name of a request: `spec.jobName`, and the
    /// default of each parameter that it refers to. With the same rule, every version gives a request the same name.
    #[must_use]
    pub fn naming_rule(&self) -> String {
        let conversions = self.job_name.references().map(|name| (name, self.parameters.conversion(name)));
        json!({"jobName": format!("{:?}", self.job_name), "parameters": conversions.collect::<BTreeMap<_, _>>()})
            .to_string()
    }

    /// Whether both behave in the same way: the same document, limits of the operator, and reserved
    /// prefixes.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (&self.name, &self.hash, &self.prefixes, &self.policy)
            == (&other.name, &other.hash, &other.prefixes, &other.policy)
    }

    /// Why no Job of this template can have the name; `None` if it can.
    #[must_use]
    pub fn name_problem(&self, name: &JobName) -> Option<String> {
        self.prefixes.problem(name.as_ref())
    }

    /// A valid name that no parameter decides, to show how a name looks.
    pub(crate) fn sample_name(&self) -> String {
        format!("{}x", self.prefixes.own())
    }

    /// Why both templates could give a Job the same name, although one of them has a prefix.
    #[must_use]
    pub fn name_conflict(&self, other: &Self) -> Option<Problem> {
        let Self { name, prefixes, job_name, .. } = other;
        self.prefixes.conflict(&self.job_name, Other { name, prefixes, job_name })
    }

    /// The template, whose Jobs cannot have the prefixes of `all` other templates.
    #[must_use]
    pub fn with_reserved_prefixes(mut self, all: &[(TemplateName, String)]) -> Self {
        self.prefixes.reserve(&self.name, all);
        self
    }

    /// The names of objects that the pods need.
    #[must_use]
    pub fn references(&self) -> References {
        References::of(&self.manifest)
    }

    /// The prefix of the names of the template's Jobs; empty if it has none.
    #[must_use]
    pub fn name_prefix(&self) -> &str {
        self.prefixes.own()
    }
}

/// Compares two Kubernetes quantities by value; `None` if one of them is no quantity.
#[must_use]
pub fn compare_quantities(a: &str, b: &str) -> Option<Ordering> {
    quantity::Quantity::parse(a).zip(quantity::Quantity::parse(b)).map(|(a, b)| a.cmp(&b))
}

fn job_name(text: &str, parameters: &Parameters) -> Result<Pattern, String> {
    let pattern = Pattern::parse(text).map_err(|e| e.to_string())?;
    for name in pattern.references() {
        if !parameters.is_declared(name) {
            return Err(format!("references undeclared parameter `{name}`"));
        }
        if !parameters.always_has_value(name) {
            return Err(format!(
                "references optional parameter `{name}`; set a `default` or make it required"
            ));
        }
        if parameters.label_sample(name).is_none() {
            return Err(format!(
                "references parameter `{name}`, which has no value that a Job name can contain"
            ));
        }
    }
    let sample = pattern.fill(|name| parameters.label_sample(name)).unwrap_or_default();
    match JobName::try_from(sample) {
        Ok(_) => Ok(pattern),
        Err(error) => Err(format!("gives no request a valid Job name, for example {error}")),
    }
}

#[cfg(test)]
pub(crate) mod tests;
