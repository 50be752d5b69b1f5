//! Queries on pods, and the pod that a Job creates.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{EnvVar, Pod, PodTemplateSpec},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
    jiff::{SignedDuration, Timestamp},
};
use kube::Resource;

/// The tracking finalizer, which a pod keeps until its result is counted.
pub(super) const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// The label with the uid of the pod's Job.
pub(super) const LABEL_UID: &str = "batch.kubernetes.io/controller-uid";
/// The label with the name of the pod's Job.
pub(super) const LABEL_NAME: &str = "batch.kubernetes.io/job-name";
/// The names of these labels before Kubernetes 1.27, which Kubernetes still sets.
const LEGACY_LABELS: [(&str, &str); 2] = [("controller-uid", LABEL_UID), ("job-name", LABEL_NAME)];
/// The annotation and label with the completion index.
pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
const SUCCEEDED: &str = "Succeeded";
const FAILED: &str = "Failed";

pub(super) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

pub(super) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

pub(super) fn has_succeeded(pod: &Pod) -> bool {
    phase(pod) == SUCCEEDED
}

pub(super) fn has_failed(pod: &Pod) -> bool {
    phase(pod) == FAILED
}

fn has_ended(pod: &Pod) -> bool {
    has_succeeded(pod) || has_failed(pod)
}

pub(super) fn is_deleting(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Pending or running, and not terminating.
pub(super) fn is_active(pod: &Pod) -> bool {
    !has_ended(pod) && !is_deleting(pod)
}

/// Terminating, and not known to have ended.
pub(super) fn is_terminating(pod: &Pod) -> bool {
    !has_ended(pod) && is_deleting(pod)
}

pub(super) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

pub(super) fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

pub(super) fn index(pod: &Pod) -> Option<i32> {
    pod.metadata.annotations.as_ref()?.get(INDEX)?.parse().ok()
}

/// The restart count of the containers of a pod that has not ended.
pub(super) fn restarts(pod: &Pod) -> i32 {
    if has_ended(pod) {
        return 0;
    }
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    statuses.map(|container| container.restart_count).sum()
}

/// The order of deleting excess pods: the pod with the least progress comes first.
pub(super) fn progress(pod: &Pod) -> (bool, bool, std::cmp::Reverse<Option<Timestamp>>) {
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (phase(pod) == "Running", is_ready(pod), std::cmp::Reverse(created))
}

/// When the pod ended: the end of its last container, or else its deletion, or else its creation.
pub(super) fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let ends: Option<Vec<Timestamp>> = containers
        .map(|container| {
            container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref().map(|time| time.0)
        })
        .collect();
    let last = ends.and_then(|ends| ends.into_iter().max());
    let deleted = || {
        let grace = SignedDuration::from_secs(pod.metadata.deletion_grace_period_seconds.unwrap_or(0));
        pod.metadata.deletion_timestamp.as_ref().map(|time| time.0 - grace)
    };
    last.or_else(deleted).or_else(|| pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

/// Whether a Job with this uid controls the pod.
pub(super) fn is_owned_by(pod: &Pod, uid: &str) -> bool {
    owner(pod).is_some_and(|owner| owner.uid == uid)
}

/// The Job that controls the pod.
pub(super) fn owner(pod: &Pod) -> Option<&OwnerReference> {
    let mut owners = pod.metadata.owner_references.iter().flatten();
    owners.find(|owner| owner.controller == Some(true) && owner.kind == "Job")
}

/// Builds a pod of `job`, with a completion index for an indexed Job.
pub(super) fn build(job: &Job, index: Option<i32>) -> Pod {
    let template = job.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let PodTemplateSpec { metadata, spec } = template;
    let job_name = job.metadata.name.clone().unwrap_or_default();
    let mut metadata = metadata.unwrap_or_default();
    let mut spec = spec.unwrap_or_default();
    metadata.name = None;
    metadata.namespace.clone_from(&job.metadata.namespace);
    metadata.generate_name = Some(match index {
        Some(index) => format!("{job_name}-{index}-"),
        None => format!("{job_name}-"),
    });
    metadata.owner_references = job.controller_owner_ref(&()).map(|owner| vec![owner]);
    let finalizers = metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    let labels = metadata.labels.get_or_insert_default();
    add_labels(labels, job, &job_name);
    if let Some(index) = index {
        labels.insert(INDEX.to_owned(), index.to_string());
        metadata.annotations.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
        spec.hostname = Some(format!("{job_name}-{index}"));
        for container in &mut spec.containers {
            let variable =
                EnvVar { name: INDEX_VARIABLE.to_owned(), value: Some(index.to_string()), value_from: None };
            container.env.get_or_insert_default().push(variable);
        }
    }
    Pod { metadata, spec: Some(spec), status: None }
}

fn add_labels(labels: &mut BTreeMap<String, String>, job: &Job, name: &str) {
    labels.insert(LABEL_UID.to_owned(), job.metadata.uid.clone().unwrap_or_default());
    labels.insert(LABEL_NAME.to_owned(), name.to_owned());
    for (legacy, current) in LEGACY_LABELS {
        if let Some(value) = labels.get(current).cloned() {
            labels.insert(legacy.to_owned(), value);
        }
    }
}
