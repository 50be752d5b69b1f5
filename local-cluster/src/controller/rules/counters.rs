//! The counters of a Job's status, and its final condition.

use std::collections::HashSet;

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time};

use super::{MAX_PODS_PER_SYNC, SyncContext, count, counts_as_failed, indexes, plan::Plan, tracked};
use crate::controller::{
    conditions::{self, JobResult},
    events::Note,
    pods,
};

impl SyncContext<'_> {
    /// Counts the pods whose finalizer is removed, and lists newly ended pods as uncounted.
    pub(super) fn count_terminated(&mut self) {
        let tracked_uids: HashSet<&str> = tracked(self.pods).map(pods::uid).collect();
        let counted = drop_untracked(&mut self.uncounted.succeeded, &tracked_uids);
        self.status.succeeded = non_zero(self.status.succeeded.unwrap_or(0) + counted);
        let counted = drop_untracked(&mut self.uncounted.failed, &tracked_uids);
        self.status.failed = non_zero(self.status.failed.unwrap_or(0) + counted);
        for pod in tracked(self.pods) {
            if self.uncounted() >= MAX_PODS_PER_SYNC {
                break;
            }
            self.count_pod(pod);
        }
        if self.spec.indexed {
            self.status.succeeded = non_zero(count(&self.completed));
            let text = indexes::format(&self.completed);
            self.status.completed_indexes = (!text.is_empty()).then_some(text);
        }
    }

    fn count_pod(&mut self, pod: &Pod) {
        let (succeeded, failed) = (pods::has_succeeded(pod), counts_as_failed(pod, self.spec));
        let deleting = self.job.metadata.deletion_timestamp.is_some();
        if !(succeeded || failed || deleting || self.result.is_some()) {
            return;
        }
        self.plan.release.push(pods::name(pod).to_owned());
        let has_failed = self.result.as_ref().is_some_and(|result| !result.success);
        let list = match succeeded {
            true if self.spec.indexed => return,
            true => &mut self.uncounted.succeeded,
            // When a Job fails, every pod that is still running counts as failed.
            false if failed || has_failed => &mut self.uncounted.failed,
            false => return,
        };
        let uid = pods::uid(pod);
        if !list.iter().flatten().any(|known| known == uid) {
            list.get_or_insert_default().push(uid.to_owned());
        }
    }

    fn uncounted(&self) -> usize {
        self.uncounted.succeeded.iter().chain(&self.uncounted.failed).map(Vec::len).sum()
    }

    /// Builds the status. The final condition waits until every pod has ended and is counted.
    pub(super) fn finish(mut self) -> Plan {
        if let Some(result) = self.result.take() {
            let cause = (result.reason.as_str(), result.message.as_str());
            let announced = JobResult::from_interim(&self.status).is_some();
            conditions::set(&mut self.status, result.interim_condition(), true, cause, self.now);
            let all_counted = self.uncounted() == 0 && self.plan.release.is_empty() && self.terminating == 0;
            if announced && all_counted {
                conditions::set(&mut self.status, result.final_condition(), true, cause, self.now);
                self.status.completion_time = result.success.then_some(Time(self.now));
                self.plan.notes.push(match result.success {
                    true => Note::normal("Completed", "Job completed"),
                    false => Note::warning(&result.reason, &result.message),
                });
            }
        }
        self.status.active = non_zero(self.active);
        self.status.ready = Some(self.ready);
        self.status.terminating = Some(self.terminating);
        self.status.uncounted_terminated_pods = Some(self.uncounted);
        let is_current = self.job.status.as_ref() == Some(&self.status);
        self.plan.status = (!is_current).then_some(self.status);
        self.plan
    }
}

/// Removes the uids of pods without the finalizer, and returns their number.
fn drop_untracked(uids: &mut Option<Vec<String>>, tracked: &HashSet<&str>) -> i32 {
    let Some(list) = uids else {
        return 0;
    };
    let before = list.len();
    list.retain(|uid| tracked.contains(uid.as_str()));
    let counted = count(0..before - list.len());
    if list.is_empty() {
        *uids = None;
    }
    counted
}

/// Kubernetes omits these fields if they are zero.
fn non_zero(number: i32) -> Option<i32> {
    (number != 0).then_some(number)
}
