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
    stream::{self, BoxStream, SelectAll},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
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
    telemetry::health::Component,
};

/// The name of the service and of its queue group.
const NAME: &str = "dispatcher";
/// How many calls are served concurrently, in addition to waiting ones.
const CONCURRENCY: usize = 256;
/// At shutdown: how long each endpoint waits for calls in flight to arrive.
const IN_FLIGHT: Duration = Duration::from_millis(250);

/// Runs the endpoints.
pub(crate) struct NatsService {
    pub(crate) client: Client,
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
        let subscriber = match waiters::subscribe(&self.client).await {
            Ok(subscriber) => subscriber,
            Err(error) => return self.health.not_ready(format!("cannot subscribe: {error}")),
        };
        let (service, mut calls) = match self.open(&stop).await {
            Ok(open) => open,
            Err(error) => return self.health.not_ready(format!("cannot open endpoints: {error}")),
        };
        let permits = Arc::new(Semaphore::new(CONCURRENCY + self.max_waiters));
        let mut tasks = JoinSet::new();
        let mut dispatching = pin!(waiters::dispatch(subscriber, self.handler.submit.waiters.clone()));
        self.health.ready();
        loop {
            tokio::select! {
                call = calls.next() => match call {
                    Some(call) => self.serve(call, &permits, &mut tasks).await,
                    // The dispatcher is stopping, or the client is closed.
                    None => break,
                },
                Some(ended) = tasks.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "the task of a call panicked");
                    }
                }
                () = &mut dispatching => break,
            }
        }
        while tasks.join_next().await.is_some() {}
        if let Err(error) = service.stop().await {
            tracing::debug!(error, "cannot stop the NATS service");
        }
    }

    /// Opens the endpoints of every template. Each ends when `stop` is cancelled, after the calls
    /// that have arrived.
    async fn open(&self, stop: &CancellationToken) -> Result<(Service, Calls), String> {
        let service = self
            .client
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
