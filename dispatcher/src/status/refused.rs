//! Jobs with a change that Kubernetes refused. Each is observed again after a growing delay.

use std::{collections::HashMap, sync::Arc, time::Duration};

use dispatcher_core::{
    contract::job::JobState,
    request::change_error::refusal_delay,
    status::{SubjectKey, SubjectState, subject_queue::ActionResult},
};
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::sleep;

/// The end of an action.
#[derive(Debug)]
pub(super) struct Completion {
    /// The result.
    pub result: ActionResult,
    /// The uid of the Job that Kubernetes changed or verified.
    pub made: Option<String>,
    /// A state of the Job that the action read. The watch does not deliver it.
    pub observed: Option<JobState>,
    /// The Job with a change that Kubernetes refused.
    pub refused: Option<RefusedJob>,
}

impl From<ActionResult> for Completion {
    fn from(result: ActionResult) -> Self {
        Self { result, made: None, observed: None, refused: None }
    }
}

impl Completion {
    /// A change or a verification of this Job.
    pub(super) fn made(result: ActionResult, job: &JobState) -> Self {
        Self { made: Some(job.uid.clone()), ..result.into() }
    }

    /// A refused change. `observed` is a newer state of the Job.
    pub(super) fn refused(refused: RefusedJob, observed: Option<JobState>) -> Self {
        Self { observed, refused: Some(refused), ..ActionResult::Refused.into() }
    }
}

/// A Job with a change that Kubernetes refused.
#[derive(Debug)]
pub(super) struct RefusedJob {
    /// The Job, as it was observed.
    pub job: Arc<JobState>,
    /// The state of its subject.
    pub subject: SubjectState,
    /// The longest delay of the next try.
    pub max_delay: Duration,
}

/// Jobs that wait for their next try, at most one entry per existing Job.
#[derive(Default)]
pub(super) struct RefusedJobs {
    /// By the uid of the Job.
    refusals: HashMap<String, Refusals>,
    waiting: FuturesUnordered<BoxFuture<'static, (SubjectKey, RefusedJob)>>,
}

#[derive(Default)]
struct Refusals {
    count: u32,
    waits: bool,
}

impl RefusedJobs {
    /// Adds a refusal. [`Self::next`] returns the Job after a delay.
    pub(super) fn add(&mut self, key: SubjectKey, refused: RefusedJob) {
        let refusals = self.refusals.entry(refused.job.uid.clone()).or_default();
        refusals.count = refusals.count.saturating_add(1);
        // A resync observes the Job as well.
        if !std::mem::replace(&mut refusals.waits, true) {
            let delay = refusal_delay(refusals.count).min(refused.max_delay);
            self.waiting.push(Box::pin(async move {
                sleep(delay).await;
                (key, refused)
            }));
        }
    }

    /// Forgets the refusals of a Job: the change is made, or the Job is deleted.
    pub(super) fn remove(&mut self, uid: &str) {
        self.refusals.remove(uid);
    }

    /// Forgets all: the next leader observes the Jobs.
    pub(super) fn clear(&mut self) {
        self.refusals.clear();
        self.waiting.clear();
    }

    /// The next Job that is due; `None` while none waits.
    pub(super) async fn next(&mut self) -> Option<(SubjectKey, RefusedJob)> {
        let (key, refused) = self.waiting.next().await?;
        if let Some(refusals) = self.refusals.get_mut(&refused.job.uid) {
            refusals.waits = false;
        }
        Some((key, refused))
    }
}

#[cfg(test)]
mod tests {
    use dispatcher_core::testing::a_job;
    use serde_json::json;
    use tokio::time::Instant;

    use super::*;

    fn refuse(jobs: &mut RefusedJobs, uid: &str) {
        let job = a_job(uid, 1, json!({}));
        let key = (job.template.clone(), job.name.clone());
        jobs.add(
            key,
            RefusedJob { job: Arc::new(job), subject: SubjectState::default(), max_delay: Duration::MAX },
        );
    }

    #[tokio::test(start_paused = true)]
    async fn job_is_due_once_after_a_growing_delay() {
        let mut jobs = RefusedJobs::default();
        let mut delays = vec![];
        for _ in 0..3 {
            let start = Instant::now();
            refuse(&mut jobs, "a");
            // A resync during the wait adds no second try.
            refuse(&mut jobs, "a");
            assert_eq!(jobs.next().await.unwrap().1.job.uid, "a");
            delays.push(start.elapsed());
        }
        assert!(delays.windows(2).all(|pair| pair[0] < pair[1]), "{delays:?}");
        assert!(jobs.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn changed_job_starts_with_the_shortest_delay_again() {
        let mut jobs = RefusedJobs::default();
        for _ in 0..5 {
            refuse(&mut jobs, "a");
            jobs.next().await.unwrap();
        }
        jobs.remove("a");
        let start = Instant::now();
        refuse(&mut jobs, "a");
        jobs.next().await.unwrap();
        assert!(start.elapsed() < Duration::from_secs(2));
        refuse(&mut jobs, "a");
        jobs.clear();
        assert!(jobs.next().await.is_none());
    }
}
