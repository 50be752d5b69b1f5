//! Validates a manifest: a `batch/v1` Job whose references name declared parameters, and which stays
//! a valid Job without the optional parameters. A field that this version does not know is a warning:
//! the cluster may know it.

use k8s_openapi::api::batch::v1::Job;
use serde_json::{Map, Value};

use crate::{
    contract::PREFIX,
    template::{
        enumerations, fields::Fields, parameters::Parameters, pattern::Pattern, policy, problem::Problem,
        render::Renderer,
    },
};

/// Lists whose entries an absent parameter must not remove.
const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// Removes the TTL from the manifest: the Job gets it when it is retired.
pub(super) fn take_ttl(manifest: &mut Value) -> Result<Option<i32>, Problem> {
    let field = "job.spec.ttlSecondsAfterFinished";
    let spec = manifest.get_mut("spec").and_then(Value::as_object_mut);
    let Some(ttl) = spec.and_then(|spec| spec.remove("ttlSecondsAfterFinished")) else { return Ok(None) };
    match ttl.as_i64().and_then(|n| i32::try_from(n).ok()).filter(|n| *n >= 0) {
        Some(seconds) => Ok(Some(seconds)),
        None => Err(Problem::at(field, format!("expected a non-negative number of seconds, found {ttl}"))),
    }
}

/// What a check of a manifest finds.
#[derive(Default)]
pub(super) struct Findings {
    /// The template is not valid.
    pub(super) problems: Vec<Problem>,
    /// Unknown fields.
    pub(super) warnings: Vec<Problem>,
}

/// Checks a manifest.
pub(super) fn check(manifest: &Value, parameters: &Parameters) -> Findings {
    let mut problems = reserved(manifest);
    references(manifest, &Place { path: "job".to_owned(), list: None }, parameters, &mut problems);
    if !problems.is_empty() {
        return Findings { problems, ..Findings::default() };
    }
    let mut warnings = Vec::new();
    problems.extend(enumerations::problems(manifest));
    let renderer = Renderer::new(manifest);
    for with_optional in [true, false] {
        let rendered = renderer.render(&parameters.sample(with_optional));
        problems.extend(policy::refusals(&Fields::of(&rendered)));
        match typed(rendered.clone()) {
            Ok(job) => warnings.extend(unknown_fields(&rendered, &job)),
            Err(problem) => problems.push(problem),
        }
    }
    for found in [&mut problems, &mut warnings] {
        found.sort_by(|a, b| a.field.cmp(&b.field));
        found.dedup();
    }
    Findings { problems, warnings }
}

/// The typed Job of a rendered manifest, without the fields that this version does not know.
fn typed(rendered: Value) -> Result<Job, Problem> {
    serde_path_to_error::deserialize(rendered).map_err(|error| {
        let field = match error.path().to_string() {
            path if path == "." => "job".to_owned(),
            path => format!("job.{path}"),
        };
        Problem::at(field, format!("not valid in a batch/v1 Job: {}", error.inner()))
    })
}

/// Fields, labels and annotations that only the dispatcher sets.
fn reserved(manifest: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    for field in ["name", "generateName", "namespace"] {
        if manifest.pointer(&format!("/metadata/{field}")).is_some() {
            let field = format!("job.metadata.{field}");
            problems.push(Problem::at(field, "set by the dispatcher; remove it"));
        }
    }
    for metadata in ["metadata", "spec.template.metadata"] {
        for field in ["labels", "annotations"] {
            let path = format!("{metadata}.{field}");
            let pointer = format!("/{}", path.replace('.', "/"));
            let keys = manifest.pointer(&pointer).and_then(Value::as_object).into_iter().flat_map(Map::keys);
            for key in keys.filter(|key| key.starts_with(PREFIX)) {
                let message = format!("`{key}` has the reserved prefix {PREFIX}; remove it");
                problems.push(Problem::at(format!("job.{path}"), message));
            }
        }
    }
    problems
}

/// The path of a value, and the key of the innermost list that contains it.
struct Place {
    path: String,
    list: Option<String>,
}

fn references(value: &Value, place: &Place, parameters: &Parameters, problems: &mut Vec<Problem>) {
    match value {
        Value::String(text) => {
            let messages = match Pattern::parse(text) {
                Err(error) => vec![error.to_string()],
                Ok(pattern) => pattern
                    .references()
                    .filter_map(|name| reference_problem(name, place, parameters))
                    .collect(),
            };
            problems.extend(messages.into_iter().map(|message| Problem::at(&place.path, message)));
        }
        Value::Array(items) => {
            let list = place.path.rsplit('.').next().map(str::to_owned);
            for (i, item) in items.iter().enumerate() {
                let place = Place { path: format!("{}[{i}]", place.path), list: list.clone() };
                references(item, &place, parameters, problems);
            }
        }
        Value::Object(fields) => {
            for (key, field) in fields {
                let place = Place { path: format!("{}.{key}", place.path), list: place.list.clone() };
                references(field, &place, parameters, problems);
            }
        }
        _ => {}
    }
}

fn reference_problem(name: &str, place: &Place, parameters: &Parameters) -> Option<String> {
    if !parameters.is_declared(name) {
        return Some(format!("references undeclared parameter `{name}`"));
    }
    let omitted = match place.list.as_deref() {
        _ if parameters.always_has_value(name) => return None,
        Some(list) if !CONTAINERS.contains(&list) => return None,
        Some(_) => "the container",
        None => "the whole Job",
    };
    Some(format!(
        "references optional parameter `{name}`: {omitted} would be omitted without it; set a `default` or make it required"
    ))
}

/// The fields that are missing from the typed Job: misspelled ones, and new ones.
fn unknown_fields(rendered: &Value, job: &Job) -> Vec<Problem> {
    let mut fields = Vec::new();
    match serde_json::to_value(job) {
        Ok(typed) => collect_unknown(rendered, &typed, "job", &mut fields),
        Err(error) => return vec![Problem::at("job", error.to_string())],
    }
    fields
        .into_iter()
        .map(|field| Problem::at(field, "unknown field of a batch/v1 Job, passed through"))
        .collect()
}

fn collect_unknown(given: &Value, typed: &Value, path: &str, unknown: &mut Vec<String>) {
    match (given, typed) {
        (Value::Object(given), Value::Object(typed)) => {
            for (key, value) in given {
                let path = format!("{path}.{key}");
                match typed.get(key) {
                    Some(typed) => collect_unknown(value, typed, &path, unknown),
                    None if value.is_null() => {}
                    None => unknown.push(path),
                }
            }
        }
        (Value::Array(given), Value::Array(typed)) => {
            for (i, (given, typed)) in given.iter().zip(typed).enumerate() {
                collect_unknown(given, typed, &format!("{path}[{i}]"), unknown);
            }
        }
        _ => {}
    }
}

/// Whether the field references no parameter, so that all Jobs of the template have the same value.
pub(super) fn is_fixed(manifest: &Value, field: &str) -> bool {
    let pointer = field.trim_start_matches("job").replace(['.', '['], "/").replace(']', "");
    let text = manifest.pointer(&pointer).and_then(Value::as_str);
    text.is_none_or(|text| Pattern::parse(text).is_ok_and(|pattern| pattern.references().next().is_none()))
}
