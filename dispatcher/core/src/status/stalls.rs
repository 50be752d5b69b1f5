//! Decides why no pod of a Job runs, and when to publish it as a `STALLED` event.
//!
//! Each reason is published once until a pod of the Job has run. A reason that often resolves
//! within moments (no free node, an exhausted quota, a volume not attached yet) is published after
//! it has lasted for [`STALL_DELAY`].

use std::{collections::BTreeSet, time::Duration};

use crate::contract::event::Stall;

/// How long a reason that may resolve itself has to last before it is published.
const STALL_DELAY: Duration = Duration::from_secs(5);

/// The reasons of Kubernetes that do not resolve without intervention.
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

/// The object that reports a stall.
#[derive(Debug, Clone, PartialEq, Eq)]
enum StallSource {
    /// The pod with this uid.
    Pod(String),
    /// A Kubernetes Event of this time.
    Event(i64),
    /// The `Suspended` condition of the Job.
    Job,
}

#[derive(Debug)]
struct Current {
    stall: Stall,
    source: StallSource,
    /// Identifies the timer of this stall.
    token: u64,
    timer_started: bool,
    due: bool,
}

/// The current stall of one Job, and the stalls that are already published.
#[derive(Debug, Default)]
pub(super) struct StallTracker {
    current: Option<Current>,
    published: BTreeSet<String>,
    running: BTreeSet<String>,
    /// When the newest pod was created. A Kubernetes Event from before is outdated.
    newest_pod: i64,
    next_token: u64,
}

impl StallTracker {
    pub(super) fn pod_waiting(&mut self, pod: String, created: i64, stall: Option<Stall>) {
        self.pod_exists(created);
        let source = StallSource::Pod(pod);
        match stall {
            Some(stall) => self.set(stall, source),
            None => self.clear(&source),
        }
    }

    pub(super) fn pod_running(&mut self, pod: String, created: i64) {
        self.pod_exists(created);
        self.clear(&StallSource::Pod(pod.clone()));
        if self.current.as_ref().is_some_and(|current| !matches!(current.source, StallSource::Pod(_))) {
            self.current = None;
        }
        self.published.clear();
        self.running.insert(pod);
    }

    pub(super) fn pod_ended(&mut self, pod: &str, created: i64, ran: bool) {
        self.pod_exists(created);
        self.running.remove(pod);
        // The stall of a pod that never ran stays: it explains the outcome.
        if ran {
            self.clear(&StallSource::Pod(pod.to_owned()));
            self.published.clear();
        }
    }

    /// A Kubernetes Event of the time `at` reports that a pod cannot be created or cannot start.
    pub(super) fn pod_refused(&mut self, at: i64, stall: Stall) {
        if self.running.is_empty() && at >= self.newest_pod {
            self.set(stall, StallSource::Event(at));
        }
    }

    /// Sets or clears the stall of the Job's own condition.
    pub(super) fn suspended(&mut self, stall: Option<Stall>) {
        match stall {
            Some(stall) => self.set(stall, StallSource::Job),
            None => self.clear(&StallSource::Job),
        }
    }

    pub(super) fn forget_running(&mut self) {
        self.running.clear();
    }

    pub(super) fn forget_published(&mut self) {
        self.published.clear();
    }

    /// The stall to publish now.
    pub(super) fn next(&self) -> Option<Stall> {
        self.active().filter(|stall| !self.published.contains(reason_group(&stall.reason))).cloned()
    }

    pub(super) fn mark_published(&mut self, stall: &Stall) {
        self.published.insert(reason_group(&stall.reason).to_owned());
    }

    /// The token and the duration of the timer that the current stall needs. Returned once per
    /// stall.
    pub(super) fn take_timer(&mut self) -> Option<(u64, Duration)> {
        let current = self.current.as_mut().filter(|current| !current.due && !current.timer_started)?;
        current.timer_started = true;
        Some((current.token, STALL_DELAY))
    }

    pub(super) fn timer_expired(&mut self, token: u64) {
        if let Some(current) = self.current.as_mut().filter(|current| current.token == token) {
            current.due = true;
        }
    }

    /// The stall that keeps the Job's pods from running, once it is due.
    pub(super) fn active(&self) -> Option<&Stall> {
        let current = self.current.as_ref().filter(|current| current.due && self.running.is_empty())?;
        Some(&current.stall)
    }

    /// Drops a stall that a Kubernetes Event reported before this pod was created.
    fn pod_exists(&mut self, created: i64) {
        self.newest_pod = self.newest_pod.max(created);
        let newest = self.newest_pod;
        let outdated = |current: &Current| matches!(current.source, StallSource::Event(at) if at < newest);
        if self.current.as_ref().is_some_and(outdated) {
            self.current = None;
        }
    }

    fn set(&mut self, stall: Stall, source: StallSource) {
        let group = reason_group(&stall.reason);
        if let Some(current) = &mut self.current
            && reason_group(&current.stall.reason) == group
        {
            // The same reason again does not restart its timer.
            current.stall = stall;
            current.source = source;
            return;
        }
        self.next_token += 1;
        let due = IMMEDIATE_REASONS.contains(&stall.reason.as_str());
        self.current = Some(Current { stall, source, token: self.next_token, timer_started: false, due });
    }

    fn clear(&mut self, source: &StallSource) {
        if self.current.as_ref().is_some_and(|current| current.source == *source) {
            self.current = None;
        }
    }
}

/// Treats `ImagePullBackOff` as `ErrImagePull`: the kubelet alternates between the two for hours.
fn reason_group(reason: &str) -> &str {
    if reason == "ImagePullBackOff" { "ErrImagePull" } else { reason }
}

#[cfg(test)]
mod tests;
