//! The writer's I/O: each piece is retried until it is known how it ended; nothing here decides what to say.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::clock::now;
use crate::retry::backoff;
use futures::future::BoxFuture;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::sleep,
};

use crate::status::{
    Cluster,
    store::{LastMessage, Store, StoreError},
};
use crate::telemetry::{
    health::{Component, Health},
    metrics::{Metrics, Published},
    spans::{JobSpan, Spans},
};
use dispatcher_core::status::{
    SubjectState,
    event_body::{EventBody, status_event},
    subject_queue::{ActionResult, DeletionCheck},
};
use dispatcher_core::{
    contract::{
        event::{EventType, StatusEvent},
        job::JobState,
        names::TemplateName,
    },
    status::{LastEvent, reconcile::resource_version},
};

/// Bytes of events in flight; one event counts for at least [`SMALLEST`], so at most 256 are.
const IN_FLIGHT: usize = 8 * 1024 * 1024;
const SMALLEST: usize = 32 * 1024;
/// Calls to Kubernetes under way.
const CALLS: usize = 32;

/// How often it is looked whether an earlier Job of a name is closed.
const EARLIER: Duration = Duration::from_millis(500);

/// See the module.
pub(super) struct ActionRunner {
    store: Store,
    cluster: Arc<dyn Cluster>,
    publish_health: Component,
    read_health: Component,
    verify_health: Component,
    retire_health: Component,
    in_flight: Semaphore,
    calls: Semaphore,
    metrics: Metrics,
    spans: Spans,
}

async fn permit(semaphore: &Semaphore, n: usize) -> Option<SemaphorePermit<'_>> {
    // Closed never; and a wrong bound is better than a Job that is not spoken of.
    semaphore.acquire_many(u32::try_from(n).unwrap_or(u32::MAX)).await.ok()
}

impl ActionRunner {
    pub(super) fn new(
        store: Store,
        cluster: Arc<dyn Cluster>,
        health: &Health,
        (metrics, spans): (Metrics, Spans),
    ) -> Self {
        // Each works until it is tried.
        let component = |name: &str| {
            let component = health.component(format!("status {name}"));
            component.ready();
            component
        };
        Self {
            store,
            cluster,
            publish_health: component("publish"),
            read_health: component("read"),
            verify_health: component("verify"),
            retire_health: component("retire"),
            in_flight: Semaphore::new(IN_FLIGHT),
            calls: Semaphore::new(CALLS),
            metrics,
            spans,
        }
    }

    /// The tail of a pod's log.
    pub(super) fn log_tail(
        &self,
        template: &TemplateName,
        pod: &str,
        container: &str,
    ) -> BoxFuture<'static, Option<String>> {
        self.cluster.log_tail(template, pod, container)
    }

    /// Publishes one event under the fence until it is stored, or until the subject's last message is another one than
    /// was known: then that decides what is next.
    pub(super) async fn say(&self, state: JobState, known: SubjectState, word: EventBody) -> ActionResult {
        let uid = state.uid.clone();
        let event = word.event_type();
        let said = LastEvent { uid, resource_version: resource_version(known.last.as_ref(), &state), event };
        let word = word.fitting(self.store.max_payload());
        let weight = word.size_hint(&state).clamp(SMALLEST, IN_FLIGHT);
        let time = now();
        // Made when it is its turn: of thousands of events that wait for a server none takes the memory of a message.
        let message = || status_event(&state, &said, &word, &time);
        let mut guard = self.publish_health.retry_guard();
        for delay in backoff() {
            let stored = {
                let _permit = permit(&self.in_flight, weight).await;
                Box::pin(self.publish(message(), &state, known.sequence)).await
            };
            match stored {
                Ok(sequence) => {
                    guard.succeeded();
                    self.tell_of(&state, &message());
                    return ActionResult::Published(SubjectState { sequence, last: Some(said) });
                }
                Err(StoreError::Fenced) => {}
                Err(error) => {
                    guard.failed(error.to_string());
                    // What refuses at once would be asked again at once.
                    sleep(delay).await;
                }
            }
            let (last, stored) = Box::pin(self.last(&state)).await;
            if last.sequence != known.sequence {
                guard.succeeded();
                // Stored by a try that was not answered.
                let ours = stored.map(|stored| stored.event).filter(|event| *event == message());
                if let Some(event) = &ours {
                    self.tell_of(&state, event);
                }
                let ours = ours.is_some();
                return if ours { ActionResult::Published(last) } else { ActionResult::Read(last) };
            }
        }
        ActionResult::Read(known)
    }

    /// One try.
    async fn publish(
        &self,
        message: StatusEvent,
        state: &JobState,
        expected: u64,
    ) -> Result<u64, StoreError> {
        let asked = Instant::now();
        let stored = self.store.publish(&message, state, expected).await;
        self.metrics.published(published(&stored), asked);
        stored
    }

    /// Says `Deleted` of the Job that the last message tells of: another one has its name now.
    pub(super) async fn close_earlier(&self, state: &JobState) -> ActionResult {
        match self.last(state).await {
            (known, Some(last))
                if known.last.as_ref().is_some_and(|s| !s.is_final() && s.uid != state.uid) =>
            {
                let mut earlier = last.missing();
                earlier.cancelled = self.was_cancelled(&earlier).await;
                let outcome = earlier.outcome().unwrap_or_else(|| earlier.outcome_deleted());
                self.say(earlier, known, EventBody::Job(EventType::Outcome, Some(Box::new(outcome)))).await
            }
            (known, _) => ActionResult::Read(known),
        }
    }

    /// What is known of the subject a moment later.
    pub(super) async fn await_earlier(&self, state: &JobState) -> ActionResult {
        sleep(EARLIER).await;
        ActionResult::Read(self.last(state).await.0)
    }

    /// The last message of the subject, however long it takes to learn it.
    async fn last(&self, state: &JobState) -> (SubjectState, Option<LastMessage>) {
        let mut guard = self.read_health.retry_guard();
        for delay in backoff() {
            match self.store.last(&state.template, &state.name).await {
                Ok(last) => {
                    guard.succeeded();
                    return (
                        last.as_ref().map_or_else(SubjectState::default, |last| last.known.clone()),
                        last,
                    );
                }
                // It tells nothing, and still is the last one: the fence counts it.
                Err(StoreError::Foreign(sequence)) => {
                    guard.succeeded();
                    return (SubjectState { sequence, last: None }, None);
                }
                Err(error) => guard.failed(error.to_string()),
            }
            sleep(delay).await;
        }
        (SubjectState::default(), None)
    }

    pub(super) async fn verify(&self, state: &JobState) -> ActionResult {
        let mut guard = self.verify_health.retry_guard();
        for delay in backoff() {
            match self.call(self.cluster.is_gone(state)).await {
                Ok(gone) => {
                    guard.succeeded();
                    if !gone {
                        return ActionResult::Verified(DeletionCheck::Exists);
                    }
                    let cancelled = self.was_cancelled(state).await;
                    return ActionResult::Verified(if cancelled {
                        DeletionCheck::Cancelled
                    } else {
                        DeletionCheck::Deleted
                    });
                }
                Err(error) => {
                    guard.failed(format!("cannot see whether the Job {} is gone: {error}", state.name));
                }
            }
            sleep(delay).await;
        }
        ActionResult::Verified(DeletionCheck::Exists)
    }

    /// Whether the Job that is gone was to be cancelled, however long it takes to learn it.
    async fn was_cancelled(&self, state: &JobState) -> bool {
        let mut guard = self.verify_health.retry_guard();
        for delay in backoff() {
            match self.call(self.cluster.is_cancelled(state)).await {
                Ok(cancelled) => {
                    guard.succeeded();
                    return cancelled;
                }
                Err(error) => {
                    let message = format!("cannot see whether the Job {} was cancelled: {error}", state.name);
                    guard.failed(message);
                }
            }
            sleep(delay).await;
        }
        false
    }

    pub(super) async fn retire(&self, state: &JobState) -> ActionResult {
        let mut guard = self.retire_health.retry_guard();
        for delay in backoff() {
            match self.call(self.cluster.retire(state)).await {
                Ok(()) => {
                    guard.succeeded();
                    break;
                }
                Err(error) => guard.failed(format!("cannot mark the Job {}: {error}", state.name)),
            }
            sleep(delay).await;
        }
        ActionResult::Retired
    }

    /// An event is stored.
    fn tell_of(&self, state: &JobState, event: &StatusEvent) {
        self.metrics.event(event);
        if let Some(outcome) = &event.outcome {
            self.spans.ended(&JobSpan { state, outcome });
        }
        super::log::log(event);
    }

    /// One try: whoever waits for the next one holds up nobody.
    async fn call<T>(&self, call: BoxFuture<'_, Result<T, String>>) -> Result<T, String> {
        let _permit = permit(&self.calls, 1).await;
        call.await
    }
}

fn published(stored: &Result<u64, StoreError>) -> Published {
    match stored {
        Ok(_) => Published::Stored,
        Err(StoreError::Fenced) => Published::Fenced,
        Err(_) => Published::Failed,
    }
}
