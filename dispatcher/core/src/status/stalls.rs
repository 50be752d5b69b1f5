//! Decides why no pod of a Job runs, and when to publish it as a `STALLED` event.
//!
//! The decision depends on the state of each pod and on the Warnings, not on their order. Each
//! reason is published once until a pod of the Job has run, after it has lasted for its delay.

mod obstacles;

use std::{cmp::Reverse, collections::BTreeSet, time::Duration};

use self::obstacles::Obstacles;
use crate::{
    contract::event::Stall,
    status::{pod_observation::Wait, small_map::SmallMap},
};

/// How long a reason that may resolve itself has to last before it is published.
const STALL_DELAY: Duration = Duration::from_secs(5);
/// How long a start without any other reason may take before it is published.
const START_DELAY: Duration = Duration::from_secs(60);
/// The maximum number of reasons of one Job at a time. Each holds a message of at most 4 KiB.
const MAX_REASONS: usize = 32;

/// The reasons of Kubernetes that do not resolve without intervention. They have no delay.
const IMMEDIATE_REASONS: [&str; 12] = [
    "AdmissionDenied",
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "FailedCreate",
    "ImageInspectError",
    "ImagePullBackOff",
    "InvalidImageName",
    "PodSecurity",
    "RunContainerError",
    "StartError",
];

/// A pod that is neither ended nor being deleted.
#[derive(Debug)]
struct Pod {
    /// Whether the current list of the pods contains it.
    listed: bool,
    /// What keeps it from running; `None` if it runs.
    obstacles: Option<Obstacles>,
}

/// A reason that some pod, or the Job itself, has.
#[derive(Debug)]
struct Reason {
    /// The newest stall of this reason, and its time.
    stall: Stall,
    at: i64,
    delay: Duration,
    /// What is left of the delay.
    left: Duration,
    /// How many objects have the reason.
    held: usize,
    /// How many objects have it as a current reason: no more precise one hides it.
    current: usize,
    /// Identifies the timer.
    token: u64,
    timer_started: bool,
    due: bool,
}

impl Reason {
    /// The next part of the delay. Most pods start within the first part, so that only few need the
    /// long timer.
    fn next_timer(&self) -> Duration {
        if self.left == self.delay { self.left.min(STALL_DELAY) } else { self.left }
    }
}

/// The stalls of one Job.
///
/// It holds a few bytes for each pod. The messages, which are large, are held once for each reason.
#[derive(Debug, Default)]
pub(super) struct StallTracker {
    pods: SmallMap<String, Pod>,
    running: usize,
    /// The Job's own obstacles: its condition `Suspended`, and the Warnings since the newest pod.
    job: Obstacles,
    /// Why Kueue keeps the Job suspended: more precise than the condition `Suspended`.
    queued: Option<Box<Stall>>,
    reasons: SmallMap<String, Reason>,
    /// The stall of the last pod that ended without having run. It explains the outcome.
    last: Option<Stall>,
    published: BTreeSet<String>,
    next_token: u64,
}

impl StallTracker {
    pub(super) fn pod_waiting(&mut self, pod: String, created: i64, progress: i64, wait: Wait) {
        self.pod_exists(created);
        let wait = match wait {
            Wait::Blocked(stall) => self.reason(stall, progress, STALL_DELAY).map(|reason| (reason, true)),
            Wait::Starting(stall) => self.reason(stall, progress, START_DELAY).map(|reason| (reason, false)),
        };
        let mut obstacles = self.remove(&pod).and_then(|pod| pod.obstacles).unwrap_or_default();
        obstacles.advance(progress);
        (obstacles.status, obstacles.step) = match wait {
            Some((reason, true)) => (Some(reason), None),
            Some((reason, false)) => (None, Some(reason)),
            None => (None, None),
        };
        self.insert(pod, Some(obstacles));
    }

    pub(super) fn pod_running(&mut self, pod: String, created: i64) {
        self.pod_exists(created);
        self.remove(&pod);
        self.insert(pod, None);
        self.has_run();
    }

    /// The pod is being deleted: it counts neither as running nor as waiting.
    pub(super) fn pod_terminating(&mut self, pod: &str, created: i64) {
        self.pod_exists(created);
        self.leave(pod);
    }

    pub(super) fn pod_ended(&mut self, pod: &str, created: i64, ran: bool) {
        self.pod_exists(created);
        self.leave(pod);
        if ran {
            self.has_run();
        }
    }

    /// A Warning of the time `at` about a pod. It is ignored unless the pod waits.
    pub(super) fn pod_warning(&mut self, pod: &str, at: i64, stall: Stall) {
        let waits = self.pods.get(pod).is_some_and(|pod| pod.obstacles.is_some());
        if !waits {
            return;
        }
        let Some(reason) = self.reason(stall, at, STALL_DELAY) else { return };
        let Some(Pod { listed, obstacles: Some(mut obstacles) }) = self.remove(pod) else { return };
        obstacles.warn(at, reason);
        self.insert(pod.to_owned(), Some(obstacles));
        if let Some(pod) = self.pods.get_mut(pod) {
            pod.listed = listed;
        }
    }

    /// A Warning of the time `at` about the Job itself.
    pub(super) fn job_warning(&mut self, at: i64, stall: Stall) {
        let reason = self.reason(stall, at, STALL_DELAY);
        self.change_job(|job| reason.into_iter().for_each(|reason| job.warn(at, reason)));
    }

    /// Records why Kueue keeps the Job suspended. It counts only while the Job is suspended.
    pub(super) fn queued(&mut self, stall: Option<Stall>) {
        self.queued = stall.map(Box::new);
    }

    /// Sets or clears the stall of the Job's condition `Suspended`.
    pub(super) fn suspended(&mut self, stall: Option<Stall>) {
        let stall = stall.map(|own| self.queued.as_deref().cloned().unwrap_or(own));
        let reason = stall.and_then(|stall| self.reason(stall, i64::MAX, STALL_DELAY));
        self.change_job(|job| job.status = reason);
    }

    /// A list of the pods begins.
    pub(super) fn pods_listing(&mut self) {
        self.pods.values_mut().for_each(|pod| pod.listed = false);
    }

    /// The list of the pods is complete. A pod that it lacks is deleted.
    pub(super) fn pods_listed(&mut self) {
        let missing = self.pods.iter().filter(|(_, pod)| !pod.listed).map(|(uid, _)| uid.clone());
        for uid in missing.collect::<Vec<_>>() {
            self.leave(&uid);
        }
    }

    pub(super) fn forget_published(&mut self) {
        self.published.clear();
    }

    /// The stall to publish now.
    pub(super) fn next(&self) -> Option<Stall> {
        let unpublished = self.due().filter(|(reason, _)| !self.published.contains(*reason));
        unpublished
            .min_by_key(|(reason, state)| (Reverse(state.current), *reason))
            .map(|(_, r)| r.stall.clone())
    }

    pub(super) fn mark_published(&mut self, stall: &Stall) {
        self.published.insert(reason_group(&stall.reason).to_owned());
    }

    /// The token and the duration of each timer to start. Returned once per timer.
    pub(super) fn take_timers(&mut self) -> Vec<(u64, Duration)> {
        if self.running > 0 {
            return Vec::new();
        }
        let wanted = |reason: &&mut Reason| reason.current > 0 && !reason.due && !reason.timer_started;
        let start = |reason: &mut Reason| {
            reason.timer_started = true;
            (reason.token, reason.next_timer())
        };
        self.reasons.values_mut().filter(wanted).map(start).collect()
    }

    pub(super) fn timer_expired(&mut self, token: u64) {
        for reason in self.reasons.values_mut().filter(|reason| reason.token == token) {
            reason.left = reason.left.saturating_sub(reason.next_timer());
            (reason.due, reason.timer_started) = (reason.left.is_zero(), false);
        }
    }

    /// The stall that explains why no pod has run. A Warning about the Job that is not older than
    /// the Job's end, `finished`, only announces the end.
    pub(super) fn explanation(&self, finished: Option<i64>) -> Option<&Stall> {
        let announces = |reason: &str, state: &Reason| {
            state.current == 1 && finished.is_some_and(|at| self.job.has_warning_since(reason, at))
        };
        let current = self.due().filter(|(reason, state)| !announces(reason, state));
        let first = current.min_by_key(|(reason, state)| (Reverse(state.current), *reason));
        let last = self.last.as_ref().filter(|_| self.running == 0);
        first.map(|(_, state)| &state.stall).or(last)
    }

    /// The current reasons that have lasted for their delay. There is none while a pod runs.
    fn due(&self) -> impl Iterator<Item = (&str, &Reason)> {
        let running = self.running > 0;
        let due = move |reason: &Reason| !running && reason.due && reason.current > 0;
        self.reasons
            .iter()
            .filter(move |(_, state)| due(state))
            .map(|(reason, state)| (reason.as_str(), state))
    }

    /// A pod has run: every stall is resolved, and may be published again.
    fn has_run(&mut self) {
        self.published.clear();
        self.last = None;
    }

    /// Drops the Warnings about the Job from before this pod was created.
    fn pod_exists(&mut self, created: i64) {
        self.change_job(|job| job.advance(created));
    }

    /// Removes a pod that does not start any more, and keeps its stall for the outcome.
    fn leave(&mut self, pod: &str) {
        if let Some(obstacles) = self.pods.get(pod).and_then(|pod| pod.obstacles.as_ref()) {
            let reasons = obstacles.current().filter_map(|reason| self.reasons.get(reason));
            let stall = reasons.filter(|reason| reason.due).map(|reason| reason.stall.clone()).next();
            self.last = stall.or(self.last.take());
        }
        self.remove(pod);
        self.drop_unused();
    }

    fn remove(&mut self, pod: &str) -> Option<Pod> {
        let removed = self.pods.remove(pod)?;
        match &removed.obstacles {
            Some(obstacles) => count(&mut self.reasons, obstacles, usize::saturating_sub),
            None => self.running = self.running.saturating_sub(1),
        }
        Some(removed)
    }

    fn insert(&mut self, pod: String, obstacles: Option<Obstacles>) {
        match &obstacles {
            Some(obstacles) => count(&mut self.reasons, obstacles, usize::saturating_add),
            None => self.running += 1,
        }
        self.pods.insert(pod, Pod { listed: true, obstacles });
        self.drop_unused();
    }

    fn change_job(&mut self, change: impl FnOnce(&mut Obstacles)) {
        count(&mut self.reasons, &self.job, usize::saturating_sub);
        change(&mut self.job);
        count(&mut self.reasons, &self.job, usize::saturating_add);
        self.drop_unused();
    }

    /// Drops unused reasons. A reason that stops being current starts its delay again later.
    fn drop_unused(&mut self) {
        self.reasons.retain(|_, reason| reason.held > 0);
        for reason in self.reasons.values_mut() {
            let is_new = !reason.timer_started && !reason.due && reason.left == reason.delay;
            if (self.running > 0 || reason.current == 0) && !is_new {
                self.next_token += 1;
                (reason.token, reason.timer_started) = (self.next_token, false);
                (reason.due, reason.left) = (false, reason.delay);
            }
        }
        for reason in self.reasons.values_mut() {
            let immediate = IMMEDIATE_REASONS.contains(&reason.stall.reason.as_str());
            reason.due |= immediate && self.running == 0 && reason.current > 0;
        }
    }

    /// Keeps the newest text of a reason. Returns its reason; `None` if the Job has too many reasons.
    fn reason(&mut self, stall: Stall, at: i64, delay: Duration) -> Option<String> {
        let group = reason_group(&stall.reason).to_owned();
        if let Some(reason) = self.reasons.get_mut(&group) {
            if at >= reason.at {
                (reason.stall, reason.at) = (stall, at);
            }
            return Some(group);
        }
        if self.reasons.len() >= MAX_REASONS {
            return None;
        }
        self.next_token += 1;
        let (token, timer_started, due) = (self.next_token, false, false);
        let reason = Reason { stall, at, delay, left: delay, held: 0, current: 0, token, timer_started, due };
        self.reasons.insert(group.clone(), reason);
        Some(group)
    }
}

/// Adds the obstacles of an object to the counts of its reasons, or subtracts them.
fn count(reasons: &mut SmallMap<String, Reason>, obstacles: &Obstacles, change: fn(usize, usize) -> usize) {
    for name in obstacles.all() {
        if let Some(reason) = reasons.get_mut(name) {
            reason.held = change(reason.held, 1);
        }
    }
    for name in obstacles.current() {
        if let Some(reason) = reasons.get_mut(name) {
            reason.current = change(reason.current, 1);
        }
    }
}

/// Treats `ImagePullBackOff` as `ErrImagePull`: the kubelet alternates between the two for hours.
fn reason_group(reason: &str) -> &str {
    if reason == "ImagePullBackOff" { "ErrImagePull" } else { reason }
}

#[cfg(test)]
mod tests;
