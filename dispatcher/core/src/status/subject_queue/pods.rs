//! The pods of the Jobs in a queue: their events, and their part of the outcome.

use crate::{
    contract::{
        event::Outcome,
        job::{JobState, Presence},
    },
    status::{
        compact_job::CompactJob,
        pod_observation::PodState,
        pod_tracker::{Effect, JobEnd, PendingEvent, PodTracker},
        subject_queue::{EffectResult, SubjectQueue},
    },
};

/// The Jobs of one name with tracked pods: usually the current one and its successor.
const MAX_TRACKED_JOBS: usize = 4;

impl<W> SubjectQueue<W> {
    /// Records an observation of a pod of the Job with this uid. It is ignored after the outcome.
    pub fn observe_pod(&mut self, uid: String, state: PodState) {
        if self.subject.last.as_ref().is_some_and(|last| last.uid == uid && last.is_final()) {
            return;
        }
        if let Some(tracker) = self.tracker(uid) {
            tracker.observe(state);
        }
    }

    /// A list of the pods begins.
    pub fn pods_listing(&mut self) {
        self.trackers.iter_mut().for_each(|(_, tracker)| tracker.pods_listing());
    }

    /// The list of the pods is complete: the pods that it lacks are deleted.
    pub fn pods_listed(&mut self) {
        // The list has no ended pods. The watch delivers the ends of the pods of all later Jobs.
        self.pods_unseen = true;
        self.trackers.iter_mut().for_each(|(_, tracker)| tracker.pods_listed());
    }

    /// The tracker of the Job with this uid. If it is new, it may replace the oldest one.
    fn tracker(&mut self, uid: String) -> Option<&mut PodTracker> {
        let index = self.trackers.iter().position(|(tracked, _)| *tracked == uid).unwrap_or_else(|| {
            if self.trackers.len() >= MAX_TRACKED_JOBS {
                self.trackers.remove(0);
            }
            // Most names have one Job.
            self.trackers.reserve_exact(1);
            self.trackers.push((uid, PodTracker::default()));
            self.trackers.len() - 1
        });
        self.trackers.get_mut(index).map(|(_, tracker)| tracker)
    }

    /// The next event of a pod of the Job that has the last event.
    pub(super) fn pending_event(&mut self, end: JobEnd) -> Option<PendingEvent> {
        let (last, job) = (self.subject.last.as_ref()?, self.published_job.as_ref()?);
        if last.is_final() {
            return None;
        }
        let ended = if self.pods_unseen { job.pods_ended } else { 0 };
        let (uid, suspended) = (last.uid.clone(), job.suspension());
        let untracked = || !self.trackers.iter().any(|(tracked, _)| *tracked == uid);
        if suspended.is_none() && ended == 0 && untracked() {
            return None;
        }
        let tracker = self.tracker(uid)?;
        tracker.suspended(suspended);
        if end != JobEnd::Deleted {
            tracker.count_ended(ended);
        }
        tracker.next(end)
    }

    /// Adds attempts and the stall to an outcome; `None` while the outcome waits for more pods.
    pub(super) fn complete_outcome(
        &mut self,
        mut outcome: Box<Outcome>,
        job: &JobState,
        pods_listed: bool,
    ) -> Option<Box<Outcome>> {
        let pods = outcome.pods_ended();
        // The pods of a deleted Job are deleted with it, so no wait would find them.
        let present = job.presence == Presence::Present;
        if present && !pods_listed {
            return None;
        }
        let pods_unseen = self.pods_unseen;
        let tracker = self.tracker(job.uid.clone())?;
        if present && pods_unseen {
            tracker.count_ended(pods);
        }
        if present && tracker.holds_outcome(pods) {
            return None;
        }
        tracker.complete_outcome(&mut outcome, pods);
        Some(outcome)
    }

    /// Keeps the newest published state of the Job that has the last event.
    pub(super) fn remember_published(&mut self, job: &JobState) {
        let Some(last) = self.subject.last.as_ref().filter(|last| last.uid == job.uid && !last.is_final())
        else {
            return;
        };
        let published = self.published_job.as_ref();
        let newer = published.is_none_or(|published| published.resource_version <= job.resource_version);
        if newer && job.resource_version <= last.resource_version {
            self.published_job = CompactJob::new(job).map(Box::new);
        }
    }

    /// Removes and returns the effects to start, with the uid of their Job.
    ///
    /// Only the Job that has the last event has effects.
    pub fn take_effects(&mut self) -> Option<(String, Vec<Effect>)> {
        let last = self.subject.last.as_ref().filter(|last| !last.is_final())?;
        let (uid, tracker) = self.trackers.iter_mut().find(|(uid, _)| *uid == last.uid)?;
        let effects = tracker.take_effects();
        (!effects.is_empty()).then(|| (uid.clone(), effects))
    }

    /// Records the result of an effect of the Job with this uid.
    pub fn complete_effect(&mut self, uid: &str, result: EffectResult) {
        let Some((_, tracker)) = self.trackers.iter_mut().find(|(tracked, _)| tracked == uid) else {
            return;
        };
        match result {
            EffectResult::LogTail(pod, tail) => tracker.log_fetched(&pod, tail),
            EffectResult::TimerExpired(timer) => tracker.timer_expired(&timer),
            EffectResult::EndedPods(pods) => tracker.ended_listed(pods),
        }
    }
}
