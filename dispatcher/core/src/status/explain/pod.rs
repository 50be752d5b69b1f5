//! Reads an observation from a pod: whether it waits, runs or ended, and why.
//!
//! An attempt contains the reason, exit code, signal and memory limit as Kubernetes reports them.
//! No field is sufficient alone: `OOMKilled` can be absent or wrong, and 137 can have other causes
//! than memory.

use std::{cmp::Reverse, collections::BTreeMap};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::OwnerReference, jiff::Timestamp};
use kube_core::{Object, ObjectMeta};
use serde::Deserialize;

use crate::{
    contract::{
        event::{Attempt, Stall},
        job::LABEL_TEMPLATE,
        names::{JobName, TemplateName},
        text,
    },
    status::pod_tracker::{PodObservation, PodState},
};

/// A `v1` Pod with only the fields that are in use.
pub type PodObject = Object<Spec, Status>;

/// The used fields of a `PodSpec`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    node_name: Option<String>,
    containers: Vec<Container>,
    init_containers: Vec<Container>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    name: String,
    resources: Resources,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Resources {
    limits: BTreeMap<String, String>,
}

/// The used fields of a `PodStatus`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    phase: Option<String>,
    reason: Option<String>,
    message: Option<String>,
    conditions: Vec<Condition>,
    container_statuses: Vec<ContainerStatus>,
    init_container_statuses: Vec<ContainerStatus>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
    reason: Option<String>,
    message: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerStatus {
    name: String,
    state: State,
    last_state: State,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct State {
    waiting: Option<Waiting>,
    running: Option<serde::de::IgnoredAny>,
    terminated: Option<Terminated>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Waiting {
    reason: Option<String>,
    message: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Terminated {
    exit_code: i32,
    signal: Option<i32>,
    reason: Option<String>,
    message: Option<String>,
    started_at: Option<String>,
    finished_at: Option<String>,
}

impl Terminated {
    /// Whether the container ran. If the kubelet cannot find a container, it invents exit code 137.
    fn ran(&self) -> bool {
        self.started_at.is_some()
    }
}

/// Reads what a pod reveals about its Job. `deleted` is true if the watch reports its deletion.
///
/// Returns `None` for a pod of no Job, and for a pod that is being deleted.
#[must_use]
pub fn observation(pod: &PodObject, deleted: bool) -> Option<PodObservation> {
    let (meta, status) = (&pod.metadata, pod.status.clone().unwrap_or_default());
    let owner = owner_job(meta)?;
    let template = meta.labels.as_ref()?.get(LABEL_TEMPLATE)?;
    let (uid, created) = (meta.uid.clone()?, meta.creation_timestamp.as_ref()?.0.as_second());
    let state = if deleted || matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        let (attempt, log) = attempt(pod, &status);
        PodState::Ended { pod: uid, created, attempt: Box::new(attempt), log }
    } else if meta.deletion_timestamp.is_some() {
        // The pod ends soon. Its waiting reasons until then are misleading.
        return None;
    } else if is_running(&status) {
        PodState::Running { pod: uid, created }
    } else {
        PodState::Waiting { pod: uid, created, stall: stall(&status) }
    };
    Some(PodObservation {
        template: Some(TemplateName::try_from(template.as_str()).ok()?),
        name: JobName::try_from(owner.name.as_str()).ok()?,
        uid: owner.uid.clone(),
        state,
    })
}

fn is_running(status: &Status) -> bool {
    let containers = &status.container_statuses;
    containers.iter().any(|container| container.state.running.is_some())
        || containers.is_empty() && status.phase.as_deref() == Some("Running")
}

fn owner_job(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.as_ref()?.iter().find(|owner| owner.controller == Some(true) && owner.kind == "Job")
}

/// How the pod ended, and the container whose log explains a failure.
fn attempt(pod: &PodObject, status: &Status) -> (Attempt, Option<String>) {
    let meta = &pod.metadata;
    let containers = pod.spec.init_containers.len() + pod.spec.containers.len();
    let deciding = deciding_container(status);
    let ran = deciding.map(|(_, terminated)| terminated).filter(|terminated| terminated.ran());
    let (reason, message) = reason_and_message(meta, status, deciding.map(|(_, terminated)| terminated));
    let container = deciding.map(|(name, _)| name.to_owned());
    let exit_code = ran.map(|terminated| terminated.exit_code);
    let out_of_memory = reason.as_deref() == Some("OOMKilled") || exit_code == Some(137);
    let limit = container.as_deref().filter(|_| out_of_memory).and_then(|name| memory_limit(&pod.spec, name));
    let attempt = Attempt {
        pod: meta.name.clone().unwrap_or_default(),
        node: pod.spec.node_name.clone(),
        container: container.clone().filter(|_| containers > 1),
        exit_code,
        signal: ran.and_then(|terminated| terminated.signal).filter(|signal| *signal != 0),
        reason,
        message,
        memory_limit: limit,
        started_at: ran.and_then(|terminated| terminated.started_at.clone()),
        finished_at: deciding.and_then(|(_, terminated)| terminated.finished_at.clone()),
        log_tail: None,
    };
    let failed = status.phase.as_deref() != Some("Succeeded");
    (attempt, container.filter(|_| failed && ran.is_some()))
}

/// The container that decided how the pod ended.
///
/// This is the first container that failed, then the first init container that failed. If none
/// failed, it is the first container with a termination message, then the first container.
fn deciding_container(status: &Status) -> Option<(&str, &Terminated)> {
    let main = terminated_containers(&status.container_statuses);
    let init = terminated_containers(&status.init_container_statuses);
    let failed = main.iter().chain(&init).find(|(_, terminated)| terminated.exit_code != 0);
    let with_message = || main.iter().find(|(_, terminated)| terminated.message.is_some());
    let first = || {
        status.container_statuses.iter().find_map(|c| Some((c.name.as_str(), c.state.terminated.as_ref()?)))
    };
    failed.or_else(with_message).copied().or_else(first)
}

/// The terminated containers in the order of their ends.
fn terminated_containers(containers: &[ContainerStatus]) -> Vec<(&str, &Terminated)> {
    let mut ends: Vec<_> = containers
        .iter()
        .filter_map(|c| {
            Some((c.name.as_str(), c.state.terminated.as_ref().or(c.last_state.terminated.as_ref())?))
        })
        .collect();
    // A container that ran precedes an end that the kubelet invented. The stable sort keeps the
    // order of the manifest for equal times.
    ends.sort_by_key(|(_, terminated)| (Reverse(terminated.ran()), terminated.finished_at.clone()));
    ends
}

/// The reason and the message of the end of a pod.
///
/// The reason of the pod (evicted, past its deadline, node lost) takes precedence over the reason
/// of its container, except for `OOMKilled`, which is the direct cause.
fn reason_and_message(
    meta: &ObjectMeta,
    status: &Status,
    end: Option<&Terminated>,
) -> (Option<String>, Option<String>) {
    let non_empty = |reason: &Option<String>| reason.clone().filter(|reason| !reason.is_empty());
    let of_container = |end: &Terminated| (non_empty(&end.reason), text::message(end.message.as_deref()));
    if let Some(end) = end.filter(|end| end.reason.as_deref() == Some("OOMKilled")) {
        return of_container(end);
    }
    if let Some(reason) = non_empty(&status.reason) {
        return (Some(reason), text::message(status.message.as_deref()));
    }
    if let Some(target) =
        status.conditions.iter().find(|c| c.type_ == "DisruptionTarget" && c.status == "True")
    {
        let reason = non_empty(&target.reason).unwrap_or_else(|| target.type_.clone());
        return (Some(reason), text::message(target.message.as_deref()));
    }
    let deleted = || Some("Deleted".to_owned());
    match end {
        Some(end) if !was_deleted(meta, Some(end)) => of_container(end),
        // The termination message of the container is still useful.
        Some(end) if end.ran() => (deleted(), text::message(end.message.as_deref())),
        _ if was_deleted(meta, None) || end.is_none() && status.phase.as_deref() == Some("Pending") => {
            (deleted(), None)
        }
        _ => (None, text::message(status.message.as_deref())),
    }
}

/// Whether the pod ended because it was deleted: by a deadline, a user or a suspension.
///
/// A container that terminated before the deletion request ended on its own.
fn was_deleted(meta: &ObjectMeta, end: Option<&Terminated>) -> bool {
    let Some(deadline) = &meta.deletion_timestamp else { return false };
    let requested = deadline.0.as_second() - meta.deletion_grace_period_seconds.unwrap_or(0);
    let finished = end.and_then(|end| end.finished_at.as_ref()).and_then(|at| at.parse::<Timestamp>().ok());
    finished.is_none_or(|finished| finished.as_second() >= requested)
}

fn memory_limit(spec: &Spec, container: &str) -> Option<String> {
    let found = spec.containers.iter().chain(&spec.init_containers).find(|c| c.name == container)?;
    found.resources.limits.get("memory").cloned()
}

/// Why the pod does not run; `None` for the short waits that are part of every start.
fn stall(status: &Status) -> Option<Stall> {
    let unscheduled =
        status.conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False").map(|c| {
            let reason = c.reason.clone().unwrap_or_else(|| "Unschedulable".to_owned());
            (reason, c.message.as_deref())
        });
    let waiting = || {
        let containers = status.init_container_statuses.iter().chain(&status.container_statuses);
        containers
            .filter_map(|container| container.state.waiting.as_ref())
            .filter_map(|waiting| Some((waiting.reason.clone()?, waiting.message.as_deref())))
            .find(|(reason, _)| !matches!(reason.as_str(), "ContainerCreating" | "PodInitializing"))
    };
    let (reason, message) = unscheduled.or_else(waiting)?;
    Some(Stall { reason, message: text::message(message).unwrap_or_default() })
}

#[cfg(test)]
mod tests;
