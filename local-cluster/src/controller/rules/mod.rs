//! The Job controller's rules: a Job, its pods and the time in; what to do out. Nothing here waits or keeps anything.
//!
//! They follow `syncJob` of Kubernetes 1.37 step by step, with one change: what that function writes in two updates,
//! around the removal of the pods' finalizers, are two rounds here. The second finds the pods let go of, and counts them.

mod counters;
mod decide;
#[cfg(test)]
mod model;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use k8s_openapi::{
    api::{
        batch::v1::{Job, JobStatus, UncountedTerminatedPods},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

use super::{
    conditions::{self, JobResult},
    indexes,
    plan::Plan,
    pods,
    spec::Spec,
};

/// No more pods are created or deleted, and no more ends kept uncounted, in one round.
const MAX_PODS_PER_SYNC: usize = 500;

/// What is to be done for `job` now. `pods` are those that it controls; `time_scale` shortens the back-off.
pub(super) fn reconcile(job: &Job, pods: &[Pod], now: Timestamp, time_scale: f64) -> Plan {
    let spec = Spec::of(job);
    if spec.managed_elsewhere {
        return Plan::default();
    }
    if conditions::is_finished(job) {
        return Plan {
            release: tracked(pods).map(|pod| pods::name(pod).to_owned()).collect(),
            ..Plan::default()
        };
    }
    let mut round = SyncContext::new(job, &spec, pods, now, time_scale);
    round.decide();
    round.count_terminated();
    round.finish()
}

fn tracked(pods: &[Pod]) -> impl Iterator<Item = &Pod> {
    pods.iter().filter(|pod| pods::is_tracked(pod))
}

/// One round: what was found, what is decided, and the status as it shall be.
struct SyncContext<'a> {
    job: &'a Job,
    spec: &'a Spec,
    pods: &'a [Pod],
    now: Timestamp,
    time_scale: f64,
    status: JobStatus,
    uncounted: UncountedTerminatedPods,
    active: i32,
    ready: i32,
    terminating: i32,
    succeeded: i32,
    failed: i32,
    /// The indexes that have a success, counted or not.
    completed: BTreeSet<i32>,
    result: Option<JobResult>,
    plan: Plan,
}

impl<'a> SyncContext<'a> {
    fn new(job: &'a Job, spec: &'a Spec, pods: &'a [Pod], now: Timestamp, time_scale: f64) -> Self {
        let mut status = job.status.clone().unwrap_or_default();
        let uncounted = status.uncounted_terminated_pods.take().unwrap_or_default();
        if status.start_time.is_none() && !spec.suspended {
            status.start_time = Some(Time(now));
        }
        let new = |uids: &Option<Vec<String>>, ended: &dyn Fn(&Pod) -> bool| {
            let known = uids.as_deref().unwrap_or_default();
            let fresh =
                tracked(pods).filter(|pod| ended(pod) && !known.iter().any(|uid| uid == pods::uid(pod)));
            count(fresh) + count(known)
        };
        let completions = spec.completions.unwrap_or(0);
        let mut completed = BTreeSet::new();
        if spec.indexed {
            completed = indexes::parse(status.completed_indexes.as_deref().unwrap_or_default(), completions);
            let ended = tracked(pods).filter(|pod| pods::has_succeeded(pod)).filter_map(pods::index);
            completed.extend(ended.filter(|index| (0..completions).contains(index)));
        }
        Self {
            active: count(pods.iter().filter(|pod| pods::is_active(pod))),
            ready: count(pods.iter().filter(|pod| pods::is_active(pod) && pods::is_ready(pod))),
            terminating: count(pods.iter().filter(|pod| pods::is_terminating(pod))),
            succeeded: match spec.indexed {
                true => count(&completed),
                false => status.succeeded.unwrap_or(0) + new(&uncounted.succeeded, &pods::has_succeeded),
            },
            failed: status.failed.unwrap_or(0) + new(&uncounted.failed, &|pod| counts_as_failed(pod, spec)),
            result: JobResult::from_interim(&status),
            plan: Plan::default(),
            job,
            spec,
            pods,
            now,
            time_scale,
            status,
            uncounted,
            completed,
        }
    }

    fn requeue_by(&mut self, time: Timestamp) {
        let earlier = self.plan.requeue_at.is_none_or(|planned| time < planned);
        if earlier {
            self.plan.requeue_at = Some(time);
        }
    }
}

/// A pod that somebody deletes has failed too, unless the Job waits for its end.
fn counts_as_failed(pod: &Pod, spec: &Spec) -> bool {
    pods::has_failed(pod)
        || (pods::is_deleting(pod) && !pods::has_succeeded(pod) && !spec.replaces_failed_only)
}

fn count(items: impl IntoIterator) -> i32 {
    i32::try_from(items.into_iter().count()).unwrap_or(i32::MAX)
}
