//! The pull loop of one template: permit → messages → handlers; and the breaker that closes while the template cannot go on.
//!
//! What is asked of the server is never more than there are free permits: `ack_wait` runs from delivery. While a template
//! cannot go on (a quota, an API server in trouble, a missing right) one message at a time is tried: waiting naks would
//! fill `max_ack_pending` and block what could go on.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{
    self, Message,
    consumer::{FromConsumer, PullConsumer, pull},
    context::ConsumerInfoErrorKind,
};
use futures::{
    StreamExt,
    future::ready,
    stream::{BoxStream, SelectAll},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::{JoinError, JoinSet},
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::intake::handler::Handler;
use crate::retry::backoff;
use crate::{
    concurrency::{ConcurrencyLimiter, Reservation},
    nats::definitions::JOBS,
    telemetry::health::Component,
};
use dispatcher_core::request::breaker::CircuitBreaker;
use dispatcher_core::request::{Disposition, redelivery_delay};

/// How long one pull waits at the server. It is also how long a silent consumer goes unnoticed.
const PULL: Duration = Duration::from_secs(5);
/// After the end of a pull was due, the server is taken for silent. Less than the client's own 5 s, after which it says of
/// a silent server the same as of one that has nothing.
const GRACE: Duration = Duration::from_secs(3);
/// At shutdown: how long messages that are on their way are waited for.
const ON_THE_WAY: Duration = Duration::from_millis(250);

/// See the module.
pub struct Pull {
    /// The durable consumer of the template.
    pub consumer: PullConsumer,
    /// JetStream.
    pub context: jetstream::Context,
    /// Whether the consumer is made again where somebody has deleted it. It holds no data.
    pub may_create: bool,
    /// Handles what it delivers.
    pub handler: Arc<Handler>,
    /// Requests that may be worked on at once.
    pub concurrency: usize,
    /// Ready while requests flow.
    pub health: Component,
    /// Changes when NATS is connected again.
    pub reconnects: watch::Receiver<u64>,
    /// The template's unfinished Jobs.
    pub active: ConcurrencyLimiter,
}

/// The right to work on one request.
#[derive(Default)]
struct Permit {
    /// Not of a request that an earlier pull brings.
    concurrency: Option<OwnedSemaphorePermit>,
    /// Of a template with a limit.
    reservation: Option<Reservation>,
}

/// Pulls that were under way when the connection was lost, at most, and are listened to all the same.
const EARLIER: usize = 4;

/// What became of a request, and whether it was pulled as a probe.
struct Handled {
    disposition: Disposition,
    probe: bool,
}

/// What the loop keeps between pulls.
struct Flow {
    /// Of pulls from before a reconnect. A server that was not restarted still knows them, and delivers to them: unheard, a
    /// request would come again only after `ack_wait`. They hold no permits; there are few of them, and not for long.
    earlier: SelectAll<BoxStream<'static, (Message, Permit)>>,
    permits: Arc<Semaphore>,
    breaker: CircuitBreaker,
    handlers: JoinSet<Handled>,
    reconnects: watch::Receiver<u64>,
    stop: CancellationToken,
}

impl Pull {
    /// Pulls until `stop`; then handles what is on its way and ends when the last handler has.
    pub async fn run(self, stop: CancellationToken) {
        let permits = Arc::new(Semaphore::new(self.concurrency));
        let (handlers, reconnects) = (JoinSet::new(), self.reconnects.clone());
        let earlier = SelectAll::new();
        let mut flow = Flow {
            earlier,
            permits,
            breaker: CircuitBreaker::Closed,
            handlers,
            reconnects,
            stop: stop.clone(),
        };
        self.health.ready();
        while !stop.is_cancelled() {
            if let CircuitBreaker::Open { failures, .. } = flow.breaker {
                // Everything else is answered first; then, after a while, one message is tried.
                while let Some(handled) = flow.handlers.join_next().await {
                    self.turn(&mut flow.breaker, handled);
                }
                tokio::select! {
                    () = sleep(redelivery_delay(failures, fastrand::f64())) => {}
                    () = stop.cancelled() => break,
                }
            }
            let most = flow.breaker.limit(self.concurrency);
            tokio::select! {
                held = self.permits(&flow.permits, most) => self.pull(held, &mut flow).await,
                // At the limit of unfinished Jobs that takes as long as a Job does.
                Some(handled) = flow.handlers.join_next() => self.turn(&mut flow.breaker, handled),
                Some((message, permit)) = flow.earlier.next() => self.handle(message, permit, false, &mut flow),
                () = stop.cancelled() => break,
            }
        }
        while let Some(handled) = flow.handlers.join_next().await {
            self.turn(&mut flow.breaker, handled);
        }
    }

    /// One pull of as many messages as permits are held.
    async fn pull(&self, mut held: Vec<Permit>, flow: &mut Flow) {
        let (probe, end) = (flow.breaker.is_open(), Instant::now() + PULL + GRACE);
        let asked = self.consumer.batch().max_messages(held.len()).expires(PULL).messages();
        let mut messages = match timeout(GRACE, asked).await {
            Ok(Ok(messages)) => messages,
            Ok(Err(error)) => return self.stumble(&error.to_string(), flow).await,
            Err(_) => return self.stumble("no answer to a pull", flow).await,
        };
        loop {
            let next = tokio::select! {
                next = timeout_at(end, messages.next()) => next,
                Some(handled) = flow.handlers.join_next() => {
                    self.turn(&mut flow.breaker, handled);
                    continue;
                }
                Some((message, permit)) = flow.earlier.next() => {
                    self.handle(message, permit, false, flow);
                    continue;
                }
                // The server that knew of this pull is gone, or it is not.
                Ok(()) = flow.reconnects.changed() => {
                    if flow.earlier.len() < EARLIER {
                        // Of a template with a limit each still has its reservation.
                        let mut reservations: Vec<_> = held.into_iter().map(|permit| permit.reservation).collect();
                        let mut reservation = move || Permit { concurrency: None, reservation: reservations.pop().flatten() };
                        let rest = messages.filter_map(|message| ready(message.ok()));
                        let rest = rest.map(move |message| (message, reservation()));
                        flow.earlier.push(rest.take_until(Box::pin(sleep_until(end))).boxed());
                    }
                    return self.stumble("the connection was lost, or a stream was made anew", flow).await;
                }
                () = flow.stop.cancelled() => timeout(ON_THE_WAY, messages.next()).await,
            };
            match next {
                Ok(Some(Ok(message))) => {
                    let permit = held.pop().unwrap_or_default();
                    self.handle(message, permit, probe, flow);
                }
                Ok(None) => {
                    // The server ended the pull: it works, whether or not there was something to do.
                    if !flow.breaker.is_open() {
                        self.health.ready();
                    } else if probe && !held.is_empty() {
                        flow.breaker = flow.breaker.after_empty_probe();
                    }
                    return;
                }
                Err(_) if flow.stop.is_cancelled() => return,
                Ok(Some(Err(error))) => return self.stumble(&error.to_string(), flow).await,
                Err(_) => return self.stumble("the server went silent", flow).await,
            }
        }
    }

    fn handle(&self, message: Message, permit: Permit, probe: bool, flow: &mut Flow) {
        let handler = self.handler.clone();
        flow.handlers.spawn(async move {
            let Permit { concurrency, reservation } = permit;
            let disposition = handler.handle(message, reservation).await;
            drop(concurrency);
            Handled { disposition, probe }
        });
    }

    /// Waits for a permit and takes what is free beyond it, up to `most`; of a template with a limit, no more than that leaves.
    async fn permits(&self, permits: &Arc<Semaphore>, most: usize) -> Vec<Permit> {
        let held = take(permits, most).await;
        let template = &self.handler.template;
        let reservations = match template.max_active.and_then(|limit| usize::try_from(limit.get()).ok()) {
            None => held.iter().map(|_| None).collect(),
            Some(limit) => {
                let reservations = self.active.reserve(&template.name, limit, held.len()).await;
                reservations.into_iter().map(Some).collect::<Vec<_>>()
            }
        };
        held.into_iter()
            .zip(reservations)
            .map(|(held, reservation)| Permit { concurrency: Some(held), reservation })
            .collect()
    }

    fn turn(&self, breaker: &mut CircuitBreaker, handled: Result<Handled, JoinError>) {
        let Handled { disposition, probe } = handled.unwrap_or_else(|error| {
            // Which it was is not known: rather too long a delay than a handler that dies again and again.
            Handled { disposition: Disposition::Retrying(format!("a handler died: {error}")), probe: true }
        });
        let was_open = breaker.is_open();
        *breaker = breaker.after(&disposition, probe, self.concurrency);
        let template = &self.handler.template.name;
        match disposition {
            Disposition::Created | Disposition::Exists => self.health.ready(),
            Disposition::Rejected => {}
            // Once an outage; after that they are many and say the same.
            Disposition::Retrying(reason) if was_open => {
                tracing::debug!(%template, reason, "a request is put back")
            }
            Disposition::Retrying(reason) => {
                tracing::warn!(%template, reason, "a request is put back; one at a time is tried until it goes on");
            }
            Disposition::Blocked(reason) => self.health.not_ready(reason),
        }
    }

    /// A pull that failed: told, and tried again when the consumer answers.
    async fn stumble(&self, error: &str, flow: &mut Flow) {
        let name = self.handler.template.name.consumer_name();
        self.health.not_ready(format!("consumer {name}: {error}"));
        for delay in backoff() {
            tokio::select! {
                () = sleep(delay) => {}
                () = flow.stop.cancelled() => return,
            }
            match self.recover().await {
                Ok(()) => {
                    // A template that cannot go on is ready again when a request of it is retired.
                    if !flow.breaker.is_open() {
                        self.health.ready();
                    }
                    return;
                }
                Err(error) => self.health.not_ready(format!("consumer {name} of stream JOBS: {error}")),
            }
        }
    }

    /// Whether the stream and the consumer are there; a consumer that is not is made again, as it was.
    async fn recover(&self) -> Result<(), String> {
        self.handler.stream.refresh(&self.context).await?;
        let error = match timeout(GRACE, self.consumer.get_info()).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => error,
            Err(_) => return Err("no answer".to_owned()),
        };
        if error.kind() != ConsumerInfoErrorKind::NotFound || !self.may_create {
            return Err(error.to_string());
        }
        let info = self.consumer.cached_info();
        let config =
            pull::Config::try_from_consumer_config(info.config.clone()).map_err(|e| e.to_string())?;
        let stream = self.context.get_stream_no_info(JOBS).await.map_err(|e| e.to_string())?;
        let made = timeout(GRACE, stream.get_or_create_consumer(&info.name, config)).await;
        made.map_err(|_| "no answer".to_owned())?.map_err(|e| e.to_string())?;
        tracing::warn!(consumer = info.name, "somebody has deleted it; it is made again");
        Ok(())
    }
}

/// Waits for a permit and takes what is free beyond it, up to `most`.
async fn take(permits: &Arc<Semaphore>, most: usize) -> Vec<OwnedSemaphorePermit> {
    let mut held: Vec<_> = permits.clone().acquire_owned().await.into_iter().collect();
    while held.len() < most {
        match permits.clone().try_acquire_owned() {
            Ok(permit) => held.push(permit),
            Err(_) => break,
        }
    }
    held
}
