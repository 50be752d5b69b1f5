//! Decides whether a Job has finished, and which pods to create or delete.

use std::collections::HashSet;

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time};

use super::{MAX_PODS_PER_SYNC, SyncContext, backoff, count, plan::PodDeletion};
use crate::controller::{
    conditions::{self, JobResult, SUSPENDED},
    events::Note,
    pods,
};

impl SyncContext<'_> {
    /// Decides the next actions for the Job.
    ///
    /// - If the Job has a result or fails now, plans the deletion of its active pods.
    /// - Otherwise, plans which pods to delete or create, and sets the result of a complete Job.
    pub(super) fn decide(&mut self) {
        if self.result.is_none() {
            self.result = self.failure();
        }
        if self.result.is_some() {
            let active = self.pods.iter().filter(|pod| pods::is_active(pod)).collect();
            return self.delete_pods(active, false);
        }
        let deleting = self.job.metadata.deletion_timestamp.is_some();
        if !deleting {
            self.manage_pods();
        }
        let complete = match self.spec.completions {
            None => self.succeeded > 0,
            Some(completions) => self.succeeded >= completions,
        };
        if complete && self.active == 0 {
            self.result = Some(JobResult::success());
        } else if !deleting {
            self.update_suspended();
        }
    }

    fn failure(&mut self) -> Option<JobResult> {
        let limit = self.spec.backoff_limit;
        let restarts: i32 = self.pods.iter().map(pods::restarts).sum();
        // As in Kubernetes, the restart that reaches the limit fails the Job. If the limit is 0,
        // the first restart fails the Job.
        if self.failed > limit || (self.spec.restarts_on_failure && restarts >= limit.max(1)) {
            return Some(JobResult::backoff_limit());
        }
        let start = self.status.start_time.as_ref().filter(|_| !self.spec.suspended)?;
        let end = start.0.checked_add(self.spec.deadline?).ok()?;
        if self.now >= end {
            return Some(JobResult::deadline());
        }
        self.requeue_by(end);
        None
    }

    /// Plans the deletion of excess pods. If there are none, plans the creation of missing pods.
    fn manage_pods(&mut self) {
        let mut active: Vec<&Pod> = self.pods.iter().filter(|pod| pods::is_active(pod)).collect();
        active.sort_by_key(|pod| pods::progress(pod));
        let (mut excess, active) = self.split_duplicates(active);
        let surplus = usize::try_from(self.active - self.desired_active()).unwrap_or(0);
        excess.extend(active.into_iter().take(surplus.saturating_sub(excess.len())));
        if !excess.is_empty() {
            excess.truncate(MAX_PODS_PER_SYNC);
            return self.delete_pods(excess, true);
        }
        let reserved = if self.spec.replaces_failed_only { self.terminating } else { 0 };
        if let Ok(missing @ 1..) = usize::try_from(self.desired_active() - self.active - reserved) {
            self.create_pods(missing.min(MAX_PODS_PER_SYNC));
        }
    }

    /// Splits the active pods of an indexed Job into duplicates and needed pods.
    ///
    /// A pod is a duplicate if its index is completed, or if another active pod with the same index
    /// has more progress. A pod without an index also counts as a duplicate.
    fn split_duplicates<'p>(&self, mut active: Vec<&'p Pod>) -> (Vec<&'p Pod>, Vec<&'p Pod>) {
        if !self.spec.indexed {
            return (Vec::new(), active);
        }
        let mut seen = self.completed.clone();
        active.reverse();
        let (mut needed, duplicates): (Vec<&Pod>, Vec<&Pod>) =
            active.into_iter().partition(|pod| pods::index(pod).is_some_and(|index| seen.insert(index)));
        needed.reverse();
        (duplicates, needed)
    }

    /// The desired number of active pods.
    fn desired_active(&self) -> i32 {
        match self.spec.completions {
            _ if self.spec.suspended => 0,
            None if self.succeeded > 0 => self.active,
            None => self.spec.parallelism,
            Some(completions) => (completions - self.succeeded).clamp(0, self.spec.parallelism),
        }
    }

    fn create_pods(&mut self, missing: usize) {
        let earliest = backoff::earliest(self.pods, self.time_scale, self.spec.replaces_failed_only);
        if let Some(earliest) = earliest.filter(|earliest| *earliest > self.now) {
            return self.requeue_by(earliest);
        }
        if self.spec.indexed {
            let completions = self.spec.completions.unwrap_or(0);
            let taken: HashSet<i32> =
                self.pods.iter().filter(|pod| pods::is_active(pod)).filter_map(pods::index).collect();
            let free =
                (0..completions).filter(|index| !taken.contains(index) && !self.completed.contains(index));
            self.plan.create = free.take(missing).map(|index| pods::build(self.job, Some(index))).collect();
        } else {
            self.plan.create = (0..missing).map(|_| pods::build(self.job, None)).collect();
        }
        self.active += count(&self.plan.create);
    }

    fn delete_pods(&mut self, pods: Vec<&Pod>, release: bool) {
        self.active -= count(&pods);
        self.terminating += count(&pods);
        self.ready -= count(pods.iter().filter(|pod| pods::is_ready(pod)));
        self.plan.delete.extend(pods.into_iter().map(|pod| PodDeletion {
            name: pods::name(pod).to_owned(),
            uid: pods::uid(pod).to_owned(),
            release,
        }));
    }

    fn update_suspended(&mut self) {
        let suspended = self.spec.suspended;
        let (reason, message, note) = match suspended {
            true => ("JobSuspended", "Job suspended", "Suspended"),
            false => ("JobResumed", "Job resumed", "Resumed"),
        };
        if conditions::set(&mut self.status, SUSPENDED, suspended, (reason, message), self.now) {
            // The deadline counts from the last resume.
            self.status.start_time = (!suspended).then_some(Time(self.now));
            self.plan.notes.push(Note::normal(note, message));
        }
    }
}
