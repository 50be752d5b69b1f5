//! The queue of one status subject: its last published event, the observed Jobs, and one action at a
//! time.
//!
//! The caller performs the action that [`SubjectQueue::next`] returns and passes its result to
//! [`SubjectQueue::complete`]. The caller drops the queue once [`SubjectQueue::is_idle`] returns true.

mod pods;

use std::{collections::VecDeque, sync::Arc};

use crate::{
    contract::{
        event::EventType,
        job::{JobState, Presence},
        names::RequestId,
    },
    status::{
        compact_job::CompactJob,
        pod_observation::PodState,
        pod_tracker::{JobEnd, PendingEvent, PodTracker, Timer},
        reconcile::{Action, Source, reconcile},
        subject::{LastEvent, SubjectState},
    },
};

/// The maximum depth of a queue. Beyond it, a newer state of a Job replaces the last one.
const MAX_DEPTH: usize = 16;
/// The maximum depth of a queue once all queues together exceed [`HIGH_WATERMARK`]: the state with the
/// action in flight, and the newest one.
pub const COALESCED_DEPTH: usize = 2;
/// The size of a status from which on a queue has at most [`COALESCED_DEPTH`] states, in bytes.
const LARGE_STATUS: usize = 64 * 1024;
/// The number of Jobs in all queues together above which the caller coalesces.
///
/// This bounds the memory during a NATS outage: beyond it, each Job adds at most [`COALESCED_DEPTH`]
/// states.
pub const HIGH_WATERMARK: usize = 8192;

/// The queue of one status subject. `W` is a waiter for the first event of a Job.
///
/// The caller keeps one for each unfinished Job, so a queue at rest has little more than the last event
/// and the published state.
#[derive(Debug)]
pub struct SubjectQueue<W> {
    subject: SubjectState,
    /// The published state of the Job of the last event. It goes into the events of its pods.
    published_job: Option<Box<CompactJob>>,
    /// The pods of each Job, by the uid of the Job.
    trackers: Vec<(String, PodTracker)>,
    /// Whether pods of the queued Jobs may have ended before the watch of the pods began.
    pods_unseen: bool,
    /// What is left to do; `None` for a queue at rest.
    work: Option<Box<Work<W>>>,
}

/// What a queue has to do.
#[derive(Debug)]
struct Work<W> {
    /// The observed Jobs. The first one is next, or has an action in flight.
    pending: VecDeque<(Arc<JobState>, Source)>,
    /// Created Jobs that wait for the outcome of the previous Job. If the watch is down, it may never
    /// observe them.
    deferred: VecDeque<Arc<JobState>>,
    action_in_flight: bool,
    /// The event that the action in flight publishes, if it is an event of a pod.
    event_in_flight: Option<PendingEvent>,
    /// Waiters by the uid of their Job.
    waiters: Vec<(String, W)>,
}

impl<W> Default for Work<W> {
    fn default() -> Self {
        Self {
            pending: VecDeque::new(),
            deferred: VecDeque::new(),
            action_in_flight: false,
            event_in_flight: None,
            waiters: Vec::new(),
        }
    }
}

impl<W> Work<W> {
    /// The first Job, unless another copy of it is in use, which is then copied.
    fn first_job(&mut self) -> Option<&mut JobState> {
        self.pending.front_mut().map(|(job, _)| Arc::make_mut(job))
    }
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
        Self { subject, published_job: None, trackers: Vec::new(), pods_unseen: false, work: None }
    }

    /// Replaces the state of the subject by the result of a scan, unless an action is in flight.
    ///
    /// A lower sequence means that the scan is outdated, which costs one fenced publish, or that the
    /// stream has lost messages. In the latter case the events of pods are published again.
    pub fn update(&mut self, subject: SubjectState) {
        if !self.action_in_flight() {
            if subject.sequence < self.subject.sequence {
                self.trackers.iter_mut().for_each(|(_, tracker)| tracker.forget_published());
            }
            self.set_subject(subject);
        }
    }

    fn action_in_flight(&self) -> bool {
        self.work.as_ref().is_some_and(|work| work.action_in_flight)
    }

    /// The number of queued Jobs, including the one with an action in flight.
    #[must_use]
    pub fn len(&self) -> usize {
        self.work.as_ref().map_or(0, |work| work.pending.len() + work.deferred.len())
    }

    /// Whether no Job is queued.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The queued Job of this request, in its last state before a deletion.
    #[must_use]
    pub fn pending_job(&self, request_id: &RequestId) -> Option<JobState> {
        let work = self.work.as_ref()?;
        let jobs = work.pending.iter().map(|(job, _)| job).chain(&work.deferred);
        let job = jobs.into_iter().find(|job| job.request_id == *request_id)?;
        Some(JobState::clone(job).with_presence(Presence::Present))
    }

    /// Appends an observed Job.
    pub fn enqueue(&mut self, job: JobState, source: Source) {
        self.append(job, source, MAX_DEPTH);
    }

    /// Appends an observed Job while all queues together exceed [`HIGH_WATERMARK`].
    pub fn enqueue_coalesced(&mut self, job: JobState, source: Source) {
        let depth = if self.action_in_flight() { COALESCED_DEPTH } else { 1 };
        self.append(job, source, depth);
    }

    /// Appends an observed Job. Only a state from the watch replaces other states: a created Job leads
    /// to `ADDED` alone, and the watch delivers each state once.
    fn append(&mut self, job: JobState, source: Source, depth: usize) {
        let work = self.work.get_or_insert_default();
        if source == Source::Watch {
            let large = job.status.text().len() >= LARGE_STATUS;
            work.merge(&job, if large { COALESCED_DEPTH } else { depth });
        }
        work.pending.push_back((Arc::new(job), source));
    }

    /// Adds a waiter for the first event of the Job with this uid.
    pub fn add_waiter(&mut self, uid: String, waiter: W) {
        self.work.get_or_insert_default().waiters.push((uid, waiter));
    }

    /// Removes and returns the waiters whose Job has an event.
    pub fn take_served(&mut self) -> Vec<W> {
        let (Some(last), Some(work)) = (&self.subject.last, &mut self.work) else { return Vec::new() };
        work.waiters.extract_if(.., |(uid, _)| *uid == last.uid).map(|(_, waiter)| waiter).collect()
    }

    /// Drops the waiters that `keep` rejects.
    pub fn retain_waiters(&mut self, keep: impl Fn(&W) -> bool) {
        self.work.iter_mut().for_each(|work| work.waiters.retain(|(_, waiter)| keep(waiter)));
    }

    /// Whether the Job with this uid has the last event or is pending.
    #[must_use]
    pub fn contains_job(&self, uid: &str) -> bool {
        let pending = || self.work.iter().flat_map(|work| &work.pending);
        self.subject.last.as_ref().is_some_and(|last| last.uid == uid)
            || pending().any(|(job, _)| job.uid == uid)
    }

    /// The source of the action that is next or in flight. The events of pods come from the watch.
    #[must_use]
    pub fn next_source(&self) -> Option<Source> {
        let work = self.work.as_ref()?;
        let source = work.pending.front().map(|(_, source)| *source);
        if work.event_in_flight.is_some() { Some(Source::Watch) } else { source }
    }

    /// Drops what the watch observed: another replica is the leader now.
    ///
    /// The action in flight completes on its own, with [`ActionResult::Abandoned`].
    pub fn step_down(&mut self) {
        if let Some(work) = &mut self.work {
            let mut in_flight = work.action_in_flight && work.event_in_flight.is_none();
            work.pending.retain(|(_, source)| std::mem::take(&mut in_flight) || *source == Source::Create);
        }
        self.trackers = Vec::new();
        self.published_job = None;
    }

    /// Starts the next action. Returns the action, its Job and the state of the subject.
    ///
    /// Returns `None` if an action is in flight or nothing is due. The outcome of a Job that exists is
    /// not due before the pods are listed.
    pub fn next(&mut self, pods_listed: bool) -> Option<(Action, Arc<JobState>, SubjectState)> {
        let next = if self.action_in_flight() { None } else { self.start_next(pods_listed) };
        self.rest();
        next
    }

    fn start_next(&mut self, pods_listed: bool) -> Option<(Action, Arc<JobState>, SubjectState)> {
        let action = self.reconcile_first();
        let job = self.work.as_ref().and_then(|work| work.pending.front()).map(|(job, _)| job.clone());
        let mut end = JobEnd::Unfinished;
        if let (Some(Action::Publish(EventType::Outcome, _)), Some(job)) = (&action, &job) {
            end = if job.presence == Presence::Present { JobEnd::Finished } else { JobEnd::Deleted };
            self.remember_published(job);
        }
        // The attempts of a Job precede its outcome.
        if let Some(event) = self.pending_event(end) {
            let job = self.published_job.as_ref()?.job()?;
            let work = self.work.get_or_insert_default();
            (work.event_in_flight, work.action_in_flight) = (Some(event.clone()), true);
            return Some((Action::PublishPending(event), Arc::new(job), self.subject.clone()));
        }
        let job = job?;
        let action = match action? {
            Action::Publish(EventType::Outcome, Some(outcome)) => {
                let outcome = self.complete_outcome(outcome, &job, pods_listed)?;
                Action::Publish(EventType::Outcome, Some(outcome))
            }
            action => action,
        };
        self.work.get_or_insert_default().action_in_flight = true;
        Some((action, job, self.subject.clone()))
    }

    /// Returns the action of the first pending Job. Removes Jobs that need no action.
    fn reconcile_first(&mut self) -> Option<Action> {
        loop {
            let work = self.work.as_mut()?;
            work.restore_deferred(self.subject.last.as_ref());
            let (job, source) = work.pending.front()?;
            match reconcile(self.subject.last.as_ref(), job, *source) {
                // An observation of the watch behind this Job may close the previous Job. If another
                // replica is the leader, there is none, and the caller polls the stream.
                Some(Action::AwaitPrevious) if work.pending.len() > 1 => {
                    let created = work.pending.pop_front();
                    work.deferred.extend(created.map(|(job, _)| job));
                }
                None => {
                    let unchanged = work.pending.pop_front();
                    unchanged.into_iter().for_each(|(job, _)| self.remember_published(&job));
                }
                action => return action,
            }
        }
    }

    /// Records the result of the action in flight.
    pub fn complete(&mut self, result: ActionResult) {
        let work = self.work.get_or_insert_default();
        work.action_in_flight = false;
        let event = work.event_in_flight.take();
        match result {
            ActionResult::Published(subject) => {
                if let (Some(event), Some(last)) = (event, &self.subject.last) {
                    let tracker = self.trackers.iter_mut().find(|(uid, _)| *uid == last.uid);
                    tracker.into_iter().for_each(|(_, tracker)| tracker.mark_published(&event));
                }
                self.set_subject(subject);
            }
            ActionResult::Read(subject) => self.set_subject(subject),
            ActionResult::Retired => work.first_job().into_iter().for_each(|job| job.retired = true),
            ActionResult::Current => work.first_job().into_iter().for_each(|job| job.confirmed = true),
            ActionResult::Verified(check @ (DeletionCheck::Deleted | DeletionCheck::Cancelled)) => {
                if let Some(job) = work.first_job() {
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
                work.pending.pop_front();
            }
        }
        self.rest();
    }

    /// Frees the memory of a queue that has nothing to do.
    fn rest(&mut self) {
        let _ = self.work.take_if(|work| {
            !work.action_in_flight
                && work.pending.is_empty()
                && work.deferred.is_empty()
                && work.waiters.is_empty()
        });
    }

    fn set_subject(&mut self, subject: SubjectState) {
        let ended = subject.last.as_ref().filter(|last| last.is_final());
        if let Some(last) = ended {
            self.trackers.retain(|(uid, _)| *uid != last.uid);
        }
        if ended.is_some() || uid(&subject) != uid(&self.subject) {
            self.published_job = None;
        }
        // If another Job has the last event now, a new GET decides about the queued Jobs.
        if let Some(work) = self.work.as_mut().filter(|_| uid(&subject) != uid(&self.subject)) {
            let queued = work.pending.iter_mut().map(|(job, _)| job).chain(&mut work.deferred);
            let confirmed = queued.filter(|job| job.confirmed);
            confirmed.for_each(|job| Arc::make_mut(job).confirmed = false);
        }
        self.subject = subject;
    }

    /// Whether the queue can be dropped: no action, no Job, no waiter and, if this replica `leads`, no
    /// outcome outstanding.
    #[must_use]
    pub fn is_idle(&self, leads: bool) -> bool {
        let closed = !leads || self.subject.last.as_ref().is_none_or(LastEvent::is_final);
        let waits = self.work.as_ref().is_some_and(|work| work.action_in_flight || !work.waiters.is_empty());
        !waits && self.is_empty() && closed
    }
}

impl<W> Work<W> {
    /// Drops the last states of this Job that the state `newest` replaces, until there are fewer than
    /// `depth`.
    ///
    /// It keeps a state with a higher resourceVersion, which may hold the final condition: a resync can
    /// enqueue an older state after a watch event. It keeps a created Job, which must be published even
    /// if this replica loses the leadership. While an action is in flight, `depth` is at least 2, which
    /// keeps the state of that action.
    fn merge(&mut self, newest: &JobState, depth: usize) {
        let replaceable = |(job, source): &(Arc<JobState>, Source)| {
            job.uid == newest.uid
                && job.resource_version <= newest.resource_version
                && !job.retired
                && *source == Source::Watch
        };
        while self.pending.len() >= depth && self.pending.back().is_some_and(replaceable) {
            self.pending.pop_back();
        }
    }

    /// Moves a deferred Job to the front once the previous Job is closed or no other Job is pending.
    fn restore_deferred(&mut self, last: Option<&LastEvent>) {
        let Some(job) = self.deferred.front() else { return };
        let action = reconcile(last, job, Source::Create);
        if action != Some(Action::AwaitPrevious) || self.pending.is_empty() {
            let job = self.deferred.pop_front();
            job.into_iter().for_each(|job| self.pending.push_front((job, Source::Create)));
        }
    }
}

/// The uid of the Job of the last event.
fn uid(subject: &SubjectState) -> Option<&str> {
    subject.last.as_ref().map(|last| last.uid.as_str())
}

#[cfg(test)]
mod tests;
