//! The counters of a Job's status, and its last condition.

use std::collections::HashSet;

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time};

use super::{MAX_PODS_PER_SYNC, SyncContext, count, counts_as_failed, tracked};
use crate::controller::{
    conditions::{self, JobResult},
    events::Note,
    indexes,
    plan::Plan,
    pods,
};

impl SyncContext<'_> {
    /// Counts the pods that were let go of, and writes down those that have ended since, to be let go of.
    pub(super) fn count_terminated(&mut self) {
        let held: HashSet<&str> = tracked(self.pods).map(pods::uid).collect();
        let counted = drop_untracked(&mut self.uncounted.succeeded, &held);
        self.status.succeeded = non_zero(self.status.succeeded.unwrap_or(0) + counted);
        let counted = drop_untracked(&mut self.uncounted.failed, &held);
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
        let lost = self.result.as_ref().is_some_and(|result| !result.success);
        let list = match succeeded {
            true if self.spec.indexed => return,
            true => &mut self.uncounted.succeeded,
            // At the end of a failed Job every pod that still ran counts as failed.
            false if failed || lost => &mut self.uncounted.failed,
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

    /// Puts the status together. The final condition waits until every pod has ended and is counted.
    pub(super) fn finish(mut self) -> Plan {
        if let Some(result) = self.result.take() {
            let because = (result.reason.as_str(), result.message.as_str());
            let announced = JobResult::from_interim(&self.status).is_some();
            conditions::set(&mut self.status, result.interim_condition(), true, because, self.now);
            let all_counted = self.uncounted() == 0 && self.plan.release.is_empty() && self.terminating == 0;
            if announced && all_counted {
                conditions::set(&mut self.status, result.final_condition(), true, because, self.now);
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
        let stands = self.job.status.as_ref() == Some(&self.status);
        self.plan.status = (!stands).then_some(self.status);
        self.plan
    }
}

/// Forgets the pods that are no longer held, and says how many they were.
fn drop_untracked(uids: &mut Option<Vec<String>>, held: &HashSet<&str>) -> i32 {
    let Some(list) = uids else {
        return 0;
    };
    let before = list.len();
    list.retain(|uid| held.contains(uid.as_str()));
    let counted = count(0..before - list.len());
    if list.is_empty() {
        *uids = None;
    }
    counted
}

/// Kubernetes leaves out a zero of these fields.
fn non_zero(number: i32) -> Option<i32> {
    (number != 0).then_some(number)
}
