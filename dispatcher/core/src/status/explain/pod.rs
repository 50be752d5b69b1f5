//! A pod → what it tells of its Job. Pure.
//!
//! Reason, exit code, signal and limit of memory are given together, each as Kubernetes has it: `OOMKilled` can be absent
//! or wrong, and 137 alone says nothing of memory.

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

/// A `v1` Pod of which only the fields in use are decoded.
pub type PodObject = Object<Spec, Status>;

/// See [`PodObject`].
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

/// See [`PodObject`].
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
    /// Whether the container really ran: of one that it cannot find the kubelet makes up the exit code 137.
    fn ran(&self) -> bool {
        self.started_at.is_some()
    }
}

/// What a pod tells of its Job; `None` of a pod of no Job, or one that tells nothing. `gone` says that it is deleted.
pub fn sign(pod: &PodObject, gone: bool) -> Option<PodObservation> {
    let (meta, status) = (&pod.metadata, pod.status.clone().unwrap_or_default());
    let owner = owner(meta)?;
    let template = meta.labels.as_ref()?.get(LABEL_TEMPLATE)?;
    let (uid, created) = (meta.uid.clone()?, meta.creation_timestamp.as_ref()?.0.as_second());
    let tells = if gone || matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        let (attempt, log) = ended(pod, &status);
        PodState::Ended { pod: uid, created, attempt: Box::new(attempt), log }
    } else if meta.deletion_timestamp.is_some() {
        // Its end comes soon, and what it says until then is of no meaning.
        return None;
    } else if runs(&status) {
        PodState::Running { pod: uid, created }
    } else {
        PodState::Waiting { pod: uid, created, stall: stall(&status) }
    };
    Some(PodObservation {
        template: Some(TemplateName::try_from(template.as_str()).ok()?),
        name: JobName::try_from(owner.name.as_str()).ok()?,
        uid: owner.uid.clone(),
        tells,
    })
}

fn runs(status: &Status) -> bool {
    let containers = &status.container_statuses;
    containers.iter().any(|container| container.state.running.is_some())
        || containers.is_empty() && status.phase.as_deref() == Some("Running")
}

/// The Job whose pod it is.
fn owner(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.as_ref()?.iter().find(|owner| owner.controller == Some(true) && owner.kind == "Job")
}

/// How it ended, and the container whose log tells of it.
fn ended(pod: &PodObject, status: &Status) -> (Attempt, Option<String>) {
    let meta = &pod.metadata;
    let containers = pod.spec.init_containers.len() + pod.spec.containers.len();
    let deciding = deciding(status);
    let ran = deciding.map(|(_, terminated)| terminated).filter(|terminated| terminated.ran());
    let (reason, message) = why(meta, status, deciding.map(|(_, terminated)| terminated));
    let container = deciding.map(|(name, _)| name.to_owned());
    let exit_code = ran.map(|terminated| terminated.exit_code);
    let memory = reason.as_deref() == Some("OOMKilled") || exit_code == Some(137);
    let limit = container.as_deref().filter(|_| memory).and_then(|name| memory_limit(&pod.spec, name));
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

/// The container that decided how the pod ended: the first that failed, a container before an init container; where none
/// failed, the first that left a message, else the first.
fn deciding(status: &Status) -> Option<(&str, &Terminated)> {
    let (main, init) = (ends(&status.container_statuses), ends(&status.init_container_statuses));
    let failed = main.iter().chain(&init).find(|(_, terminated)| terminated.exit_code != 0);
    let messaged = || main.iter().find(|(_, terminated)| terminated.message.is_some());
    let in_order = || {
        status.container_statuses.iter().find_map(|c| Some((c.name.as_str(), c.state.terminated.as_ref()?)))
    };
    failed.or_else(messaged).copied().or_else(in_order)
}

/// The containers that have ended, in the order of that.
fn ends(containers: &[ContainerStatus]) -> Vec<(&str, &Terminated)> {
    let mut ends: Vec<_> = containers
        .iter()
        .filter_map(|c| {
            Some((c.name.as_str(), c.state.terminated.as_ref().or(c.last_state.terminated.as_ref())?))
        })
        .collect();
    // What really ran tells more than what the kubelet made up. The sort is stable: then as in the manifest.
    ends.sort_by_key(|(_, terminated)| (Reverse(terminated.ran()), terminated.finished_at.clone()));
    ends
}

/// The reason, one word, and a message. A pod's own word counts for more than that of its container (evicted, over its
/// deadline, its node is gone), but for `OOMKilled`: that is the nearer cause.
fn why(meta: &ObjectMeta, status: &Status, end: Option<&Terminated>) -> (Option<String>, Option<String>) {
    let word = |reason: &Option<String>| reason.clone().filter(|reason| !reason.is_empty());
    let of_end = |end: &Terminated| (word(&end.reason), text::message(end.message.as_deref()));
    if let Some(end) = end.filter(|end| end.reason.as_deref() == Some("OOMKilled")) {
        return of_end(end);
    }
    if let Some(reason) = word(&status.reason) {
        return (Some(reason), text::message(status.message.as_deref()));
    }
    if let Some(target) =
        status.conditions.iter().find(|c| c.type_ == "DisruptionTarget" && c.status == "True")
    {
        let reason = word(&target.reason).unwrap_or_else(|| target.type_.clone());
        return (Some(reason), text::message(target.message.as_deref()));
    }
    match end {
        Some(end) if !was_deleted(meta, Some(end)) => of_end(end),
        // What its container wrote at its end is still worth reading.
        Some(end) if end.ran() => (Some("Deleted".to_owned()), text::message(end.message.as_deref())),
        _ if was_deleted(meta, None) || end.is_none() && status.phase.as_deref() == Some("Pending") => {
            (Some("Deleted".to_owned()), None)
        }
        _ => (None, text::message(status.message.as_deref())),
    }
}

/// Whether it ended because somebody deleted it: a deadline, a user, a suspension. A container that ended before that
/// ended by itself.
fn was_deleted(meta: &ObjectMeta, end: Option<&Terminated>) -> bool {
    let Some(until) = &meta.deletion_timestamp else { return false };
    let asked = until.0.as_second() - meta.deletion_grace_period_seconds.unwrap_or(0);
    let finished = end.and_then(|end| end.finished_at.as_ref()).and_then(|at| at.parse::<Timestamp>().ok());
    finished.is_none_or(|finished| finished.as_second() >= asked)
}

fn memory_limit(spec: &Spec, container: &str) -> Option<String> {
    let found = spec.containers.iter().chain(&spec.init_containers).find(|c| c.name == container)?;
    found.resources.limits.get("memory").cloned()
}

/// What keeps a pod from running that is there; `None` of the short waits that are part of every start.
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
