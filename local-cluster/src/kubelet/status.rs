//! Builds the status of a pod from the states of its containers. Pure.

use k8s_openapi::{
    api::core::v1::{
        ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
        ContainerStatus, HostIP, PodCondition, PodIP, PodStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

use super::command::{ADDRESS, StartFailure};

/// The state of a container.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ContainerView {
    pub(super) name: String,
    pub(super) image: String,
    /// The id of the current or the last run; empty before the first.
    pub(super) id: String,
    pub(super) state: State,
    pub(super) last: Option<Termination>,
    pub(super) restarts: i32,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum State {
    Waiting(StartFailure),
    Running(Timestamp),
    Terminated(Termination),
}

/// The end of a run.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Termination {
    pub(super) exit_code: i32,
    pub(super) reason: &'static str,
    pub(super) message: Option<String>,
    pub(super) started: Option<Timestamp>,
    pub(super) finished: Timestamp,
    pub(super) id: String,
}

/// The phase of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

impl Phase {
    pub(super) fn from_views(views: &[ContainerView]) -> Self {
        let ends: Option<Vec<i32>> = views
            .iter()
            .map(|view| match &view.state {
                State::Terminated(end) => Some(end.exit_code),
                State::Waiting(_) | State::Running(_) => None,
            })
            .collect();
        let started = |view: &ContainerView| !matches!(view.state, State::Waiting(_)) || view.last.is_some();
        match ends {
            Some(codes) if codes.iter().all(|code| *code == 0) => Self::Succeeded,
            Some(_) => Self::Failed,
            None if views.iter().any(started) => Self::Running,
            None => Self::Pending,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }
}

/// The status of a pod that started at `start`, with the container states `views`.
pub(super) fn pod_status(
    views: &[ContainerView],
    before: &PodStatus,
    start: Timestamp,
    now: Timestamp,
) -> PodStatus {
    let phase = Phase::from_views(views);
    PodStatus {
        phase: Some(phase.name().to_owned()),
        conditions: Some(conditions(views, phase, before, now)),
        container_statuses: Some(views.iter().map(container_status).collect()),
        host_ip: Some(ADDRESS.to_owned()),
        host_ips: Some(vec![HostIP { ip: ADDRESS.to_owned() }]),
        pod_ip: Some(ADDRESS.to_owned()),
        pod_ips: Some(vec![PodIP { ip: ADDRESS.to_owned() }]),
        start_time: Some(Time(start)),
        ..PodStatus::default()
    }
}

/// The status of a pod that exceeds the limit of running pods.
pub(super) fn unschedulable(message: &str, now: Timestamp) -> PodStatus {
    let mut scheduled = condition("PodScheduled", false, now);
    scheduled.reason = Some("Unschedulable".to_owned());
    scheduled.message = Some(message.to_owned());
    PodStatus { phase: Some("Pending".to_owned()), conditions: Some(vec![scheduled]), ..PodStatus::default() }
}

fn conditions(
    views: &[ContainerView],
    phase: Phase,
    before: &PodStatus,
    now: Timestamp,
) -> Vec<PodCondition> {
    let is_ready = |view: &ContainerView| matches!(view.state, State::Running(_));
    let ready = views.iter().all(is_ready);
    let reason = match phase {
        Phase::Succeeded => Some("PodCompleted"),
        Phase::Failed => Some("PodFailed"),
        _ if ready => None,
        _ => Some("ContainersNotReady"),
    };
    let unready: Vec<&str> =
        views.iter().filter(|view| !is_ready(view)).map(|view| view.name.as_str()).collect();
    let message = (reason == Some("ContainersNotReady"))
        .then(|| format!("containers with unready status: [{}]", unready.join(" ")));
    let kinds = [("Initialized", true), ("Ready", ready), ("ContainersReady", ready), ("PodScheduled", true)];
    let current = kinds.map(|(kind, value)| {
        let mut condition = condition(kind, value, now);
        if !value {
            condition.reason = reason.map(str::to_owned);
            condition.message.clone_from(&message);
        }
        condition
    });
    current.into_iter().map(|condition| keep_transition_time(condition, before)).collect()
}

fn condition(kind: &str, value: bool, now: Timestamp) -> PodCondition {
    PodCondition {
        type_: kind.to_owned(),
        status: if value { "True" } else { "False" }.to_owned(),
        last_transition_time: Some(Time(now)),
        ..PodCondition::default()
    }
}

/// Keeps the transition time of a condition whose status has not changed.
fn keep_transition_time(mut condition: PodCondition, before: &PodStatus) -> PodCondition {
    let mut known = before.conditions.iter().flatten();
    let same = known.find(|known| known.type_ == condition.type_ && known.status == condition.status);
    if let Some(same) = same {
        condition.last_transition_time = same.last_transition_time.clone();
    }
    condition
}

fn container_status(view: &ContainerView) -> ContainerStatus {
    let is_running = matches!(view.state, State::Running(_));
    ContainerStatus {
        name: view.name.clone(),
        image: view.image.clone(),
        image_id: view.image.clone(),
        container_id: (!view.id.is_empty()).then(|| view.id.clone()),
        ready: is_running,
        started: Some(is_running),
        restart_count: view.restarts,
        state: Some(container_state(&view.state)),
        last_state: Some(match &view.last {
            Some(end) => ContainerState { terminated: Some(terminated(end)), ..ContainerState::default() },
            None => ContainerState::default(),
        }),
        ..ContainerStatus::default()
    }
}

fn container_state(state: &State) -> ContainerState {
    let none = ContainerState::default();
    match state {
        State::Waiting(StartFailure { reason, message }) => ContainerState {
            waiting: Some(ContainerStateWaiting {
                reason: Some((*reason).to_owned()),
                message: (!message.is_empty()).then(|| message.clone()),
            }),
            ..none
        },
        State::Running(since) => {
            ContainerState { running: Some(ContainerStateRunning { started_at: Some(Time(*since)) }), ..none }
        }
        State::Terminated(end) => ContainerState { terminated: Some(terminated(end)), ..none },
    }
}

fn terminated(end: &Termination) -> ContainerStateTerminated {
    ContainerStateTerminated {
        container_id: (!end.id.is_empty()).then(|| end.id.clone()),
        exit_code: end.exit_code,
        reason: Some(end.reason.to_owned()),
        message: end.message.clone(),
        started_at: end.started.map(Time),
        finished_at: Some(Time(end.finished)),
        ..ContainerStateTerminated::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(state: State) -> ContainerView {
        let last = None;
        ContainerView {
            name: "main".into(),
            image: "app:1".into(),
            id: String::new(),
            state,
            last,
            restarts: 0,
        }
    }

    fn ended(exit_code: i32) -> State {
        let (reason, finished) = ("Error", Timestamp::UNIX_EPOCH);
        State::Terminated(Termination {
            exit_code,
            reason,
            message: None,
            started: None,
            finished,
            id: String::new(),
        })
    }

    fn waiting() -> State {
        State::Waiting(StartFailure { reason: "ContainerCreating", message: String::new() })
    }

    #[test]
    fn phase_follows_the_container_states() {
        let running = || State::Running(Timestamp::UNIX_EPOCH);
        for (states, phase) in [
            (vec![waiting(), waiting()], Phase::Pending),
            (vec![waiting(), running()], Phase::Running),
            (vec![ended(1), running()], Phase::Running),
            (vec![ended(0), ended(0)], Phase::Succeeded),
            (vec![ended(0), ended(1)], Phase::Failed),
        ] {
            let views: Vec<_> = states.into_iter().map(view).collect();
            assert_eq!(Phase::from_views(&views), phase, "{views:?}");
        }
    }

    #[test]
    fn pod_stays_running_between_two_runs_of_a_container() {
        let State::Terminated(end) = ended(1) else { unreachable!() };
        assert_eq!(
            Phase::from_views(&[ContainerView { last: Some(end), ..view(waiting()) }]),
            Phase::Running
        );
    }

    #[test]
    fn conditions_keep_their_transition_time() {
        let (first, second) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(9).unwrap());
        let before = pod_status(&[view(waiting())], &PodStatus::default(), first, first);
        let after = pod_status(&[view(State::Running(second))], &before, first, second);
        let times = |status: &PodStatus, kind: &str| {
            let condition =
                status.conditions.iter().flatten().find(|condition| condition.type_ == kind).unwrap();
            (condition.status.clone(), condition.last_transition_time.clone().unwrap().0)
        };
        assert_eq!(times(&before, "Ready"), ("False".into(), first));
        assert_eq!(times(&after, "Ready"), ("True".into(), second));
        assert_eq!(times(&after, "PodScheduled"), ("True".into(), first));
    }
}
