//! Whose trouble a failed publish is: that of `JOB_STATUS`, or of one subject.

use std::sync::atomic::{AtomicU64, Ordering};

use dispatcher_core::contract::job::JobState;

use crate::{
    nats::status_stream::StoreError,
    status::cluster::Cluster,
    telemetry::health::{Component, RetryGuard},
};

/// The number of failures of one publish after which the success of others counts.
const TRIES: u32 = 3;

/// The failures of the publish of one event, which is retried.
pub(super) struct PublishFailures<'a> {
    component: &'a Component,
    guard: RetryGuard<'a>,
    /// The number of events that this process has stored.
    stored: &'a AtomicU64,
    cluster: &'a dyn Cluster,
    job: &'a JobState,
    tries: u32,
    stored_before: u64,
}

impl<'a> PublishFailures<'a> {
    pub(super) fn new(
        component: &'a Component,
        stored: &'a AtomicU64,
        cluster: &'a dyn Cluster,
        job: &'a JobState,
    ) -> Self {
        let stored_before = stored.load(Ordering::Relaxed);
        Self { component, guard: component.retry_guard(), stored, cluster, job, tries: 0, stored_before }
    }

    /// Reports a failure. It is the subject's own if the stream refuses this message alone, or stores
    /// the events of other subjects meanwhile.
    pub(super) async fn failed(&mut self, error: &StoreError) {
        self.tries = self.tries.saturating_add(1);
        let others_stored = self.stored.load(Ordering::Relaxed) > self.stored_before;
        if is_own(error, self.tries, others_stored) {
            self.guard = self.component.retry_guard();
            self.cluster.report_unpublished(self.job, &error.to_string()).await;
        } else {
            self.guard.failed(error.to_string());
        }
    }

    /// Reports that the event is stored, or that nothing is left to publish.
    pub(super) fn succeeded(&mut self) {
        self.guard.succeeded();
    }
}

fn is_own(error: &StoreError, tries: u32, others_stored: bool) -> bool {
    match error {
        StoreError::TooLarge(_) | StoreError::Refused(_) => true,
        StoreError::Fenced | StoreError::Unknown(_) | StoreError::Foreign(_) => {
            tries >= TRIES && others_stored
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_is_the_subjects_own_if_other_events_are_stored_meanwhile() {
        let unknown = StoreError::Unknown("no answer".to_owned());
        for (tries, others_stored, own) in
            [(1, false, false), (1, true, false), (TRIES, false, false), (TRIES, true, true)]
        {
            assert_eq!(is_own(&unknown, tries, others_stored), own, "{tries} {others_stored}");
        }
    }

    #[test]
    fn refusal_of_one_message_is_the_subjects_own_at_once() {
        assert!(is_own(&StoreError::TooLarge("x".to_owned()), 1, false));
        assert!(is_own(&StoreError::Refused("x".to_owned()), 1, false));
    }
}
