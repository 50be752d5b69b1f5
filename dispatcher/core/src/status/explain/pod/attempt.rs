//! How a pod ended, and which of its containers stands for the end.
//!
//! An attempt contains the reason, exit code, signal and memory limit as Kubernetes reports them.
//! No field is sufficient alone: `OOMKilled` can be absent or wrong, and 137 can have other causes
//! than memory.

use std::cmp::Reverse;

use k8s_openapi::jiff::Timestamp;
use kube_core::ObjectMeta;

use super::{ContainerStatus, PodObject, Spec, Status, Terminated};
use crate::contract::{event::Attempt, text};

/// How the pod ended, and the container whose log explains a failure.
pub(super) fn attempt(pod: &PodObject, status: &Status) -> (Attempt, Option<String>) {
    let meta = &pod.metadata;
    let containers = pod.spec.init_containers.len() + pod.spec.containers.len();
    let deciding = deciding_container(&pod.spec, status);
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
    let failed = !has_succeeded(status);
    (attempt, container.filter(|_| failed && ran.is_some()))
}

/// The container that stands for the end of the pod: one that does the work, never a sidecar.
///
/// If the pod succeeded, this is a container that succeeded, if possible with a termination message.
/// Otherwise it is the first container that ran and failed, then the first init container that ran
/// and failed, then one whose failure the kubelet invented. If none failed, it is the first with a
/// termination message, then the first.
fn deciding_container<'a>(spec: &Spec, status: &'a Status) -> Option<(&'a str, &'a Terminated)> {
    let main = terminated_containers(&status.container_statuses);
    let with_message = |succeeded: bool| {
        let accepted = move |end: &Terminated| !succeeded || end.exit_code == 0;
        main.iter().find(move |(_, end)| end.message.is_some() && accepted(end))
    };
    let first = || {
        status.container_statuses.iter().find_map(|c| Some((c.name.as_str(), c.state.terminated.as_ref()?)))
    };
    if has_succeeded(status) {
        let succeeded = || main.iter().find(|(_, end)| end.exit_code == 0);
        let succeeded = with_message(true).or_else(succeeded).copied();
        return succeeded.or_else(first);
    }
    let mut init = terminated_containers(&status.init_container_statuses);
    init.retain(|(name, _)| !spec.is_sidecar(name));
    let work = || main.iter().chain(&init).filter(|(_, end)| end.exit_code != 0);
    let ran = work().find(|(_, end)| end.ran());
    ran.or_else(|| work().next()).or_else(|| with_message(false)).copied().or_else(first)
}

fn has_succeeded(status: &Status) -> bool {
    status.phase.as_deref() == Some("Succeeded")
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
    let of_container =
        |end: &Terminated| (text::reason(end.reason.as_deref()), text::message(end.message.as_deref()));
    if let Some(end) = end.filter(|_| has_succeeded(status)) {
        return of_container(end);
    }
    if let Some(end) = end.filter(|end| end.reason.as_deref() == Some("OOMKilled")) {
        return of_container(end);
    }
    if let Some(reason) = text::reason(status.reason.as_deref()) {
        return (Some(reason), text::message(status.message.as_deref()));
    }
    if let Some(target) =
        status.conditions.iter().find(|c| c.type_ == "DisruptionTarget" && c.status == "True")
    {
        let reason = text::reason(target.reason.as_deref()).unwrap_or_else(|| target.type_.clone());
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
    let requested = deadline.0.as_second().saturating_sub(meta.deletion_grace_period_seconds.unwrap_or(0));
    let finished = end.and_then(|end| end.finished_at.as_ref()).and_then(|at| at.parse::<Timestamp>().ok());
    finished.is_none_or(|finished| finished.as_second() >= requested)
}

fn memory_limit(spec: &Spec, container: &str) -> Option<String> {
    let found = spec.containers.iter().chain(&spec.init_containers).find(|c| c.name == container)?;
    found.resources.limits.get("memory").cloned()
}
