//! The pull loop of a template: permits, pulls, handlers, and the circuit breaker.
//!
//! A pull never asks for more requests than there are free permits, because `ack_wait` starts with
//! the delivery. The circuit breaker plans each pull: requests that wait for a redelivery count
//! towards `max_ack_pending`, and would block those that can succeed.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use async_nats::jetstream::{
    consumer::{self, FromConsumer, PullConsumer, pull},
    context::ConsumerInfoErrorKind,
};
use dispatcher_core::request::{
    Disposition,
    breaker::{FailedDelivery, Plan},
    error::Stage,
    pending::Deliveries,
    pull_limits::PullLimits,
};
use futures::FutureExt;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::{JoinError, JoinSet},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    concurrency::{ConcurrencyLimiter, Reservation},
    intake::{
        handler::Handler,
        permits::{acquire, min_batch},
        poison::PoisonHandler,
        pull::{Inbox, Pull, Pulled},
    },
    nats::connection::Connection,
    retry::{backoff, with_deadline},
    shares::FlowShare,
    telemetry::health::Component,
};

/// How long one pull waits at the server. A deleted consumer goes unnoticed for as long.
const PULL_EXPIRY: Duration = Duration::from_secs(5);
/// How long the end of a pull may be overdue. Less than the client's own 5 s: after that, the
/// client reports a silent server as an empty pull.
const GRACE: Duration = Duration::from_secs(3);
/// At shutdown: how long to wait for a message that is already on its way.
const DRAIN: Duration = Duration::from_millis(250);
/// How long the replacement of an ended connection may take before the template is not ready.
const REPLACEMENT: Duration = Duration::from_secs(1);

/// Pulls and handles the requests of one template.
pub(crate) struct PullLoop {
    /// Delivers the requests. A poison message can end it.
    pub intake: Connection,
    /// The prefix of the `JetStream` API's subjects.
    pub api_prefix: Arc<str>,
    /// The durable consumer of the template.
    pub consumer: PullConsumer,
    /// Finds what a lost connection took with it.
    pub poison: PoisonHandler,
    /// Whether to recreate a deleted consumer. A consumer contains no data.
    pub may_create: bool,
    /// Handles the requests.
    pub handler: Arc<Handler>,
    /// The largest number of requests handled at the same time.
    pub concurrency: usize,
    /// Limits the requests in flight while other templates have work.
    pub share: FlowShare,
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
    /// `None` for a request beyond the number that the pull requested.
    concurrency: Option<OwnedSemaphorePermit>,
    /// For a template with a concurrency limit.
    reservation: Option<Reservation>,
}

/// The end of a request.
struct Handled {
    disposition: Disposition,
    sequence: u64,
}

/// What the loop keeps between pulls.
struct PullState {
    permits: Arc<Semaphore>,
    handlers: JoinSet<Handled>,
    /// The pull limits of the consumer.
    limits: PullLimits,
    /// Pulls in a row that the server has refused or not ended.
    failed_pulls: usize,
    /// What this process has received.
    deliveries: Deliveries,
    /// The inbox of a pull that was cut short.
    inbox: Option<Inbox>,
    /// Changes when the intake's connection has lost messages.
    losses: watch::Receiver<u64>,
    reconnects: watch::Receiver<u64>,
    stop: CancellationToken,
}

/// How a pull ended.
enum PullEnd {
    /// As planned.
    Ended,
    /// Messages may have been lost on their way.
    Lost,
    /// The client ended; its replacement follows.
    ConnectionEnded,
    /// The pull failed.
    Failed(String),
}

impl PullLoop {
    /// Pulls until `stop`. Then handles the messages that are on their way, and returns once the
    /// last handler has ended.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut state = PullState {
            permits: Arc::new(Semaphore::new(self.concurrency)),
            handlers: JoinSet::new(),
            limits: limits(self.consumer.cached_info()),
            failed_pulls: 0,
            deliveries: Deliveries::starting_after(self.consumer.cached_info().delivered.stream_sequence),
            inbox: None,
            losses: self.intake.changes(),
            reconnects: self.reconnects.clone(),
            stop: stop.clone(),
        };
        self.health.ready();
        // A poison message may have ended the process before.
        self.check_pending(&mut state).await;
        let breaker = &self.handler.breaker;
        while !stop.is_cancelled() {
            let semaphore = state.permits.clone();
            let in_flight = state.handlers.len();
            match self.share.within(breaker.plan(in_flight), in_flight) {
                Plan::Pull(limit) => tokio::select! {
                    permits = self.permits(&semaphore, limit) => self.pull(permits, &mut state).await,
                    // At the concurrency limit, a permit takes as long as a Job.
                    () = next_event(&mut state) => {}
                },
                Plan::Canary => drop(stop.run_until_cancelled(breaker.run_canary()).await),
                Plan::Wait(delay) => tokio::select! {
                    () = sleep(delay) => {}
                    () = next_event(&mut state) => {}
                },
                Plan::Drain => next_event(&mut state).await,
            }
        }
        while let Some(handled) = state.handlers.join_next().await {
            state.finish(handled);
        }
    }

    /// Pulls at most one request per permit.
    async fn pull(&self, mut permits: Vec<Permit>, state: &mut PullState) {
        let acks = self.handler.jobs.context().clone();
        let name = self.handler.name.consumer_name();
        let consumer = (&*self.api_prefix, name.as_str());
        let asked = (state.limits.batch(permits.len()), state.limits.expires(PULL_EXPIRY));
        let pull = Pull::start(&self.intake, acks, consumer, asked);
        let mut pull = match with_deadline(GRACE, pull).await {
            Ok(Ok(pull)) => pull,
            // The client has ended.
            Ok(Err(_)) => return self.recover_connection(state).await,
            Err(error) => return self.recover(&format!("pull: {error}"), state).await,
        };
        let end = self.read(&mut pull, &mut permits, state).await;
        if !matches!(end, PullEnd::Ended) {
            for pulled in pull.arrived() {
                self.handle(pulled, permits.pop().unwrap_or_default(), state);
            }
            state.inbox = Some(pull.stop().await);
        }
        state.failed_pulls = match end {
            PullEnd::Ended => 0,
            PullEnd::Failed(_) => state.failed_pulls.saturating_add(1),
            PullEnd::Lost | PullEnd::ConnectionEnded => state.failed_pulls,
        };
        match end {
            // The server ended the pull, so the consumer works.
            PullEnd::Ended => self.handler.breaker.pull_ended(!permits.is_empty()),
            PullEnd::Lost => self.recover_lost(state).await,
            PullEnd::ConnectionEnded => self.recover_connection(state).await,
            PullEnd::Failed(error) => self.recover(&error, state).await,
        }
    }

    /// Handles the requests of a pull until it ends.
    async fn read(&self, pull: &mut Pull, permits: &mut Vec<Permit>, state: &mut PullState) -> PullEnd {
        let end = Instant::now() + PULL_EXPIRY + GRACE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let next = tokio::select! {
                next = with_deadline(left, pull.next()) => next,
                Some(handled) = state.handlers.join_next() => {
                    state.finish(handled);
                    continue;
                }
                Ok(()) = state.losses.changed() => return PullEnd::Lost,
                // The server that knows this pull may be gone.
                Ok(()) = state.reconnects.changed() => return PullEnd::Lost,
                () = state.stop.cancelled() => with_deadline(DRAIN, pull.next()).await,
            };
            match next {
                Ok(Pulled::End) => return PullEnd::Ended,
                Ok(Pulled::ConnectionEnded) => return PullEnd::ConnectionEnded,
                Ok(Pulled::Failed(error)) => return PullEnd::Failed(error),
                Ok(request) => self.handle(request, permits.pop().unwrap_or_default(), state),
                Err(_) if state.stop.is_cancelled() => return PullEnd::Ended,
                Err(_) => return PullEnd::Failed("the server did not end the pull".to_owned()),
            }
        }
    }

    /// Handles a request in a separate task.
    fn handle(&self, pulled: Pulled, permit: Permit, state: &mut PullState) {
        let (message, poison) = match pulled {
            Pulled::Request(message) => (message, false),
            Pulled::Poison(message) => (message, true),
            Pulled::End | Pulled::Failed(_) | Pulled::ConnectionEnded => return,
        };
        let Ok((sequence, delivery)) =
            message.info().map(|info| (info.stream_sequence, info.consumer_sequence))
        else {
            tracing::warn!(subject = %message.subject, "message with an invalid ack subject");
            return;
        };
        state.deliveries.received(sequence);
        self.handler.breaker.pulled();
        let (handler, poison_handler) = (self.handler.clone(), poison.then(|| self.poison.clone()));
        let in_flight = self.share.start();
        state.handlers.spawn(async move {
            let Permit { concurrency, reservation } = permit;
            let handled = async {
                match poison_handler {
                    None => handler.handle(message, reservation).await,
                    Some(poison) => {
                        let disposition = reject_poison(&poison, &handler, sequence, delivery).await;
                        handler.breaker.ended(sequence, &disposition);
                        disposition
                    }
                }
            };
            let disposition = AssertUnwindSafe(handled).catch_unwind().await.unwrap_or_else(|_| {
                // The request is delivered again after `ack_wait`.
                let delivery = FailedDelivery { sequence, delivered: 1, stage: Stage::Other };
                handler.breaker.failed(delivery, "the handler panicked");
                Disposition::Retrying("the handler panicked".to_owned())
            });
            in_flight.end(&disposition);
            drop(concurrency);
            Handled { disposition, sequence }
        });
    }

    /// Waits for a permit, and takes further free ones up to `limit`. A template with a concurrency
    /// limit gets at most one permit per reservation.
    async fn permits(&self, semaphore: &Arc<Semaphore>, limit: usize) -> Vec<Permit> {
        let permits = acquire(semaphore, limit, min_batch(self.concurrency)).await;
        let name = &self.handler.name;
        let max_active = self.handler.version().template.max_active;
        let reservations = match max_active.and_then(|max| usize::try_from(max.get()).ok()) {
            None => permits.iter().map(|_| None).collect(),
            Some(max) => {
                let reservations = self.limiter.reserve(name, max, permits.len()).await;
                reservations.into_iter().map(Some).collect::<Vec<_>>()
            }
        };
        let permits = permits.into_iter().zip(reservations);
        permits.map(|(permit, reservation)| Permit { concurrency: Some(permit), reservation }).collect()
    }

    /// After a failed pull: waits until the stream and the consumer answer.
    async fn recover(&self, error: &str, state: &mut PullState) {
        let name = self.handler.name.consumer_name();
        if !self.handler.version().deleting {
            self.health.not_ready(format!("consumer {name}: {error}"));
        }
        // The consumer answers, but refuses each pull: the delays grow over all of them.
        self.recover_after(backoff().skip(state.failed_pulls.saturating_sub(1)), state).await;
    }

    /// Finds messages immediately that were lost between the server and this process.
    async fn recover_lost(&self, state: &mut PullState) {
        self.recover_after(std::iter::once(Duration::ZERO).chain(backoff()), state).await;
    }

    /// After the client ended: waits for its replacement, then finds what died with it.
    async fn recover_connection(&self, state: &mut PullState) {
        let replaced = with_deadline(REPLACEMENT, state.losses.changed());
        match state.stop.run_until_cancelled(replaced).await {
            None => {}
            Some(Ok(_)) => self.recover_lost(state).await,
            Some(Err(_)) => {
                self.health.not_ready("not connected");
                // The keeper of the connection reports its tries.
                let stop = state.stop.clone();
                if stop.run_until_cancelled(state.losses.changed()).await.is_some() {
                    self.recover_lost(state).await;
                }
            }
        }
    }

    /// Waits until the stream and the consumer answer, and the lost requests are found.
    async fn recover_after(&self, delays: impl Iterator<Item = Duration>, state: &mut PullState) {
        let name = self.handler.name.consumer_name();
        let stop = state.stop.clone();
        for delay in delays {
            let inbox = state.inbox.take();
            let attempt = async {
                if let Some(inbox) = inbox {
                    inbox.until_unused(&self.handler.jobs.context().client()).await;
                }
                sleep(delay).await;
                state.limits = self.ensure_consumer().await?;
                let template = &self.handler.name;
                self.poison.check(template, &self.consumer, &mut state.deliveries).await
            };
            match stop.run_until_cancelled(attempt).await {
                None => return,
                Some(Ok(())) => {
                    // Only a request that succeeds makes a blocked template ready, and after repeated
                    // failures, only a pull that succeeds.
                    if !self.handler.breaker.is_blocked() && state.failed_pulls < 2 {
                        self.health.ready();
                    }
                    return;
                }
                Some(Err(_)) if self.handler.version().deleting => {}
                Some(Err(error)) => {
                    let stream = self.handler.jobs.names().jobs();
                    self.health.not_ready(format!("consumer {name} of stream {stream}: {error}"));
                }
            }
        }
    }

    /// Rejects the poison messages that are pending at start.
    async fn check_pending(&self, state: &mut PullState) {
        let template = &self.handler.name;
        if let Err(error) = self.poison.check(template, &self.consumer, &mut state.deliveries).await {
            // Not a warning: a pull reports the same cause.
            tracing::debug!(%template, error, "search for poison messages failed");
        }
    }

    /// Checks that the stream and the consumer exist, and reads the pull limits. Recreates a deleted
    /// consumer unchanged.
    async fn ensure_consumer(&self) -> Result<PullLimits, String> {
        self.handler.jobs.refresh().await?;
        let error = match with_deadline(GRACE, self.consumer.get_info()).await {
            Ok(Ok(info)) => return Ok(limits(&info)),
            Ok(Err(error)) => error,
            Err(error) => return Err(error.to_string()),
        };
        // The consumer of a deleted template disappears with its queue.
        let may_create = self.may_create && !self.handler.version().deleting;
        if error.kind() != ConsumerInfoErrorKind::NotFound || !may_create {
            return Err(error.to_string());
        }
        let info = self.consumer.cached_info();
        let config =
            pull::Config::try_from_consumer_config(info.config.clone()).map_err(|e| e.to_string())?;
        let jobs = &self.handler.jobs;
        let stream = jobs.context().get_stream_no_info(jobs.names().jobs()).await;
        let stream = stream.map_err(|e| e.to_string())?;
        let created = with_deadline(GRACE, stream.get_or_create_consumer(&info.name, config)).await;
        created.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        tracing::warn!(consumer = info.name, "consumer was deleted externally; recreated");
        Ok(limits(info))
    }
}

fn limits(info: &consumer::Info) -> PullLimits {
    PullLimits::new(info.config.max_batch, info.config.max_expires)
}

impl PullState {
    /// Notes that a request was handled. One that is delivered again later stays in hand.
    fn finish(&mut self, handled: Result<Handled, JoinError>) {
        if let Ok(Handled { disposition, sequence }) = handled
            && disposition.is_final()
        {
            self.deliveries.finished(sequence);
        }
    }
}

/// Waits until a handler ends, or the loop is stopped.
async fn next_event(state: &mut PullState) {
    tokio::select! {
        Some(handled) = state.handlers.join_next() => state.finish(handled),
        () = state.stop.cancelled() => {}
    }
}

async fn reject_poison(
    poison: &PoisonHandler,
    handler: &Handler,
    sequence: u64,
    delivery: u64,
) -> Disposition {
    match poison.reject_received(&handler.name, sequence, delivery).await {
        Ok(()) => Disposition::Rejected,
        Err(error) => Disposition::Retrying(error),
    }
}
