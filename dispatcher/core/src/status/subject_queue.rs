//! The queue of one status subject: its last published event, the observed Jobs, and one action at a
//! time.
//!
//! The caller performs the action that [`SubjectQueue::next`] returns and passes its result to
//! [`SubjectQueue::complete`]. The caller drops the queue once [`SubjectQueue::is_idle`] returns true.

mod pods;

use std::collections::VecDeque;

use crate::{
    contract::{
        event::EventType,
        job::{JobState, Presence},
        names::RequestId,
    },
    status::{
        pod_observation::PodState,
        pod_tracker::{JobEnd, PendingEvent, PodTracker, Timer},
        reconcile::{Action, Source, reconcile},
        subject::{LastEvent, SubjectState},
    },
};

/// The maximum depth of a queue. Beyond it, a newer state of a Job replaces the last one.
const MAX_DEPTH: usize = 16;
/// The maximum depth of a queue once all queues together exceed [`HIGH_WATERMARK`].
pub const COALESCED_DEPTH: usize = 2;
/// The size of a status from which on a queue has at most [`COALESCED_DEPTH`] states, in bytes.
const LARGE_STATUS: usize = 64 * 1024;
/// The number of Jobs in all queues together above which the caller coalesces.
///
/// This bounds the memory during a NATS outage: beyond it, each Job adds at most [`COALESCED_DEPTH`]
/// states.
pub const HIGH_WATERMARK: usize = 8192;

/// The queue of one status subject. `W` is a waiter for the first event of a Job.
#[derive(Debug)]
pub struct SubjectQueue<W> {
    subject: SubjectState,
    /// The observed Jobs. The first one is next, or has an action in flight.
    pending: VecDeque<(JobState, Source)>,
    /// Created Jobs that wait for the outcome of the previous Job. If the watch is down, it may never
    /// observe them.
    deferred: VecDeque<JobState>,
    action_in_flight: bool,
    /// Waiters by the uid of their Job.
    waiters: Vec<(String, W)>,
    /// The pods of each Job, by the uid of the Job.
    trackers: Vec<(String, PodTracker)>,
    /// Whether pods of the queued Jobs may have ended before the watch of the pods began.
    pods_unseen: bool,
    /// The published state of the Job of the last event. It goes into the events of its pods.
    published_job: Option<JobState>,
    /// The event that the action in flight publishes, if it is an event of a pod.
    event_in_flight: Option<PendingEvent>,
}

/// The result of an action.
#[derive(Debug)]
pub enum ActionResult {
    /// The event is stored. This is the new state of the subject.
    Published(SubjectState),
    /// The last message was read. This is the current state of the subject.
    Read(SubjectState),
    /// The API server was asked whether the Job is deleted.
    Verified(DeletionCheck),
    /// The Job has its TTL and its outcome label.
    Retired,
    /// The Job is the current one of its name, although the last event belongs to another Job.
    Current,
    /// Kubernetes refuses this change of this Job. The caller observes the Job again later.
    Refused,
    /// This replica lost the leadership.
    Abandoned,
}

/// Whether a Job is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeletionCheck {
    /// The Job exists.
    Exists,
    /// The Job is deleted.
    Deleted,
    /// The Job is deleted, and its cancellation was requested.
    Cancelled,
}

/// The result of an effect.
#[derive(Debug)]
pub enum EffectResult {
    /// The log tail of the pod with this uid; `None` if it is unavailable.
    LogTail(String, Option<String>),
    /// The timer expired.
    TimerExpired(Timer),
    /// The ended pods that exist.
    EndedPods(Vec<PodState>),
}

impl<W> SubjectQueue<W> {
    /// Creates a queue. An outdated `subject` costs one fenced publish and no correctness.
    #[must_use]
    pub fn new(subject: SubjectState) -> Self {
        Self {
            subject,
            pending: VecDeque::new(),
            deferred: VecDeque::new(),
            action_in_flight: false,
            waiters: Vec::new(),
            trackers: Vec::new(),
            pods_unseen: false,
            published_job: None,
            event_in_flight: None,
        }
    }

    /// Replaces the state of the subject by the result of a scan, unless an action is in flight.
    ///
    /// A lower sequence means that the scan is outdated, which costs one fenced publish, or that the
    /// stream has lost messages. In the latter case the events of pods are published again.
    pub fn update(&mut self, subject: SubjectState) {
        if !self.action_in_flight {
            if subject.sequence < self.subject.sequence {
                self.trackers.iter_mut().for_each(|(_, tracker)| tracker.forget_published());
            }
            self.replace_subject(subject);
        }
    }

    /// The number of queued Jobs, including the one with an action in flight.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pending.len() + self.deferred.len()
    }

    /// Whether no Job is queued.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The queued Job of this request, in its last state before a deletion.
    #[must_use]
    pub fn pending_job(&self, request_id: &RequestId) -> Option<JobState> {
        let jobs = self.pending.iter().map(|(job, _)| job).chain(&self.deferred);
        let job = jobs.into_iter().find(|job| job.request_id == *request_id)?;
        Some(job.clone().with_presence(Presence::Present))
    }

    /// Appends an observed Job.
    pub fn enqueue(&mut self, job: JobState, source: Source) {
        self.append(job, source, MAX_DEPTH);
    }

    /// Appends an observed Job while all queues together exceed [`HIGH_WATERMARK`].
    pub fn enqueue_coalesced(&mut self, job: JobState, source: Source) {
        self.append(job, source, COALESCED_DEPTH);
    }

    /// Appends an observed Job. Only a state from the watch replaces other states: a created Job leads
    /// to `ADDED` alone, and the watch delivers each state once.
    fn append(&mut self, job: JobState, source: Source, depth: usize) {
        if source == Source::Watch {
            let large = job.status.text().len() >= LARGE_STATUS;
            self.merge(&job, if large { COALESCED_DEPTH } else { depth });
        }
        self.pending.push_back((job, source));
    }

    /// Drops the last states of this Job that the state `newest` replaces, until the queue is shorter
    /// than `depth`.
    ///
    /// It keeps a state with a higher resourceVersion, which may hold the final condition: a resync can
    /// enqueue an older state after a watch event. It keeps a created Job, which must be published even
    /// if this replica loses the leadership, and the first state, whose action may be in flight.
    fn merge(&mut self, newest: &JobState, depth: usize) {
        let replaceable = |(job, source): &(JobState, Source)| {
            job.uid == newest.uid
                && job.resource_version <= newest.resource_version
                && !job.retired
                && *source == Source::Watch
        };
        while self.pending.len() >= depth && self.pending.back().is_some_and(replaceable) {
            self.pending.pop_back();
        }
    }

    /// Adds a waiter for the first event of the Job with this uid.
    pub fn add_waiter(&mut self, uid: String, waiter: W) {
        self.waiters.push((uid, waiter));
    }

    /// Removes and returns the waiters whose Job has an event.
    pub fn take_served(&mut self) -> Vec<W> {
        let Some(last) = &self.subject.last else { return Vec::new() };
        self.waiters.extract_if(.., |(uid, _)| *uid == last.uid).map(|(_, waiter)| waiter).collect()
    }

    /// Drops the waiters that `keep` rejects.
    pub fn retain_waiters(&mut self, keep: impl Fn(&W) -> bool) {
        self.waiters.retain(|(_, waiter)| keep(waiter));
    }

    /// Whether the Job with this uid has the last event or is pending.
    #[must_use]
    pub fn contains_job(&self, uid: &str) -> bool {
        self.subject.last.as_ref().is_some_and(|last| last.uid == uid)
            || self.pending.iter().any(|(job, _)| job.uid == uid)
    }

    /// The source of the action that is next or in flight. The events of pods come from the watch.
    #[must_use]
    pub fn next_source(&self) -> Option<Source> {
        let source = self.pending.front().map(|(_, source)| *source);
        if self.event_in_flight.is_some() { Some(Source::Watch) } else { source }
    }

    /// Drops what the watch observed: another replica is the leader now.
    ///
    /// The action in flight completes on its own, with [`ActionResult::Abandoned`].
    pub fn step_down(&mut self) {
        let mut in_flight = self.action_in_flight && self.event_in_flight.is_none();
        self.pending.retain(|(_, source)| std::mem::take(&mut in_flight) || *source == Source::Create);
        self.trackers.clear();
        self.published_job = None;
    }

    /// Starts the next action. Returns the action, its Job and the state of the subject.
    ///
    /// Returns `None` if an action is in flight or nothing is due. The outcome of a Job that exists is
    /// not due before the pods are listed.
    pub fn next(&mut self, pods_listed: bool) -> Option<(Action, JobState, SubjectState)> {
        if self.action_in_flight {
            return None;
        }
        let action = self.reconcile_first();
        let mut end = JobEnd::Unfinished;
        if let (Some(Action::Publish(EventType::Outcome, _)), Some((job, _))) =
            (&action, self.pending.front())
        {
            end = if job.presence == Presence::Present { JobEnd::Finished } else { JobEnd::Deleted };
            let job = job.clone();
            self.remember_published(job);
        }
        // The attempts of a Job precede its outcome.
        if let Some(event) = self.pending_event(end) {
            self.event_in_flight = Some(event.clone());
            self.action_in_flight = true;
            return Some((Action::PublishPending(event), self.published_job.clone()?, self.subject.clone()));
        }
        let (job, _) = self.pending.front()?.clone();
        let action = match action? {
            Action::Publish(EventType::Outcome, Some(outcome)) => {
                let outcome = self.complete_outcome(outcome, &job, pods_listed)?;
                Action::Publish(EventType::Outcome, Some(outcome))
            }
            action => action,
        };
        self.action_in_flight = true;
        Some((action, job, self.subject.clone()))
    }

    /// Returns the action of the first pending Job. Removes Jobs that need no action.
    fn reconcile_first(&mut self) -> Option<Action> {
        loop {
            self.restore_deferred();
            let (job, source) = self.pending.front()?;
            match reconcile(self.subject.last.as_ref(), job, *source) {
                // An observation of the watch behind this Job may close the previous Job. If another
                // replica is the leader, there is none, and the caller polls the stream.
                Some(Action::AwaitPrevious) if self.pending.len() > 1 => {
                    let created = self.pending.pop_front();
                    self.deferred.extend(created.map(|(job, _)| job));
                }
                None => {
                    let unchanged = self.pending.pop_front();
                    unchanged.into_iter().for_each(|(job, _)| self.remember_published(job));
                }
                action => return action,
            }
        }
    }

    /// Moves a deferred Job to the front once the previous Job is closed or no other Job is pending.
    fn restore_deferred(&mut self) {
        let Some(job) = self.deferred.front() else { return };
        let action = reconcile(self.subject.last.as_ref(), job, Source::Create);
        if action != Some(Action::AwaitPrevious) || self.pending.is_empty() {
            let job = self.deferred.pop_front();
            job.into_iter().for_each(|job| self.pending.push_front((job, Source::Create)));
        }
    }

    /// Records the result of the action in flight.
    pub fn complete(&mut self, result: ActionResult) {
        self.action_in_flight = false;
        let event = self.event_in_flight.take();
        match result {
            ActionResult::Published(subject) => {
                if let (Some(event), Some(job)) = (event, &self.published_job) {
                    let tracker = self.trackers.iter_mut().find(|(uid, _)| *uid == job.uid);
                    tracker.into_iter().for_each(|(_, tracker)| tracker.mark_published(&event));
                }
                self.set_subject(subject);
            }
            ActionResult::Read(subject) => self.set_subject(subject),
            ActionResult::Retired => {
                if let Some((job, _)) = self.pending.front_mut() {
                    job.retired = true;
                }
            }
            ActionResult::Current => {
                if let Some((job, _)) = self.pending.front_mut() {
                    job.confirmed = true;
                }
            }
            ActionResult::Verified(check @ (DeletionCheck::Deleted | DeletionCheck::Cancelled)) => {
                if let Some((job, _)) = self.pending.front_mut() {
                    job.cancelled = check == DeletionCheck::Cancelled;
                    job.confirmed = true;
                    job.presence = match job.presence {
                        Presence::DeletedUnverified => Presence::Deleted,
                        Presence::MissingUnverified => Presence::Missing,
                        other => other,
                    };
                }
            }
            // The abandoned event belongs to a pod, so the first Job stays.
            ActionResult::Abandoned if event.is_some() => {}
            ActionResult::Verified(DeletionCheck::Exists)
            | ActionResult::Refused
            | ActionResult::Abandoned => {
                self.pending.pop_front();
            }
        }
    }

    fn set_subject(&mut self, subject: SubjectState) {
        if let Some(last) = subject.last.as_ref().filter(|last| last.is_final()) {
            self.trackers.retain(|(uid, _)| *uid != last.uid);
            self.published_job = None;
        }
        self.replace_subject(subject);
    }

    /// If another Job has the last event now, a new GET decides about the queued Jobs.
    fn replace_subject(&mut self, subject: SubjectState) {
        let uid = |subject: &SubjectState| subject.last.as_ref().map(|last| last.uid.clone());
        if uid(&subject) != uid(&self.subject) {
            let pending = self.pending.iter_mut().map(|(job, _)| job);
            pending.chain(&mut self.deferred).for_each(|job| job.confirmed = false);
        }
        self.subject = subject;
    }

    /// Whether the queue can be dropped: no action, no Job, no waiter and, if this replica `leads`, no
    /// outcome outstanding.
    #[must_use]
    pub fn is_idle(&self, leads: bool) -> bool {
        let closed = !leads || self.subject.last.as_ref().is_none_or(LastEvent::is_final);
        !self.action_in_flight && self.is_empty() && self.waiters.is_empty() && closed
    }
}

#[cfg(test)]
mod tests;
