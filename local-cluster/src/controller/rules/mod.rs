//! The rules of the Job controller: from a Job, its pods and the time to a plan. Pure.
//!
//! They follow `syncJob` of Kubernetes 1.37 step by step, with one difference. `syncJob` updates
//! the status before and after it removes the pods' finalizers; these updates are two syncs here.
//! The second one counts the pods that have lost their finalizer.

mod backoff;
mod counters;
mod decide;
mod indexes;
#[cfg(test)]
mod model;
mod plan;
#[cfg(test)]
mod properties;
mod spec;
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

use self::spec::Spec;
use super::{
    conditions::{self, JobResult},
    pods,
};

pub(super) use self::plan::{Plan, PodDeletion};

/// The limit of created, deleted and uncounted pods per sync.
const MAX_PODS_PER_SYNC: usize = 500;

/// The plan for `job` and the `pods` that it controls. `time_scale` is the factor of the back-off.
pub(super) fn reconcile(job: &Job, pods: &[Pod], now: Timestamp, time_scale: f64) -> Plan {
    let spec = Spec::from_job(job);
    if spec.managed_elsewhere {
        return Plan::default();
    }
    if conditions::is_finished(job) {
        return Plan {
            release: tracked(pods).map(|pod| pods::name(pod).to_owned()).collect(),
            ..Plan::default()
        };
    }
    let mut sync = SyncContext::new(job, &spec, pods, now, time_scale);
    sync.decide();
    sync.count_terminated();
    sync.finish()
}

fn tracked(pods: &[Pod]) -> impl Iterator<Item = &Pod> {
    pods.iter().filter(|pod| pods::is_tracked(pod))
}

/// The working state of one sync: the observed counters, the new status and the plan.
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
    /// The indexes of succeeded pods, counted or not.
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
            let uncounted =
                tracked(pods).filter(|pod| ended(pod) && !known.iter().any(|uid| uid == pods::uid(pod)));
            count(uncounted) + count(known)
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

/// Whether a pod failed. A deleted pod failed too, unless the replacement policy is `Failed`.
fn counts_as_failed(pod: &Pod, spec: &Spec) -> bool {
    pods::has_failed(pod)
        || (pods::is_deleting(pod) && !pods::has_succeeded(pod) && !spec.replaces_failed_only)
}

fn count(items: impl IntoIterator) -> i32 {
    i32::try_from(items.into_iter().count()).unwrap_or(i32::MAX)
}
