//! The pull loop of a template: permits, pulls, handlers, and the circuit breaker.
//!
//! A pull never asks for more requests than there are free permits, because `ack_wait` starts with
//! the delivery. The circuit breaker plans each pull: requests that wait for a redelivery count
//! towards `max_ack_pending`, and would block those that can succeed.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use async_nats::jetstream::{
    Message,
    consumer::{FromConsumer, PullConsumer, pull},
    context::ConsumerInfoErrorKind,
};
use dispatcher_core::request::{
    breaker::{FailedDelivery, Plan},
    error::Stage,
};
use futures::{
    FutureExt, StreamExt,
    future::ready,
    stream::{BoxStream, SelectAll},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    concurrency::{ConcurrencyLimiter, Reservation},
    intake::handler::Handler,
    nats::definitions::JOBS,
    retry::{backoff, with_deadline},
    telemetry::health::Component,
};

/// How long one pull waits at the server. A deleted consumer goes unnoticed for as long.
const PULL_EXPIRY: Duration = Duration::from_secs(5);
/// How long the end of a pull may be overdue. Less than the client's own 5 s: after that, the
/// client reports a silent server as an empty pull.
const GRACE: Duration = Duration::from_secs(3);
/// At shutdown: how long to wait for a message that is already on its way.
const DRAIN: Duration = Duration::from_millis(250);
/// The largest number of pulls from before a reconnect that are still read.
const MAX_OLD_PULLS: usize = 4;

/// Pulls and handles the requests of one template.
pub(crate) struct PullLoop {
    /// The durable consumer of the template.
    pub consumer: PullConsumer,
    /// Whether to recreate a deleted consumer. A consumer contains no data.
    pub may_create: bool,
    /// Handles the requests.
    pub handler: Arc<Handler>,
    /// The largest number of requests handled at the same time.
    pub concurrency: usize,
    /// Ready while requests can succeed.
    pub health: Component,
    /// Changes when NATS is connected again or a stream is recreated.
    pub reconnects: watch::Receiver<u64>,
    /// Limits the unfinished Jobs of the template.
    pub limiter: ConcurrencyLimiter,
}

/// Permission to handle one request.
#[derive(Default)]
struct Permit {
    /// `None` for a request of an old pull.
    concurrency: Option<OwnedSemaphorePermit>,
    /// For a template with a concurrency limit.
    reservation: Option<Reservation>,
}

/// What the loop keeps between pulls.
struct PullState {
    /// Pulls from before a reconnect. A server that did not restart still serves them. Without a
    /// reader, their requests would return only after `ack_wait`. They hold no permits, and they
    /// are few and brief.
    old_pulls: SelectAll<BoxStream<'static, (Message, Permit)>>,
    permits: Arc<Semaphore>,
    handlers: JoinSet<()>,
    reconnects: watch::Receiver<u64>,
    stop: CancellationToken,
}

impl PullState {
    /// Keeps reading a pull until `end`. Its messages use the reservations of the pull's permits.
    fn keep_pull(&mut self, messages: pull::Batch, permits: Vec<Permit>, end: Instant) {
        if self.old_pulls.len() >= MAX_OLD_PULLS {
            return;
        }
        let mut reservations: Vec<_> = permits.into_iter().map(|permit| permit.reservation).collect();
        let mut permit = move || Permit { concurrency: None, reservation: reservations.pop().flatten() };
        let rest = messages.filter_map(|message| ready(message.ok())).map(move |message| (message, permit()));
        self.old_pulls.push(rest.take_until(Box::pin(sleep_until(end))).boxed());
    }
}

impl PullLoop {
    /// Pulls until `stop`. Then handles the messages that are on their way, and returns once the
    /// last handler has ended.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut state = PullState {
            old_pulls: SelectAll::new(),
            permits: Arc::new(Semaphore::new(self.concurrency)),
            handlers: JoinSet::new(),
            reconnects: self.reconnects.clone(),
            stop: stop.clone(),
        };
        self.health.ready();
        let breaker = &self.handler.breaker;
        while !stop.is_cancelled() {
            let semaphore = state.permits.clone();
            match breaker.plan(state.handlers.len()) {
                Plan::Pull(limit) => tokio::select! {
                    permits = self.permits(&semaphore, limit) => self.pull(permits, &mut state).await,
                    // At the concurrency limit, a permit takes as long as a Job.
                    () = self.next_event(&mut state) => {}
                },
                Plan::Canary => drop(stop.run_until_cancelled(breaker.run_canary()).await),
                Plan::Wait(delay) => tokio::select! {
                    () = sleep(delay) => {}
                    () = self.next_event(&mut state) => {}
                },
                Plan::Drain => self.next_event(&mut state).await,
            }
        }
        while state.handlers.join_next().await.is_some() {}
    }

    /// Waits until a handler ends, an old pull delivers a message, or the loop is stopped.
    async fn next_event(&self, state: &mut PullState) {
        tokio::select! {
            Some(_) = state.handlers.join_next() => {}
            Some((message, permit)) = state.old_pulls.next() => self.handle(message, permit, state),
            () = state.stop.cancelled() => {}
        }
    }

    /// Pulls at most one request per permit.
    async fn pull(&self, mut permits: Vec<Permit>, state: &mut PullState) {
        let end = Instant::now() + PULL_EXPIRY + GRACE;
        let pull = self.consumer.batch().max_messages(permits.len()).expires(PULL_EXPIRY).messages();
        let mut messages = match with_deadline(GRACE, pull).await {
            Ok(Ok(messages)) => messages,
            Ok(Err(error)) => return self.recover(&error.to_string(), state).await,
            Err(error) => return self.recover(&format!("pull: {error}"), state).await,
        };
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let next = tokio::select! {
                next = with_deadline(left, messages.next()) => next,
                Some(_) = state.handlers.join_next() => continue,
                Some((message, permit)) = state.old_pulls.next() => {
                    self.handle(message, permit, state);
                    continue;
                }
                // The server that knows this pull may be gone.
                Ok(()) = state.reconnects.changed() => {
                    state.keep_pull(messages, permits, end);
                    return self.recover("NATS was reconnected, or a stream was recreated", state).await;
                }
                () = state.stop.cancelled() => with_deadline(DRAIN, messages.next()).await,
            };
            match next {
                Ok(Some(Ok(message))) => {
                    let permit = permits.pop().unwrap_or_default();
                    self.handle(message, permit, state);
                }
                // The server ended the pull, so the consumer works.
                Ok(None) => return self.handler.breaker.pull_ended(!permits.is_empty()),
                Err(_) if state.stop.is_cancelled() => return,
                Ok(Some(Err(error))) => return self.recover(&error.to_string(), state).await,
                Err(_) => return self.recover("the server did not end the pull", state).await,
            }
        }
    }

    fn handle(&self, message: Message, permit: Permit, state: &mut PullState) {
        let handler = self.handler.clone();
        handler.breaker.pulled();
        state.handlers.spawn(async move {
            let Permit { concurrency, reservation } = permit;
            let sequence = message.info().map_or(0, |info| info.stream_sequence);
            let handled = AssertUnwindSafe(handler.handle(message, reservation)).catch_unwind().await;
            if handled.is_err() {
                // The request is delivered again after `ack_wait`.
                let delivery = FailedDelivery { sequence, delivered: 1, stage: Stage::Other };
                handler.breaker.failed(delivery, "the handler panicked");
            }
            drop(concurrency);
        });
    }

    /// Waits for a permit, and takes further free ones up to `limit`. A template with a concurrency
    /// limit gets at most one permit per reservation.
    async fn permits(&self, semaphore: &Arc<Semaphore>, limit: usize) -> Vec<Permit> {
        let permits = acquire(semaphore, limit).await;
        let template = &self.handler.template;
        let reservations = match template.max_active.and_then(|max| usize::try_from(max.get()).ok()) {
            None => permits.iter().map(|_| None).collect(),
            Some(max) => {
                let reservations = self.limiter.reserve(&template.name, max, permits.len()).await;
                reservations.into_iter().map(Some).collect::<Vec<_>>()
            }
        };
        let permits = permits.into_iter().zip(reservations);
        permits.map(|(permit, reservation)| Permit { concurrency: Some(permit), reservation }).collect()
    }

    /// After a failed pull: waits until the stream and the consumer answer.
    async fn recover(&self, error: &str, state: &mut PullState) {
        let name = self.handler.template.name.consumer_name();
        self.health.not_ready(format!("consumer {name}: {error}"));
        for delay in backoff() {
            let attempt = async {
                sleep(delay).await;
                self.ensure_consumer().await
            };
            match state.stop.run_until_cancelled(attempt).await {
                None => return,
                Some(Ok(())) => {
                    // Only a request that succeeds makes a blocked template ready.
                    if !self.handler.breaker.is_blocked() {
                        self.health.ready();
                    }
                    return;
                }
                Some(Err(error)) => {
                    self.health.not_ready(format!("consumer {name} of stream {JOBS}: {error}"));
                }
            }
        }
    }

    /// Checks that the stream and the consumer exist. Recreates a deleted consumer unchanged.
    async fn ensure_consumer(&self) -> Result<(), String> {
        self.handler.jobs.refresh().await?;
        let error = match with_deadline(GRACE, self.consumer.get_info()).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => error,
            Err(error) => return Err(error.to_string()),
        };
        if error.kind() != ConsumerInfoErrorKind::NotFound || !self.may_create {
            return Err(error.to_string());
        }
        let info = self.consumer.cached_info();
        let config =
            pull::Config::try_from_consumer_config(info.config.clone()).map_err(|e| e.to_string())?;
        let stream = self.handler.jobs.context().get_stream_no_info(JOBS).await;
        let stream = stream.map_err(|e| e.to_string())?;
        let created = with_deadline(GRACE, stream.get_or_create_consumer(&info.name, config)).await;
        created.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        tracing::warn!(consumer = info.name, "consumer was deleted externally; recreated");
        Ok(())
    }
}

/// Waits for a permit, and takes further free ones up to `limit`.
async fn acquire(semaphore: &Arc<Semaphore>, limit: usize) -> Vec<OwnedSemaphorePermit> {
    let mut permits: Vec<_> = semaphore.clone().acquire_owned().await.into_iter().collect();
    while permits.len() < limit {
        match semaphore.clone().try_acquire_owned() {
            Ok(permit) => permits.push(permit),
            Err(_) => break,
        }
    }
    permits
}
