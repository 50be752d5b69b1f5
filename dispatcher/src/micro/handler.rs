//! Runs the endpoints of the NATS service and answers their calls, with bounded concurrency.

use std::{collections::HashMap, pin::pin, sync::Arc, time::Duration};

use async_nats::{
    Client,
    service::{Request, Service, ServiceExt, endpoint::Endpoint},
};
use bytes::Bytes;
use dispatcher_core::{contract::names::TemplateName, template::Template};
use futures::{
    Stream, StreamExt,
    future::join_all,
    stream::{self, BoxStream, SelectAll},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    micro::{
        api::{self, Verb},
        cancel::CancelHandler,
        error::{ErrorCode, ServiceError},
        history::History,
        lookup::{Queue, get},
        submit::SubmitHandler,
        waiters,
    },
    nats::connection::Connection,
    telemetry::health::Component,
};

/// The name of the service and of its queue group.
const NAME: &str = "dispatcher";
/// How many calls are served concurrently, in addition to waiting ones.
const CONCURRENCY: usize = 256;
/// How often endpoints that cannot be opened are tried again.
const RETRY: Duration = Duration::from_millis(500);
/// At shutdown: how long each endpoint waits for calls in flight to arrive.
const IN_FLIGHT: Duration = Duration::from_millis(250);

/// Runs the endpoints.
pub(crate) struct NatsService {
    /// Receive calls. A poison message can end them.
    pub(crate) receivers: Vec<Connection>,
    /// Receives the events that callers wait for.
    pub(crate) events: Connection,
    pub(crate) templates: Arc<HashMap<TemplateName, Arc<Template>>>,
    pub(crate) handler: Arc<Handler>,
    /// How many callers may wait for an event.
    pub(crate) max_waiters: usize,
    /// Ready while the endpoints are open.
    pub(crate) health: Component,
}

/// Handles calls.
pub(crate) struct Handler {
    pub(crate) submit: SubmitHandler,
    pub(crate) cancel: CancelHandler,
    pub(crate) history: History,
    pub(crate) queue: Queue,
}

/// A received call.
struct Call {
    verb: Verb,
    template: Arc<Template>,
    request: Request,
}

type Calls = SelectAll<BoxStream<'static, Call>>;

impl NatsService {
    /// Serves until `stop` is cancelled, then answers the calls in flight.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let events = match waiters::subscribe(&self.events, stop.clone()).await {
            Ok(events) => events,
            Err(error) => return self.health.not_ready(format!("cannot subscribe: {error}")),
        };
        let permits = Arc::new(Semaphore::new(CONCURRENCY + self.max_waiters));
        let mut tasks = JoinSet::new();
        let mut dispatching = pin!(waiters::dispatch(events, self.handler.submit.waiters.clone()));
        let (sender, mut calls) = mpsc::channel(1);
        let receivers = self.receivers.iter().map(|receiver| self.receive(receiver, sender.clone(), &stop));
        let mut receiving = pin!(join_all(receivers));
        drop(sender);
        loop {
            tokio::select! {
                Some(call) = calls.recv() => self.serve(call, &permits, &mut tasks).await,
                Some(ended) = tasks.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "the task of a call panicked");
                    }
                }
                // The dispatcher is stopping.
                _ = &mut receiving => break,
                () = &mut dispatching, if !stop.is_cancelled() => break,
            }
        }
        while let Ok(call) = calls.try_recv() {
            self.serve(call, &permits, &mut tasks).await;
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Receives calls on one connection until `stop` is cancelled. Opens the endpoints again
    /// whenever its client is replaced.
    async fn receive(&self, receiver: &Connection, calls: mpsc::Sender<Call>, stop: &CancellationToken) {
        let mut changes = receiver.changes();
        while !stop.is_cancelled() {
            match self.open(&receiver.client(), stop).await {
                Ok((service, mut open)) => {
                    self.health.ready();
                    while let Some(call) = open.next().await {
                        if calls.send(call).await.is_err() {
                            return;
                        }
                    }
                    if let Err(error) = service.stop().await {
                        tracing::debug!(error, "cannot stop the NATS service");
                    }
                }
                Err(error) => tracing::debug!(error, "cannot open the endpoints"),
            }
            // The client has ended.
            let _ = stop.run_until_cancelled(timeout(RETRY, changes.changed())).await;
        }
    }

    /// Opens the endpoints of every template. Each ends when `stop` is cancelled, after the calls
    /// that have arrived.
    async fn open(&self, client: &Client, stop: &CancellationToken) -> Result<(Service, Calls), String> {
        let service = client
            .service_builder()
            .description("Turns requests into Kubernetes Jobs and publishes their status")
            .queue_group(NAME)
            .start(NAME, env!("CARGO_PKG_VERSION"))
            .await
            .map_err(|e| e.to_string())?;
        let mut calls = SelectAll::new();
        for (name, template) in self.templates.iter() {
            for verb in Verb::ALL {
                let endpoint = service
                    .endpoint_builder()
                    .name(format!("{}-{name}", verb.as_str()))
                    .metadata(verb.metadata(template))
                    .add(format!("jobs.{name}.{}", verb.as_str()))
                    .await
                    .map_err(|e| e.to_string())?;
                let template = template.clone();
                let call = move |request| Call { verb, template: template.clone(), request };
                calls.push(requests_until(endpoint, stop.clone()).map(call).boxed());
            }
        }
        Ok((service, calls))
    }

    /// Handles a call in a new task, or refuses it if too many are being served.
    async fn serve(&self, call: Call, permits: &Arc<Semaphore>, tasks: &mut JoinSet<()>) {
        if let Ok(permit) = permits.clone().try_acquire_owned() {
            let handler = self.handler.clone();
            tasks.spawn(async move { handler.handle(call, permit).await });
        } else {
            let message = "too many calls are being served; retry later";
            respond(&call.request, Err(ServiceError::new(ErrorCode::Overloaded, message))).await;
        }
    }
}

/// The requests of an endpoint, until `stop` is cancelled and those in flight have arrived.
fn requests_until(endpoint: Endpoint, stop: CancellationToken) -> impl Stream<Item = Request> + Send {
    stream::unfold((endpoint, stop), |(mut endpoint, stop)| async move {
        let next = tokio::select! {
            next = endpoint.next() => next,
            () = stop.cancelled() => {
                // Another replica gets later requests; this one answers those it has received.
                if let Err(error) = endpoint.stop().await {
                    tracing::debug!(%error, "cannot stop an endpoint");
                }
                timeout(IN_FLIGHT, endpoint.next()).await.ok().flatten()
            }
        };
        next.map(|request| (request, (endpoint, stop)))
    })
}

impl Handler {
    async fn handle(&self, call: Call, permit: OwnedSemaphorePermit) {
        let Call { verb, template, request } = call;
        let (headers, payload) = (request.message.headers.as_ref(), &request.message.payload);
        let answer = match verb {
            Verb::Submit => self.submit.submit(&template, headers, payload.clone()).await,
            Verb::Cancel => match api::parse_cancel(payload) {
                Ok(target) => self.cancel.cancel(&template, &target).await,
                Err(error) => Err(error),
            },
            Verb::Get => match api::parse_get(payload) {
                Ok(name) => get(&self.history, &self.queue, &template, &name).await,
                Err(error) => Err(error),
            },
        };
        respond(&request, answer).await;
        drop(permit);
    }
}

/// Answers a request; one without a reply subject gets no answer.
async fn respond(request: &Request, answer: Result<Bytes, ServiceError>) {
    let sent = match answer {
        Ok(payload) => request.respond(Ok(payload)).await,
        Err(error) => {
            tracing::debug!(subject = %request.message.subject, error = %error.error(), "call refused");
            request.respond_with_headers(Err(error.error()), error.headers()).await
        }
    };
    if let Err(error) = sent {
        tracing::debug!(%error, "cannot send an answer");
    }
}
