//! Tracks the pods and Kubernetes Events of one Job: how each pod ended, and why none runs.
//!
//! [`PodTracker::next`] returns the event to publish. [`PodTracker::take_effects`] returns the log
//! tails to fetch and the timers to start. Time enters as the expiry of a timer, never as a clock.

use std::{cmp::Ordering, collections::HashSet, time::Duration};

use k8s_openapi::jiff::Timestamp;

use crate::{
    contract::event::{Attempt, Outcome, OutcomeResult, Stall},
    status::{pod_observation::PodState, small_map::SmallMap, stalls::StallTracker},
};

/// The maximum number of attempts for the outcome, and of concurrently held log tails.
const MAX_KEPT: usize = 16;
/// How long an `ATTEMPT` waits for its log tail. A later tail appears in the outcome only.
const LOG_GRACE: Duration = Duration::from_secs(1);
/// How long an outcome waits for log tails and for ended pods that are not observed yet.
const OUTCOME_GRACE: Duration = Duration::from_secs(3);
/// How long the watch may take to deliver an ended pod that the status of the Job counts. Then the pods
/// are listed: they ended before the watch began.
const WATCH_GRACE: Duration = Duration::from_secs(1);

/// An unpublished event of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PendingEvent {
    /// An `ATTEMPT` of the pod with this uid.
    Attempt(String, Box<Attempt>),
    /// A `STALLED`.
    Stall(Stall),
}

/// A side effect for the caller to run concurrently. It blocks no action of the Job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Fetch the tail of a log.
    FetchLog {
        /// The pod's uid.
        pod: String,
        /// The pod's name.
        name: String,
        /// The container.
        container: String,
    },
    /// List the ended pods of the Job.
    ListEnded,
    /// Start a timer.
    Wait(Timer, Duration),
}

/// Identifies a timer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Timer {
    /// Bounds the wait of an `ATTEMPT` for the log of the pod with this uid.
    Log(String),
    /// Delays the stall with this token.
    Stall(u64),
    /// Bounds the wait of the outcome.
    Outcome,
    /// Delays the list of the ended pods.
    EndedPods,
}

/// How far a Job has progressed towards its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JobEnd {
    /// The Job is unfinished.
    Unfinished,
    /// The Job has a final condition.
    Finished,
    /// The Job is deleted. Its outcome waits for nothing.
    Deleted,
}

#[derive(Debug, PartialEq, Eq)]
enum LogState {
    /// The log of this container is not requested yet.
    Wanted(String),
    /// The log is being fetched. After `LOG_GRACE` the fetch is `late`.
    Fetching { late: bool },
    /// The log is fetched, unavailable or not needed.
    Done,
}

#[derive(Debug)]
struct EndedPod {
    attempt: Attempt,
    log: LogState,
    published: bool,
}

/// Whether the outcome waits for log tails and for pods that are not observed yet.
#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
enum OutcomeHold {
    #[default]
    Idle,
    /// The timer is not started yet.
    TimerWanted,
    TimerRunning,
    Expired,
}

/// The list of the ended pods that the watch did not deliver.
#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
enum EndedList {
    #[default]
    Idle,
    TimerWanted,
    TimerRunning,
    Wanted,
    InProgress,
}

/// The observed pods of one Job.
#[derive(Debug, Default)]
pub(super) struct PodTracker {
    ended: SmallMap<String, EndedPod>,
    /// Ended pods whose attempts are published and no longer kept.
    dropped: HashSet<String>,
    stalls: StallTracker,
    hold: OutcomeHold,
    /// The number of ended pods by the status of the Job.
    counted: u32,
    /// How many of them the last list lacked: they are deleted.
    absent: u32,
    list: EndedList,
}

impl PodTracker {
    /// Records an observation.
    pub(super) fn observe(&mut self, state: PodState) {
        match state {
            PodState::Waiting { pod, created, progress, wait } => {
                self.stalls.pod_waiting(pod, created, progress, wait);
            }
            PodState::Running { pod, created } => self.stalls.pod_running(pod, created),
            PodState::Terminating { pod, created } => self.stalls.pod_terminating(&pod, created),
            PodState::Warning { pod: Some(pod), at, stall } => self.stalls.pod_warning(&pod, at, stall),
            PodState::Warning { pod: None, at, stall } => self.stalls.job_warning(at, stall),
            PodState::Workload { stall } => self.stalls.queued(stall),
            PodState::Ended { pod, created, attempt, log } => {
                self.stalls.pod_ended(&pod, created, attempt.exit_code.is_some());
                if !self.dropped.contains(&pod) && !self.ended.contains_key(&pod) {
                    let log = log.map_or(LogState::Done, LogState::Wanted);
                    self.ended.insert(pod, EndedPod { attempt: *attempt, log, published: false });
                }
            }
        }
    }

    /// A list of the pods begins. It reports every pod again that still exists.
    pub(super) fn pods_listing(&mut self) {
        self.stalls.pods_listing();
    }

    /// The list of the pods is complete.
    pub(super) fn pods_listed(&mut self) {
        self.stalls.pods_listed();
    }

    /// Records how many pods of a Job have ended by its status, if some may have ended before the watch
    /// began. If the watch does not deliver them in time, they are listed.
    pub(super) fn count_ended(&mut self, counted: u32) {
        self.counted = self.counted.max(counted);
        if self.list == EndedList::Idle && self.lacks_ended() {
            self.list = EndedList::TimerWanted;
        }
    }

    /// Records the ended pods that exist.
    pub(super) fn ended_listed(&mut self, pods: Vec<PodState>) {
        pods.into_iter().for_each(|pod| self.observe(pod));
        self.absent = self.counted.saturating_sub(self.ended_pods());
        self.list = EndedList::Idle;
    }

    /// Whether some ended pods are neither observed nor deleted.
    fn lacks_ended(&self) -> bool {
        self.ended_pods().saturating_add(self.absent) < self.counted
    }

    /// Marks every kept event as unpublished. The stream may have lost it.
    pub(super) fn forget_published(&mut self) {
        self.ended.values_mut().for_each(|pod| pod.published = false);
        self.stalls.forget_published();
    }

    /// Records the `Suspended` condition of the Job.
    pub(super) fn suspended(&mut self, stall: Option<Stall>) {
        self.stalls.suspended(stall);
    }

    /// The next event to publish.
    pub(super) fn next(&self, end: JobEnd) -> Option<PendingEvent> {
        let skip_logs = self.hold == OutcomeHold::Expired || end == JobEnd::Deleted;
        let due = |pod: &EndedPod| {
            !pod.published
                && (skip_logs || matches!(pod.log, LogState::Done | LogState::Fetching { late: true }))
        };
        if let Some(uid) = self.first_ended(due) {
            let attempt = self.ended.get(&uid)?.attempt.clone();
            return Some(PendingEvent::Attempt(uid, Box::new(attempt)));
        }
        if end == JobEnd::Unfinished { self.stalls.next().map(PendingEvent::Stall) } else { None }
    }

    /// Records that the event is published.
    pub(super) fn mark_published(&mut self, event: &PendingEvent) {
        match event {
            PendingEvent::Stall(stall) => self.stalls.mark_published(stall),
            PendingEvent::Attempt(uid, _) => {
                if let Some(pod) = self.ended.get_mut(uid) {
                    pod.published = true;
                }
                while self.ended.len() > MAX_KEPT && self.drop_attempt() {}
            }
        }
    }

    /// Drops the least useful attempt if it is published: successful before failed, then the
    /// oldest.
    fn drop_attempt(&mut self) -> bool {
        let failed = |pod: &EndedPod| pod.attempt.exit_code != Some(0);
        let least_useful = self
            .ended
            .iter()
            .min_by(|(_, a), (_, b)| {
                failed(a).cmp(&failed(b)).then_with(|| compare_ends(&a.attempt, &b.attempt))
            })
            .filter(|(_, pod)| pod.published && pod.log == LogState::Done);
        let Some(uid) = least_useful.map(|(uid, _)| uid.clone()) else { return false };
        self.ended.remove(&uid);
        self.dropped.insert(uid)
    }

    /// Removes and returns the effects to start now.
    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        while let Some(uid) = self.first_ended(|pod| matches!(pod.log, LogState::Wanted(_))) {
            if self.held_tails() >= MAX_KEPT && !self.drop_tail() {
                break;
            }
            let Some(pod) = self.ended.get_mut(&uid) else { break };
            let fetching = LogState::Fetching { late: false };
            if let LogState::Wanted(container) = std::mem::replace(&mut pod.log, fetching) {
                let name = pod.attempt.pod.clone();
                effects.push(Effect::FetchLog { pod: uid.clone(), name, container });
                effects.push(Effect::Wait(Timer::Log(uid), LOG_GRACE));
            }
        }
        if self.hold == OutcomeHold::TimerWanted {
            self.hold = OutcomeHold::TimerRunning;
            effects.push(Effect::Wait(Timer::Outcome, OUTCOME_GRACE));
        }
        match self.list {
            EndedList::TimerWanted => {
                self.list = EndedList::TimerRunning;
                effects.push(Effect::Wait(Timer::EndedPods, WATCH_GRACE));
            }
            EndedList::Wanted => {
                self.list = EndedList::InProgress;
                effects.push(Effect::ListEnded);
            }
            EndedList::Idle | EndedList::TimerRunning | EndedList::InProgress => {}
        }
        let timers = self.stalls.take_timers().into_iter();
        effects.extend(timers.map(|(token, delay)| Effect::Wait(Timer::Stall(token), delay)));
        effects
    }

    /// The uid of the matching pod that ended first.
    fn first_ended(&self, matches: impl Fn(&EndedPod) -> bool) -> Option<String> {
        let matching = self.ended.iter().filter(|(_, pod)| matches(pod));
        let first = matching.min_by(|(_, a), (_, b)| compare_ends(&a.attempt, &b.attempt));
        first.map(|(uid, _)| uid.clone())
    }

    /// The number of log tails that are held or being fetched.
    fn held_tails(&self) -> usize {
        let held =
            |pod: &&EndedPod| matches!(pod.log, LogState::Fetching { .. }) || pod.attempt.log_tail.is_some();
        self.ended.values().filter(held).count()
    }

    /// Drops the oldest published log tail. Returns whether there was one.
    fn drop_tail(&mut self) -> bool {
        let oldest = self.first_ended(|pod| pod.published && pod.attempt.log_tail.is_some());
        let oldest = oldest.and_then(|uid| self.ended.get_mut(&uid));
        oldest.is_some_and(|pod| pod.attempt.log_tail.take().is_some())
    }

    /// Records the log tail of a pod, or that there is none.
    pub(super) fn log_fetched(&mut self, uid: &str, tail: Option<String>) {
        if let Some(pod) = self.ended.get_mut(uid) {
            pod.log = LogState::Done;
            pod.attempt.log_tail = tail;
        }
    }

    /// Records that a timer expired.
    pub(super) fn timer_expired(&mut self, timer: &Timer) {
        match timer {
            Timer::Outcome => self.hold = OutcomeHold::Expired,
            Timer::Stall(token) => self.stalls.timer_expired(*token),
            Timer::EndedPods => {
                self.list = if self.lacks_ended() { EndedList::Wanted } else { EndedList::Idle };
            }
            Timer::Log(uid) => {
                if let Some(EndedPod { log: LogState::Fetching { late }, .. }) = self.ended.get_mut(uid) {
                    *late = true;
                }
            }
        }
    }

    /// Whether the outcome has to wait for log tails, or for some of the `pods` that have ended.
    pub(super) fn holds_outcome(&mut self, pods: u32) -> bool {
        // The list of ended pods has its own deadline.
        if self.list != EndedList::Idle && self.lacks_ended() {
            return true;
        }
        let incomplete = self.ended.values().any(|pod| pod.log != LogState::Done || !pod.published);
        let observed = self.ended_pods().saturating_add(self.absent);
        if self.hold == OutcomeHold::Expired || !incomplete && observed >= pods {
            return false;
        }
        if self.hold == OutcomeHold::Idle {
            self.hold = OutcomeHold::TimerWanted;
        }
        true
    }

    /// The number of pods observed to end.
    fn ended_pods(&self) -> u32 {
        u32::try_from(self.ended.len() + self.dropped.len()).unwrap_or(u32::MAX)
    }

    /// Adds attempts and the stall to the outcome of a Job with `pods` ended pods.
    pub(super) fn complete_outcome(&self, outcome: &mut Outcome, pods: u32) {
        let mut attempts: Vec<&Attempt> = self.ended.values().map(|pod| &pod.attempt).collect();
        attempts.sort_by(|a, b| compare_ends(a, b));
        let skipped = attempts.len().saturating_sub(MAX_KEPT);
        outcome.attempts = attempts.into_iter().skip(skipped).cloned().collect();
        let listed = u32::try_from(outcome.attempts.len()).unwrap_or(u32::MAX);
        outcome.attempts_omitted = pods.max(self.ended_pods()).saturating_sub(listed);
        if outcome.result != OutcomeResult::Complete {
            let finished = outcome.finish_time.as_deref().and_then(|at| at.parse::<Timestamp>().ok());
            outcome.stall = self.stalls.explanation(finished.map(Timestamp::as_second)).cloned();
        }
    }
}

/// Orders attempts by their end. RFC 3339 times in UTC compare as text.
fn compare_ends(a: &Attempt, b: &Attempt) -> Ordering {
    let key = |attempt: &Attempt| {
        (
            attempt.finished_at.is_none(),
            attempt.finished_at.clone(),
            attempt.started_at.clone(),
            attempt.pod.clone(),
        )
    };
    key(a).cmp(&key(b))
}

#[cfg(test)]
pub(super) mod tests;
