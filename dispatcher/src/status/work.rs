//! The writer's I/O: each piece is retried until it is known how it ended; nothing here decides what to say.

use std::{sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use time::{OffsetDateTime, macros::format_description};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{
    Cluster,
    lane::Done,
    store::{Known, Last, Store, StoreError},
};
use crate::{
    contract::{
        event::{EventType, Outcome, StatusEvent},
        job::JobState,
    },
    health::Room,
    status::phase::{Said, resource_version},
};

/// Bytes of events in flight; one event counts for at least [`SMALLEST`], so at most 256 are.
const IN_FLIGHT: usize = 8 * 1024 * 1024;
const SMALLEST: usize = 32 * 1024;
/// Calls to Kubernetes under way.
const CALLS: usize = 32;

/// See the module.
pub(super) struct Work {
    store: Store,
    cluster: Arc<dyn Cluster>,
    health: Room,
    in_flight: Semaphore,
    calls: Semaphore,
}

/// Delays between tries: 100 ms to 10 s, with jitter, without end; every try has its own deadline.
pub(crate) fn backoff() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(10))
        .with_jitter()
        .without_max_times()
        .build()
}

/// Now, in RFC 3339 with milliseconds, UTC.
pub(crate) fn now() -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    OffsetDateTime::now_utc().format(format).unwrap_or_default()
}

async fn permit(semaphore: &Semaphore, n: usize) -> Option<SemaphorePermit<'_>> {
    // Closed never; and a wrong bound is better than a Job that is not spoken of.
    semaphore.acquire_many(u32::try_from(n).unwrap_or(u32::MAX)).await.ok()
}

impl Work {
    pub(super) fn new(store: Store, cluster: Arc<dyn Cluster>, health: Room) -> Self {
        let (in_flight, calls) = (Semaphore::new(IN_FLIGHT), Semaphore::new(CALLS));
        Self { store, cluster, health, in_flight, calls }
    }

    /// Publishes one event under the fence; after an error or no answer the subject's last message tells what is so.
    pub(super) async fn say(
        &self,
        state: JobState,
        known: Known,
        event: EventType,
        outcome: Option<Box<Outcome>>,
    ) -> Done {
        let said = Said {
            uid: state.uid.clone(),
            resource_version: resource_version(known.said.as_ref(), &state),
            event,
        };
        let message = StatusEvent {
            event,
            kind: state.kind.clone(),
            name: state.name.clone(),
            namespace: state.namespace.clone(),
            uid: state.uid.clone(),
            request_id: state.request_id.clone(),
            request_seq: state.request_seq,
            resource_version: said.resource_version.to_string(),
            time: now(),
            status: state.status.clone(),
            outcome: outcome.map(|outcome| *outcome),
        };
        let weight = message.status.to_string().len().clamp(SMALLEST, IN_FLIGHT);
        let stored = {
            let _permit = permit(&self.in_flight, weight).await;
            self.store.publish(&message, &state.request_hash, known.sequence).await
        };
        match stored {
            Ok(sequence) => {
                self.health.ready();
                log(&message);
                Done::Known(Known { sequence, said: Some(said) })
            }
            Err(error) => {
                if !matches!(error, StoreError::Fenced) {
                    self.health.not_ready(error.to_string());
                }
                Done::Known(self.last(&state).await.0)
            }
        }
    }

    /// Says `Deleted` of the Job that the last message tells of: another one has its name now.
    pub(super) async fn close_earlier(&self, state: &JobState) -> Done {
        match self.last(state).await {
            (known, Some(Last { request_hash, event, .. }))
                if known.said.as_ref().is_some_and(|s| !s.is_final() && s.uid != state.uid) =>
            {
                let earlier = JobState::missing(event, request_hash.unwrap_or_default());
                let outcome = earlier.outcome().unwrap_or_else(|| earlier.outcome_deleted());
                self.say(earlier, known, EventType::Outcome, Some(Box::new(outcome))).await
            }
            (known, _) => Done::Known(known),
        }
    }

    /// The last message of the subject, however long it takes to learn it.
    async fn last(&self, state: &JobState) -> (Known, Option<Last>) {
        for delay in backoff() {
            match self.store.last(&state.kind, &state.name).await {
                Ok(last) => {
                    self.health.ready();
                    return (last.as_ref().map_or_else(Known::default, |last| last.known.clone()), last);
                }
                // It tells nothing, and still is the last one: the fence counts it.
                Err(StoreError::Foreign(sequence)) => return (Known { sequence, said: None }, None),
                Err(error) => self.health.not_ready(error.to_string()),
            }
            tokio::time::sleep(delay).await;
        }
        (Known::default(), None)
    }

    pub(super) async fn verify(&self, state: &JobState) -> Done {
        let _permit = permit(&self.calls, 1).await;
        for delay in backoff() {
            match self.cluster.is_gone(state).await {
                Ok(gone) => return Done::Verified(gone),
                Err(error) => tracing::debug!(job = %state.name, error, "cannot see whether the Job is gone"),
            }
            tokio::time::sleep(delay).await;
        }
        Done::Verified(false)
    }

    pub(super) async fn settle(&self, state: &JobState) -> Done {
        let _permit = permit(&self.calls, 1).await;
        for delay in backoff() {
            match self.cluster.settle(state).await {
                Ok(()) => break,
                Err(error) => tracing::debug!(job = %state.name, error, "cannot settle the Job yet"),
            }
            tokio::time::sleep(delay).await;
        }
        Done::Settled
    }
}

/// The lines of the ancestor: one for each change, one for the end.
fn log(event: &StatusEvent) {
    let (kind, job, uid) = (event.kind.as_ref(), event.name.as_ref(), event.uid.as_str());
    let (event_type, status) = (event.event.as_str(), event.status.to_string());
    match &event.outcome {
        None => tracing::info!(
            kind,
            job,
            uid,
            event = event_type,
            "Job \"{job}\" status responded by watcher: {status}"
        ),
        Some(outcome) => tracing::info!(
            kind,
            job,
            uid,
            event = event_type,
            result = %outcome.result,
            reason = outcome.reason.as_deref().unwrap_or_default(),
            "Watching is over gracefully."
        ),
    }
}
