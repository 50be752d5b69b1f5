//! Reads an observation from a pod: whether it waits, runs or ended, and why.

mod attempt;
mod start;

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{
    contract::{
        job::LABEL_TEMPLATE,
        names::{JobName, TemplateName},
        object::Object,
    },
    status::{
        explain::owner::owner_job,
        pod_observation::{PodObservation, PodState},
    },
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
    restart_policy: Option<String>,
}

impl Spec {
    /// Whether this is a native sidecar: an init container that runs for as long as the work.
    /// It never stands for the work.
    fn is_sidecar(&self, name: &str) -> bool {
        let always = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
        self.init_containers.iter().filter(always).any(|container| container.name == name)
    }
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
    last_transition_time: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerStatus {
    name: String,
    started: Option<bool>,
    state: State,
    last_state: State,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct State {
    waiting: Option<Waiting>,
    running: Option<Running>,
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
struct Running {
    started_at: Option<String>,
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
/// Returns `None` for a pod of no Job. The phase decides before any container does.
#[must_use]
pub fn observation(pod: &PodObject, deleted: bool) -> Option<PodObservation> {
    let no_status = Status::default();
    let (meta, status) = (&pod.metadata, pod.status.as_ref().unwrap_or(&no_status));
    let owner = owner_job(meta)?;
    let template = meta.labels.as_ref()?.get(LABEL_TEMPLATE)?;
    let (uid, created) = (meta.uid.clone()?, meta.creation_timestamp.as_ref()?.0.as_second());
    let state = if deleted || matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        let (attempt, log) = attempt::attempt(pod, status);
        PodState::Ended { pod: uid, created, attempt: Box::new(attempt), log }
    } else if meta.deletion_timestamp.is_some() {
        // Its waiting reasons are misleading, and its containers may run on a lost node.
        PodState::Terminating { pod: uid, created }
    } else if start::is_running(&pod.spec, status) {
        PodState::Running { pod: uid, created }
    } else {
        let progress = start::progress(&pod.spec, status).map_or(created, |at| at.max(created));
        PodState::Waiting { pod: uid, created, progress, wait: start::wait(status) }
    };
    Some(PodObservation {
        template: Some(TemplateName::try_from(template.as_str()).ok()?),
        name: JobName::try_from(owner.name.as_str()).ok()?,
        uid: owner.uid.clone(),
        state,
    })
}

#[cfg(test)]
mod tests;
