//! Whether the work of a pod runs, and what its start waits for.

use k8s_openapi::jiff::Timestamp;

use super::{Condition, ContainerStatus, Spec, Status};
use crate::{
    contract::{event::Stall, text},
    status::pod_observation::Wait,
};

/// The waiting reasons of a container that are part of every start.
const NORMAL_WAITS: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// Whether some work runs: a container, or an init container that is no sidecar. A pod whose
/// containers are all terminated runs until its phase says otherwise.
pub(super) fn is_running(spec: &Spec, status: &Status) -> bool {
    let (main, init) = (&status.container_statuses, &status.init_container_statuses);
    if main.is_empty() && init.is_empty() {
        return status.phase.as_deref() == Some("Running");
    }
    let runs = |container: &ContainerStatus| container.state.running.is_some();
    main.iter().any(runs)
        || init.iter().any(|container| runs(container) && !spec.is_sidecar(&container.name))
        || !main.is_empty() && main.iter().all(|container| container.state.terminated.is_some())
}

/// When the start of the pod last made progress: a condition became true, an init container ended,
/// a sidecar started, or a container ended before its restart.
pub(super) fn progress(spec: &Spec, status: &Status) -> Option<i64> {
    let steps = ["PodScheduled", "PodReadyToStartContainers", "Initialized"];
    let conditions = status
        .conditions
        .iter()
        .filter(|condition| condition.status == "True" && steps.contains(&condition.type_.as_str()))
        .filter_map(|condition| condition.last_transition_time.as_deref());
    let containers = || status.init_container_statuses.iter().chain(&status.container_statuses);
    let work = || containers().filter(|container| !spec.is_sidecar(&container.name));
    let ended = work()
        .flat_map(|container| [&container.state.terminated, &container.last_state.terminated])
        .filter_map(|end| end.as_ref()?.finished_at.as_deref());
    let started = containers()
        .filter(|container| container.started == Some(true))
        .filter_map(|container| container.state.running.as_ref()?.started_at.as_deref());
    let times = conditions.chain(ended).chain(started);
    times.filter_map(|time| time.parse::<Timestamp>().ok()).map(Timestamp::as_second).max()
}

/// What the start of a pod waits for.
pub(super) fn wait(status: &Status) -> Wait {
    let condition = |type_: &str| status.conditions.iter().find(|c| c.type_ == type_ && c.status == "False");
    if let Some(unscheduled) = condition("PodScheduled") {
        return Wait::Blocked(stall_of(Some(unscheduled), "Unschedulable"));
    }
    let containers = || status.init_container_statuses.iter().chain(&status.container_statuses);
    let waiting = || containers().filter_map(|container| container.state.waiting.as_ref());
    let unusual = waiting().find_map(|waiting| {
        let reason = text::reason(waiting.reason.as_deref())?;
        (!NORMAL_WAITS.contains(&reason.as_str())).then_some((reason, waiting.message.as_deref()))
    });
    if let Some((reason, message)) = unusual {
        return Wait::Blocked(Stall { reason, message: text::message(message).unwrap_or_default() });
    }
    // A sidecar that runs and has not started delays the other containers.
    let runs = |container: &ContainerStatus| container.state.running.is_some();
    if status.init_container_statuses.iter().any(runs) && condition("Initialized").is_some() {
        return Wait::Starting(stall_of(condition("Initialized"), "ContainersNotInitialized"));
    }
    let reason = waiting().find_map(|waiting| text::reason(waiting.reason.as_deref()));
    let reason = reason.unwrap_or_else(|| "Pending".to_owned());
    Wait::Starting(Stall { reason, ..stall_of(condition("Ready"), "Pending") })
}

/// The reason, or `otherwise`, and the message of a condition.
fn stall_of(condition: Option<&Condition>, otherwise: &str) -> Stall {
    let reason = condition.and_then(|condition| text::reason(condition.reason.as_deref()));
    let message = condition.and_then(|condition| text::message(condition.message.as_deref()));
    Stall { reason: reason.unwrap_or_else(|| otherwise.to_owned()), message: message.unwrap_or_default() }
}
