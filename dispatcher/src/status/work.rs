//! The writer's I/O: each piece is retried until it is known how it ended; nothing here decides what to say.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use backon::{BackoffBuilder, ExponentialBuilder};
use futures::future::BoxFuture;
use time::{OffsetDateTime, macros::format_description};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::sleep,
};

use super::{
    Cluster,
    lane::{Done, Gone},
    store::{Known, Last, Store, StoreError},
    word::{Word, log, message},
};
use crate::{
    contract::{
        event::{EventType, StatusEvent},
        job::JobState,
        names::Kind,
    },
    health::{Health, Room},
    metrics::{Metrics, Published},
    spans::{Run, Spans},
    status::phase::{Said, resource_version},
};

/// Bytes of events in flight; one event counts for at least [`SMALLEST`], so at most 256 are.
const IN_FLIGHT: usize = 8 * 1024 * 1024;
const SMALLEST: usize = 32 * 1024;
/// Calls to Kubernetes under way.
const CALLS: usize = 32;

/// How often it is looked whether an earlier Job of a name is closed.
const EARLIER: Duration = Duration::from_millis(500);

/// See the module.
pub(super) struct Work {
    store: Store,
    cluster: Arc<dyn Cluster>,
    publish_health: Room,
    read_health: Room,
    verify_health: Room,
    settle_health: Room,
    in_flight: Semaphore,
    calls: Semaphore,
    metrics: Metrics,
    spans: Spans,
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
    pub(super) fn new(
        store: Store,
        cluster: Arc<dyn Cluster>,
        health: &Health,
        (metrics, spans): (Metrics, Spans),
    ) -> Self {
        // Each works until it is tried.
        let room = |name: &str| {
            let room = health.room(format!("status {name}"));
            room.ready();
            room
        };
        Self {
            store,
            cluster,
            publish_health: room("publish"),
            read_health: room("read"),
            verify_health: room("verify"),
            settle_health: room("settle"),
            in_flight: Semaphore::new(IN_FLIGHT),
            calls: Semaphore::new(CALLS),
            metrics,
            spans,
        }
    }

    /// The tail of a pod's log.
    pub(super) fn log_tail(
        &self,
        kind: &Kind,
        pod: &str,
        container: &str,
    ) -> BoxFuture<'static, Option<String>> {
        self.cluster.log_tail(kind, pod, container)
    }

    /// Publishes one event under the fence until it is stored, or until the subject's last message is another one than
    /// was known: then that decides what is next.
    pub(super) async fn say(&self, state: JobState, known: Known, word: Word) -> Done {
        let uid = state.uid.clone();
        let event = word.event();
        let said = Said { uid, resource_version: resource_version(known.said.as_ref(), &state), event };
        let word = word.fitting(self.store.max_payload());
        let weight = word.weight(&state).clamp(SMALLEST, IN_FLIGHT);
        let time = now();
        // Made when it is its turn: of thousands of events that wait for a server none takes the memory of a message.
        let message = || message(&state, &said, &word, &time);
        let mut trying = self.publish_health.trying();
        for delay in backoff() {
            let stored = {
                let _permit = permit(&self.in_flight, weight).await;
                Box::pin(self.publish(message(), &state, known.sequence)).await
            };
            match stored {
                Ok(sequence) => {
                    trying.works();
                    self.tell_of(&state, &message());
                    return Done::Said(Known { sequence, said: Some(said) });
                }
                Err(StoreError::Fenced) => {}
                Err(error) => {
                    trying.failed(error.to_string());
                    // What refuses at once would be asked again at once.
                    sleep(delay).await;
                }
            }
            let (last, stored) = Box::pin(self.last(&state)).await;
            if last.sequence != known.sequence {
                trying.works();
                // Stored by a try that was not answered.
                let ours = stored.map(|stored| stored.event).filter(|event| *event == message());
                if let Some(event) = &ours {
                    self.tell_of(&state, event);
                }
                let ours = ours.is_some();
                return if ours { Done::Said(last) } else { Done::Known(last) };
            }
        }
        Done::Known(known)
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
    pub(super) async fn close_earlier(&self, state: &JobState) -> Done {
        match self.last(state).await {
            (known, Some(last))
                if known.said.as_ref().is_some_and(|s| !s.is_final() && s.uid != state.uid) =>
            {
                let mut earlier = last.missing();
                earlier.cancelled = self.was_cancelled(&earlier).await;
                let outcome = earlier.outcome().unwrap_or_else(|| earlier.outcome_deleted());
                self.say(earlier, known, Word::Of(EventType::Outcome, Some(Box::new(outcome)))).await
            }
            (known, _) => Done::Known(known),
        }
    }

    /// What is known of the subject a moment later.
    pub(super) async fn await_earlier(&self, state: &JobState) -> Done {
        sleep(EARLIER).await;
        Done::Known(self.last(state).await.0)
    }

    /// The last message of the subject, however long it takes to learn it.
    async fn last(&self, state: &JobState) -> (Known, Option<Last>) {
        let mut trying = self.read_health.trying();
        for delay in backoff() {
            match self.store.last(&state.kind, &state.name).await {
                Ok(last) => {
                    trying.works();
                    return (last.as_ref().map_or_else(Known::default, |last| last.known.clone()), last);
                }
                // It tells nothing, and still is the last one: the fence counts it.
                Err(StoreError::Foreign(sequence)) => {
                    trying.works();
                    return (Known { sequence, said: None }, None);
                }
                Err(error) => trying.failed(error.to_string()),
            }
            sleep(delay).await;
        }
        (Known::default(), None)
    }

    pub(super) async fn verify(&self, state: &JobState) -> Done {
        let mut trying = self.verify_health.trying();
        for delay in backoff() {
            match self.call(self.cluster.is_gone(state)).await {
                Ok(gone) => {
                    trying.works();
                    if !gone {
                        return Done::Verified(Gone::No);
                    }
                    let cancelled = self.was_cancelled(state).await;
                    return Done::Verified(if cancelled { Gone::Cancelled } else { Gone::Deleted });
                }
                Err(error) => {
                    trying.failed(format!("cannot see whether the Job {} is gone: {error}", state.name));
                }
            }
            sleep(delay).await;
        }
        Done::Verified(Gone::No)
    }

    /// Whether the Job that is gone was to be cancelled, however long it takes to learn it.
    async fn was_cancelled(&self, state: &JobState) -> bool {
        let mut trying = self.verify_health.trying();
        for delay in backoff() {
            match self.call(self.cluster.is_cancelled(state)).await {
                Ok(cancelled) => {
                    trying.works();
                    return cancelled;
                }
                Err(error) => {
                    let message = format!("cannot see whether the Job {} was cancelled: {error}", state.name);
                    trying.failed(message);
                }
            }
            sleep(delay).await;
        }
        false
    }

    pub(super) async fn settle(&self, state: &JobState) -> Done {
        let mut trying = self.settle_health.trying();
        for delay in backoff() {
            match self.call(self.cluster.settle(state)).await {
                Ok(()) => {
                    trying.works();
                    break;
                }
                Err(error) => trying.failed(format!("cannot mark the Job {}: {error}", state.name)),
            }
            sleep(delay).await;
        }
        Done::Settled
    }

    /// An event is stored.
    fn tell_of(&self, state: &JobState, event: &StatusEvent) {
        self.metrics.event(event);
        if let Some(outcome) = &event.outcome {
            self.spans.ended(&Run { state, outcome });
        }
        log(event);
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
