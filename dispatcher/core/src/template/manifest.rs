//! The checks of a manifest: a `batch/v1` Job without unknown fields, whose references mean something, and which is a Job
//! still when the optional parameters are absent.

use k8s_openapi::api::batch::v1::Job;
use serde_json::Value;

use crate::template::{parameters::Parameters, pattern::Pattern, policy, problem::Problem, render};

/// What labels and annotations of the dispatcher's own begin with.
const OWN_MARKS: &str = "natsjobs.dev/";

/// Lists whose entries are too much to go with an absent parameter.
const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// Takes the TTL out of the manifest: it is given to the Job once its outcome is stored.
pub(super) fn take_ttl(manifest: &mut Value) -> Result<Option<i32>, Problem> {
    let field = "job.spec.ttlSecondsAfterFinished";
    let spec = manifest.get_mut("spec").and_then(Value::as_object_mut);
    let Some(ttl) = spec.and_then(|spec| spec.remove("ttlSecondsAfterFinished")) else { return Ok(None) };
    match ttl.as_i64().and_then(|n| i32::try_from(n).ok()).filter(|n| *n >= 0) {
        Some(seconds) => Ok(Some(seconds)),
        None => Err(Problem::at(field, format!("found {ttl}, allowed is a number of seconds from 0 on"))),
    }
}

/// All that is wrong with a manifest.
pub(super) fn problems(manifest: &Value, parameters: &Parameters) -> Vec<Problem> {
    let mut problems = reserved(manifest);
    references(manifest, &Place { path: "job".to_owned(), list: None }, parameters, &mut problems);
    if !problems.is_empty() {
        return problems;
    }
    for all in [true, false] {
        let rendered = render::render(manifest, &parameters.sample(all));
        match typed(rendered.clone()) {
            Ok(job) => {
                problems.extend(unknown(&rendered, &job));
                problems.extend(policy::refusals(&job));
            }
            Err(problem) => problems.push(problem),
        }
    }
    problems.sort_by(|a, b| a.field.cmp(&b.field));
    problems.dedup();
    problems
}

/// The typed Job of a rendered manifest.
pub(super) fn typed(rendered: Value) -> Result<Job, Problem> {
    serde_path_to_error::deserialize(rendered).map_err(|error| {
        let field = match error.path().to_string() {
            path if path == "." => "job".to_owned(),
            path => format!("job.{path}"),
        };
        Problem::at(field, format!("is no field of a batch/v1 Job as it stands: {}", error.inner()))
    })
}

/// What only the dispatcher sets.
fn reserved(manifest: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    for field in ["name", "generateName", "namespace"] {
        if manifest.pointer(&format!("/metadata/{field}")).is_some() {
            let field = format!("job.metadata.{field}");
            problems.push(Problem::at(field, "is set by the dispatcher; leave it out"));
        }
    }
    for metadata in ["metadata", "spec.template.metadata"] {
        for field in ["labels", "annotations"] {
            let place = format!("{metadata}.{field}");
            let marks = manifest.pointer(&format!("/{}", place.replace('.', "/"))).and_then(Value::as_object);
            let keys = marks.into_iter().flat_map(|marks| marks.keys());
            for mark in keys.filter(|key| key.starts_with(OWN_MARKS)) {
                let message = format!("`{mark}` is set by the dispatcher");
                problems.push(Problem::at(format!("job.{place}"), message));
            }
        }
    }
    problems
}

/// A value's path, and the key of the list in whose entry it stands.
struct Place {
    path: String,
    list: Option<String>,
}

fn references(value: &Value, place: &Place, parameters: &Parameters, problems: &mut Vec<Problem>) {
    match value {
        Value::String(text) => {
            let messages = match Pattern::parse(text) {
                Err(error) => vec![error.to_string()],
                Ok(pattern) => {
                    pattern.references().filter_map(|name| wrong_reference(name, place, parameters)).collect()
                }
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

fn wrong_reference(name: &str, place: &Place, parameters: &Parameters) -> Option<String> {
    if !parameters.is_declared(name) {
        return Some(format!("refers to `{name}`, which is no declared parameter"));
    }
    let lost = match place.list.as_deref() {
        _ if parameters.is_always_there(name) => return None,
        Some(list) if !CONTAINERS.contains(&list) => return None,
        Some(_) => "the container",
        None => "the whole Job",
    };
    Some(format!(
        "refers to `{name}`, which a request may leave out, and {lost} would go with it: give it a `default`, or make it required"
    ))
}

/// The fields that the typed Job did not take over: misspelt ones.
fn unknown(rendered: &Value, job: &Job) -> Vec<Problem> {
    let mut fields = Vec::new();
    match serde_json::to_value(job) {
        Ok(typed) => unknown_fields(rendered, &typed, "job", &mut fields),
        Err(error) => return vec![Problem::at("job", error.to_string())],
    }
    fields.into_iter().map(|field| Problem::at(field, "is no field of a batch/v1 Job")).collect()
}

fn unknown_fields(given: &Value, typed: &Value, path: &str, unknown: &mut Vec<String>) {
    match (given, typed) {
        (Value::Object(given), Value::Object(typed)) => {
            for (key, value) in given {
                let path = format!("{path}.{key}");
                match typed.get(key) {
                    Some(typed) => unknown_fields(value, typed, &path, unknown),
                    None if value.is_null() => {}
                    None => unknown.push(path),
                }
            }
        }
        (Value::Array(given), Value::Array(typed)) => {
            for (i, (given, typed)) in given.iter().zip(typed).enumerate() {
                unknown_fields(given, typed, &format!("{path}[{i}]"), unknown);
            }
        }
        _ => {}
    }
}

/// Whether the field's text refers to no parameter, so that every Job of the template has the same.
pub(super) fn is_fixed(manifest: &Value, field: &str) -> bool {
    let pointer = field.trim_start_matches("job").replace(['.', '['], "/").replace(']', "");
    let text = manifest.pointer(&pointer).and_then(Value::as_str);
    text.is_none_or(|text| Pattern::parse(text).is_ok_and(|pattern| pattern.references().next().is_none()))
}
