//! Runs the actions of the reconciler. Each is retried until its result is known; no rule is here.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use dispatcher_core::{
    contract::{
        event::{Attempt, EventType, Stall, StatusEvent},
        job::JobState,
        names::TemplateName,
    },
    status::{
        LastEvent, SubjectState,
        event_body::{EventBody, status_event},
        event_size::{self, EncodedEvent, encode, fit},
        pod_observation::PodState,
        reconcile::{Action, NameCheck, check_name, resource_version},
        subject_queue::{ActionResult, DeletionCheck},
    },
};
use futures::future::BoxFuture;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::sleep,
};

use crate::{
    clock::now,
    nats::status_stream::{LastMessage, StatusStream, StoreError},
    retry::{backoff, retry_forever},
    status::{
        cluster::{Change, Cluster, Deletion},
        publish_failures::PublishFailures,
        refused::{Completion, RefusedJob},
    },
    telemetry::{
        health::{Component, Health},
        metrics::{Metrics, Published},
        spans::{JobSpan, Spans},
    },
};

/// Bytes of events in flight. An event counts for at least [`MIN_EVENT_BYTES`]: at most 256 events
/// are in flight.
const MAX_BYTES_IN_FLIGHT: usize = 8 * 1024 * 1024;
const MIN_EVENT_BYTES: usize = 32 * 1024;

/// Calls to Kubernetes in flight.
const MAX_CALLS: usize = 32;
/// Reads of `JOB_STATUS` in flight. While NATS does not answer, every waiting event reads its subject.
const MAX_READS: usize = 64;

/// The delay before the last message of a subject is read again, while another replica has to close
/// the previous Job of that name.
const PREVIOUS_JOB_POLL: Duration = Duration::from_millis(500);

/// The longest delay before the dispatcher reads a Job again that the watch does not observe.
const MAX_UNOBSERVED: Duration = Duration::from_secs(30);

/// Runs actions against `JOB_STATUS` and the cluster.
pub(super) struct ActionRunner {
    stream: StatusStream,
    cluster: Arc<dyn Cluster>,
    publishing: Component,
    /// The number of stored events.
    stored: AtomicU64,
    reading: Component,
    verifying: Component,
    retiring: Component,
    bytes_in_flight: Semaphore,
    calls: Semaphore,
    reads: Semaphore,
    metrics: Metrics,
    spans: Spans,
}

impl ActionRunner {
    pub(super) fn new(
        stream: StatusStream,
        cluster: Arc<dyn Cluster>,
        health: &Health,
        (metrics, spans): (Metrics, Spans),
    ) -> Self {
        let component = |name: &str| {
            let component = health.component(format!("status {name}"));
            // Ready until an action fails.
            component.ready();
            component
        };
        Self {
            stream,
            cluster,
            publishing: component("publish"),
            stored: AtomicU64::new(0),
            reading: component("read"),
            verifying: component("verify"),
            retiring: component("retire"),
            bytes_in_flight: Semaphore::new(MAX_BYTES_IN_FLIGHT),
            calls: Semaphore::new(MAX_CALLS),
            reads: Semaphore::new(MAX_READS),
            metrics,
            spans,
        }
    }

    /// Runs one action until its result is known.
    pub(super) async fn run(&self, action: Action, job: Arc<JobState>, subject: SubjectState) -> Completion {
        // Thousands can be in flight. So each is boxed, and so is every call, once it has its permit.
        match action {
            Action::Publish(event, outcome) => {
                Box::pin(self.publish(job, subject, EventBody::Job(event, outcome))).await.into()
            }
            Action::PublishPending(event) => Box::pin(self.publish(job, subject, event.into())).await.into(),
            Action::ClosePrevious => Box::pin(self.close_previous(&job)).await.into(),
            Action::AwaitPrevious => Box::pin(self.await_previous(&job)).await.into(),
            Action::VerifyDeleted => Box::pin(self.verify_deleted(job, subject)).await,
            Action::VerifyCurrent => Box::pin(self.verify_current(job, subject)).await,
            Action::Retire => Box::pin(self.retire(job, subject)).await,
        }
    }

    /// The tail of a container's log.
    pub(super) fn log_tail(
        &self,
        template: &TemplateName,
        pod: &str,
        container: &str,
    ) -> BoxFuture<'static, Option<String>> {
        self.cluster.log_tail(template, pod, container)
    }

    /// The ended pods of the Job with this uid.
    pub(super) fn ended_pods(&self, uid: &str) -> BoxFuture<'static, Vec<PodState>> {
        self.cluster.ended_pods(uid)
    }

    /// Publishes one event under the fence until it is stored, or until the subject turns out to
    /// have another last message, which then decides the next action.
    async fn publish(&self, job: Arc<JobState>, subject: SubjectState, body: EventBody) -> ActionResult {
        let last = LastEvent {
            uid: job.uid.clone(),
            resource_version: resource_version(subject.last.as_ref(), &job),
            event: body.event_type(),
        };
        let mut limit = self.stream.max_event();
        let body = body.fitting(limit);
        let bytes = body.size_hint(&job).clamp(MIN_EVENT_BYTES, MAX_BYTES_IN_FLIGHT);
        let time = now();
        // Serialized only with a permit: thousands of waiting events would take much memory.
        let event = || status_event(&job, &last, &body, &time);
        let mut failures = PublishFailures::new(&self.publishing, &self.stored, &*self.cluster, &job);
        let mut delays = backoff();
        loop {
            let stored = {
                let _permit = acquire(&self.bytes_in_flight, bytes).await;
                Box::pin(self.publish_once(event(), limit, &job, subject.sequence)).await
            };
            let error = match stored {
                Ok((sequence, event)) => {
                    failures.succeeded();
                    self.record(&job, &event);
                    return ActionResult::Published(SubjectState { sequence, last: Some(last) });
                }
                // The limit of the server has decreased, or the limit of the stream is smaller.
                Err(StoreError::TooLarge(_)) if limit > event_size::MIN_EVENT_BYTES => {
                    limit = (limit / 2).min(self.stream.max_event()).max(event_size::MIN_EVENT_BYTES);
                    continue;
                }
                Err(StoreError::Fenced) => None,
                Err(error) => Some(error),
            };
            if let Some(error) = &error {
                failures.failed(error).await;
                sleep(delays.next().unwrap_or_default()).await;
            }
            let (found, message) = Box::pin(self.last_message(&job)).await;
            if found.sequence != subject.sequence {
                failures.succeeded();
                // An earlier try without an answer may have stored this event.
                return match message
                    .map(|message| message.event)
                    .filter(|stored| *stored == fit(event(), limit))
                {
                    Some(stored) => {
                        self.record(&job, &stored);
                        ActionResult::Published(found)
                    }
                    None => ActionResult::Read(found),
                };
            }
            if error.is_none() {
                // The fence refused the sequence that the stream names.
                sleep(delays.next().unwrap_or_default()).await;
            }
        }
    }

    async fn publish_once(
        &self,
        event: StatusEvent,
        limit: usize,
        job: &JobState,
        expected: u64,
    ) -> Result<(u64, StatusEvent), StoreError> {
        let started = Instant::now();
        let stored = match encode(event, limit) {
            Ok(EncodedEvent { event, json }) => {
                let stored = self.stream.publish(&event, json.into(), job, expected).await;
                stored.map(|sequence| (sequence, event))
            }
            Err(error) => Err(StoreError::Unknown(error.to_string())),
        };
        let result = match &stored {
            Ok(_) => {
                self.stored.fetch_add(1, Ordering::Relaxed);
                Published::Stored
            }
            Err(StoreError::Fenced) => Published::Fenced,
            Err(_) => Published::Failed,
        };
        self.metrics.published(result, started);
        stored
    }

    /// Publishes the outcome of the previous Job of this name: another Job has the name now.
    async fn close_previous(&self, job: &JobState) -> ActionResult {
        let (subject, message) = self.last_message(job).await;
        let is_open = subject.last.as_ref().is_some_and(|last| !last.is_final() && last.uid != job.uid);
        match message.filter(|_| is_open) {
            None => ActionResult::Read(subject),
            Some(message) => {
                let mut previous = message.missing();
                previous.cancelled = self.is_cancelled(&previous).await;
                let outcome = previous.outcome().unwrap_or_else(|| previous.outcome_of_deletion());
                let body = EventBody::Job(EventType::Outcome, Some(Box::new(outcome)));
                self.publish(Arc::new(previous), subject, body).await
            }
        }
    }

    async fn await_previous(&self, job: &JobState) -> ActionResult {
        sleep(PREVIOUS_JOB_POLL).await;
        ActionResult::Read(self.last_message(job).await.0)
    }

    /// The last message of the Job's subject.
    async fn last_message(&self, job: &JobState) -> (SubjectState, Option<LastMessage>) {
        retry_forever(&self.reading, async || {
            let _permit = acquire(&self.reads, 1).await;
            match Box::pin(self.stream.last(&job.template, &job.name)).await {
                Ok(None) => Ok((SubjectState::default(), None)),
                Ok(Some(message)) => Ok((message.known.clone(), Some(message))),
                // Not an event, but the fence counts its sequence.
                Err(StoreError::Foreign(sequence)) => Ok((SubjectState { sequence, last: None }, None)),
                Err(error) => Err(error),
            }
        })
        .await
    }

    async fn verify_deleted(&self, job: Arc<JobState>, subject: SubjectState) -> Completion {
        match self.deletion(&job).await {
            Deletion::Exists => Completion::made(ActionResult::Verified(DeletionCheck::Exists), &job),
            Deletion::Unrestored(observed) => {
                Completion::refused(RefusedJob { job, subject, max_delay: MAX_UNOBSERVED }, Some(*observed))
            }
            Deletion::Deleted(_) => self.deleted(&job).await,
        }
    }

    /// Finds out which Job has the name. The last event belongs to another Job.
    async fn verify_current(&self, job: Arc<JobState>, subject: SubjectState) -> Completion {
        let holder = match self.deletion(&job).await {
            Deletion::Exists => Some(job.uid.clone()),
            Deletion::Deleted(holder) => holder,
            Deletion::Unrestored(observed) => {
                let observed = JobState { confirmed: true, ..*observed };
                let refused = RefusedJob { job, subject, max_delay: MAX_UNOBSERVED };
                return Completion::refused(refused, Some(observed));
            }
        };
        match check_name(subject.last.as_ref(), &job, holder.as_deref()) {
            NameCheck::Current => ActionResult::Current.into(),
            NameCheck::Outdated => ActionResult::Verified(DeletionCheck::Exists).into(),
            NameCheck::Deleted => self.deleted(&job).await,
        }
    }

    async fn deletion(&self, job: &JobState) -> Deletion {
        retry_forever(&self.verifying, async || {
            let deletion = self.call(|| self.cluster.is_deleted(job)).await;
            deletion.map_err(|error| format!("deletion of Job {} not verified: {error}", job.name))
        })
        .await
    }

    async fn deleted(&self, job: &JobState) -> Completion {
        let cancelled = self.is_cancelled(job).await;
        let check = if cancelled { DeletionCheck::Cancelled } else { DeletionCheck::Deleted };
        Completion::made(ActionResult::Verified(check), job)
    }

    async fn is_cancelled(&self, job: &JobState) -> bool {
        retry_forever(&self.verifying, async || {
            let cancelled = self.call(|| self.cluster.is_cancelled(job)).await;
            cancelled.map_err(|error| format!("cancellation of Job {} not verified: {error}", job.name))
        })
        .await
    }

    async fn retire(&self, job: Arc<JobState>, subject: SubjectState) -> Completion {
        let change = retry_forever(&self.retiring, async || {
            let change = self.call(|| self.cluster.retire(&job, subject.sequence)).await;
            change.map_err(|error| format!("Job {} not retired: {error}", job.name))
        })
        .await;
        match change {
            Change::Made => Completion::made(ActionResult::Retired, &job),
            Change::Refused => {
                Completion::refused(RefusedJob { job, subject, max_delay: Duration::MAX }, None)
            }
        }
    }

    /// Counts, traces and logs a stored event.
    fn record(&self, job: &JobState, event: &StatusEvent) {
        self.metrics.event(event);
        if let Some(outcome) = &event.outcome {
            self.spans.ended(&JobSpan { state: job, outcome });
        }
        log(event);
    }

    /// One try. The permit is not held between the tries.
    async fn call<'a, T>(
        &'a self,
        call: impl FnOnce() -> BoxFuture<'a, Result<T, String>>,
    ) -> Result<T, String> {
        let _permit = acquire(&self.calls, 1).await;
        call().await
    }
}

async fn acquire(semaphore: &Semaphore, permits: usize) -> Option<SemaphorePermit<'_>> {
    // Fails only for a closed semaphore; publishing without a permit is better than not publishing.
    semaphore.acquire_many(u32::try_from(permits).unwrap_or(u32::MAX)).await.ok()
}

/// One line per event. The status object is in the stream.
fn log(event: &StatusEvent) {
    let (template, job, uid) = (event.template.as_ref(), event.name.as_ref(), event.uid.as_str());
    let (kind, version) = (event.event.as_str(), event.resource_version.as_str());
    if let Some(Attempt { pod, exit_code, reason, .. }) = &event.attempt {
        let reason = reason.as_deref().unwrap_or_default();
        tracing::debug!(template, job, uid, event = kind, pod, exit_code, reason, "pod ended");
    } else if let Some(Stall { reason, message }) = &event.stall {
        tracing::debug!(template, job, uid, event = kind, reason, message, "no pod runs");
    } else if let Some(outcome) = &event.outcome {
        let reason = outcome.reason.as_deref().unwrap_or_default();
        tracing::debug!(template, job, uid, event = kind, result = %outcome.result, reason, "job ended");
    } else {
        tracing::debug!(template, job, uid, event = kind, resource_version = version, "job changed");
    }
}
