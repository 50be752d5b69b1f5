//! Jobs: defaults, the generated selector and validation.

use serde_json::{Value, json};

use super::{
    metadata::{self, validate_immutable},
    pod,
};
use crate::{
    error::Cause,
    object::{default, has, name, number, set, text, uid},
};

/// Sets the defaults of a Job.
pub(crate) fn set_defaults(job: &mut Value) {
    if !has(job, "/spec/completions") && !has(job, "/spec/parallelism") {
        set(job, &["spec"], "completions", 1);
    }
    let backoff_limit = if has(job, "/spec/backoffLimitPerIndex") { i32::MAX } else { 6 };
    let replacement = if has(job, "/spec/podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    for (key, value) in [
        ("parallelism", json!(1)),
        ("backoffLimit", json!(backoff_limit)),
        ("completionMode", json!("NonIndexed")),
        ("suspend", json!(false)),
        ("manualSelector", json!(false)),
        ("podReplacementPolicy", json!(replacement)),
    ] {
        default(job, &["spec"], key, value);
    }
    default(job, &["spec", "template"], "metadata", json!({}));
    let spec = job.pointer_mut("/spec/template/spec");
    spec.into_iter().for_each(pod::set_spec_defaults);
}

/// Sets the selector and the pod labels of a new Job, unless `manualSelector` is true.
///
/// A Job without labels receives the labels of its pod template.
pub(crate) fn prepare(job: &mut Value) {
    if job.pointer("/spec/manualSelector") != Some(&json!(true)) {
        generate_selector(job);
    }
    if let Some(labels) = job.pointer("/spec/template/metadata/labels").cloned() {
        default(job, &["metadata"], "labels", labels);
    }
}

/// Omits the zero counters of the status, as Kubernetes does.
pub(crate) fn strip_zero_counters(mut job: Value) -> Value {
    if let Some(status) = job.get_mut("status").and_then(Value::as_object_mut) {
        let is_zero = |value: &Value| value.as_i64() == Some(0);
        status.retain(|key, value| {
            !(["active", "succeeded", "failed"].contains(&key.as_str()) && is_zero(value))
        });
    }
    job
}

fn generate_selector(job: &mut Value) {
    let (uid, name) = (uid(job).to_owned(), name(job).to_owned());
    for (key, value) in [
        ("controller-uid", &uid),
        ("batch.kubernetes.io/controller-uid", &uid),
        ("job-name", &name),
        ("batch.kubernetes.io/job-name", &name),
    ] {
        set(job, &["spec", "template", "metadata", "labels"], key, value.as_str());
    }
    default(job, &["spec"], "selector", json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}));
}

/// Validates a Job with its defaults.
pub(crate) fn validate(job: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for field in
        ["parallelism", "completions", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"]
    {
        let value =
            job.pointer(&format!("/spec/{field}")).filter(|value| value.as_i64().is_some_and(|n| n < 0));
        let why = "must be greater than or equal to 0";
        causes.extend(value.map(|value| Cause::invalid(format!("spec.{field}"), value, why)));
    }
    causes.extend(unsupported(job, "completionMode", &["NonIndexed", "Indexed"]));
    causes.extend(unsupported(job, "podReplacementPolicy", &["Failed", "TerminatingOrFailed"]));
    if text(job, "/spec/completionMode") == "Indexed" && !has(job, "/spec/completions") {
        causes.push(Cause::required("spec.completions", "when completion mode is Indexed"));
    }
    let labels = job.pointer("/spec/template/metadata/labels");
    causes.extend(metadata::validate_labels(labels, "spec.template.labels"));
    causes.extend(pod::validate_spec(job.pointer("/spec/template/spec"), "spec.template.spec"));
    causes.extend(restart_policy(job));
    causes
}

fn restart_policy(job: &Value) -> Option<Cause> {
    let field = "spec.template.spec.restartPolicy";
    match text(job, "/spec/template/spec/restartPolicy") {
        "OnFailure" | "Never" => None,
        "" | "Always" => Some(Cause::required(field, "valid values: \"OnFailure\", \"Never\"")),
        other => Some(Cause::unsupported(field, &other.into(), &["OnFailure", "Never"])),
    }
}

fn unsupported(job: &Value, field: &str, known: &[&str]) -> Option<Cause> {
    let value = job.pointer(&format!("/spec/{field}"))?;
    let is_known = value.as_str().is_some_and(|found| known.contains(&found));
    (!is_known).then(|| Cause::unsupported(format!("spec.{field}"), value, known))
}

/// Validates an update of a Job.
pub(crate) fn validate_update(old: &Value, new: &Value) -> Vec<Cause> {
    let mut causes = validate(new);
    let immutable = [
        "selector",
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ];
    causes.extend(validate_immutable(old, new, "spec", &immutable));
    // A suspended Job that never started may change its scheduling. An Indexed Job may change its
    // completions together with its parallelism.
    let is_unstarted = old.pointer("/spec/suspend") == Some(&json!(true)) && !has(old, "/status/startTime");
    let may_change_scheduling = is_unstarted && equal_except_scheduling(old, new);
    if !may_change_scheduling {
        causes.extend(validate_immutable(old, new, "spec", &["template"]));
    }
    let is_elastic = text(new, "/spec/completionMode") == "Indexed"
        && number(new, "/spec/completions") == number(new, "/spec/parallelism");
    if !is_elastic {
        causes.extend(validate_immutable(old, new, "spec", &["completions"]));
    }
    causes
}

fn equal_except_scheduling(old: &Value, new: &Value) -> bool {
    let stripped = |job: &Value| {
        let mut template = job.pointer("/spec/template").cloned().unwrap_or_default();
        for (map, key) in [
            ("/spec", "nodeSelector"),
            ("/spec", "tolerations"),
            ("/spec", "affinity"),
            ("/spec", "schedulingGates"),
            ("/metadata", "labels"),
            ("/metadata", "annotations"),
        ] {
            if let Some(map) = template.pointer_mut(map).and_then(Value::as_object_mut) {
                map.remove(key);
            }
        }
        template
    };
    stripped(old) == stripped(new)
}

#[cfg(test)]
mod tests;
