//! The micro service itself: its endpoints, a bounded number of requests at once, and the answers.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_nats::{
    Client,
    service::{Request, Service, ServiceExt, endpoint::Endpoint},
};
use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{self, BoxStream, SelectAll},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::micro::{
    cancel::Cancelling,
    error::{ErrorCode, ServiceError},
    get::get,
    history::History,
    listen, query,
    queue::Queue,
    schema,
    submit::Submit,
};
use crate::telemetry::health::Component;
use dispatcher_core::{contract::names::TemplateName, template::Template};

/// The name of the service, and of its queue group.
const NAME: &str = "dispatcher";
/// Requests that are served at once, beside those that wait for an event.
const AT_ONCE: usize = 256;
/// At shutdown: how long requests that are on their way are waited for.
const ON_THE_WAY: Duration = Duration::from_millis(250);

/// See the module.
pub struct Serve {
    /// The connection.
    pub client: Client,
    /// The templates, by template.
    pub templates: Arc<HashMap<TemplateName, Arc<Template>>>,
    /// Handles the requests.
    pub desk: Arc<Handler>,
    /// How many callers may wait for an event.
    pub waiting: usize,
    /// Ready while the endpoints are open.
    pub health: Component,
}

/// Where the requests are answered.
pub struct Handler {
    /// `submit`.
    pub submit: Submit,
    /// `cancel`.
    pub cancel: Cancelling,
    /// What is stored.
    pub history: History,
    /// The requests that are stored.
    pub queue: Queue,
}

/// What an endpoint is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Submit,
    Cancel,
    Get,
}

type Query = (Verb, Arc<Template>, Request);

impl Verb {
    const ALL: [Self; 3] = [Self::Submit, Self::Cancel, Self::Get];

    fn as_str(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Cancel => "cancel",
            Self::Get => "get",
        }
    }

    fn metadata(self, template: &Template) -> HashMap<String, String> {
        match self {
            Self::Submit => schema::metadata(&schema::request(template), &schema::accepted()),
            Self::Cancel => schema::metadata(&schema::by_name_or_id(), &schema::cancelled()),
            Self::Get => schema::metadata(&schema::by_name(), &schema::event()),
        }
    }
}

impl Serve {
    /// Serves until `stop`; then answers what is on its way and ends.
    pub async fn run(self, stop: CancellationToken) {
        let subscriber = match listen::subscribe(&self.client).await {
            Ok(subscriber) => subscriber,
            Err(error) => return self.health.not_ready(format!("no subscription: {error}")),
        };
        let (service, mut requests) = match self.open(&stop).await {
            Ok(open) => open,
            Err(error) => return self.health.not_ready(format!("no endpoint: {error}")),
        };
        let places = Arc::new(Semaphore::new(AT_ONCE + self.waiting));
        let mut tasks = JoinSet::new();
        let mut listener = std::pin::pin!(listen::listen(subscriber, self.desk.submit.waiting.clone()));
        self.health.ready();
        loop {
            tokio::select! {
                // Every endpoint has ended: the service is stopping, or the connection is closed for good.
                request = requests.next() => match request {
                    Some(request) => self.serve(request, &places, &mut tasks).await,
                    None => break,
                },
                Some(ended) = tasks.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a request's task has died");
                    }
                }
                () = &mut listener => break,
            }
        }
        while tasks.join_next().await.is_some() {}
        if let Err(error) = service.stop().await {
            tracing::debug!(error, "the micro service was not stopped");
        }
    }

    /// Makes the endpoints of every template; each ends when `stop` is cancelled and what had arrived is taken.
    async fn open(
        &self,
        stop: &CancellationToken,
    ) -> Result<(Service, SelectAll<BoxStream<'static, Query>>), String> {
        let service = self
            .client
            .service_builder()
            .description("Turns requests into Kubernetes Jobs, and tells what became of them")
            .queue_group(NAME)
            .start(NAME, env!("CARGO_PKG_VERSION"))
            .await
            .map_err(|e| e.to_string())?;
        let mut requests = SelectAll::new();
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
                let asked = until(endpoint, stop.clone()).map(move |r| (verb, template.clone(), r));
                requests.push(asked.boxed());
            }
        }
        Ok((service, requests))
    }

    /// Answers in a task of its own, or at once where all places are taken.
    async fn serve(&self, asked: Query, places: &Arc<Semaphore>, tasks: &mut JoinSet<()>) {
        let (verb, template, request) = asked;
        match places.clone().try_acquire_owned() {
            Ok(place) => {
                let desk = self.desk.clone();
                tasks.spawn(async move { desk.handle(verb, &template, request, place).await });
            }
            Err(_) => {
                let message = "too many requests are served at once; ask again later";
                respond(&request, Err(ServiceError::new(ErrorCode::Overloaded, message))).await;
            }
        }
    }
}

/// The requests of an endpoint, until `stop` and what has arrived by then.
fn until(endpoint: Endpoint, stop: CancellationToken) -> impl futures::Stream<Item = Request> + Send {
    stream::unfold((endpoint, stop), |(mut endpoint, stop)| async move {
        let next = tokio::select! {
            next = endpoint.next() => next,
            () = stop.cancelled() => {
                // Unsubscribed, so that another replica gets what comes from now on; what is here is answered.
                if let Err(error) = endpoint.stop().await {
                    tracing::debug!(%error, "an endpoint was not stopped");
                }
                timeout(ON_THE_WAY, endpoint.next()).await.ok().flatten()
            }
        };
        next.map(|request| (request, (endpoint, stop)))
    })
}

impl Handler {
    async fn handle(&self, verb: Verb, template: &Template, request: Request, place: OwnedSemaphorePermit) {
        let message = &request.message;
        let answer = match verb {
            Verb::Submit => {
                self.submit.submit(template, message.headers.as_ref(), message.payload.clone()).await
            }
            Verb::Cancel => match query::cancel(&message.payload) {
                Ok(target) => self.cancel.cancel(template, &target).await,
                Err(refusal) => Err(refusal),
            },
            Verb::Get => match query::get(&message.payload) {
                Ok(name) => get(&self.history, &self.queue, template, &name).await,
                Err(refusal) => Err(refusal),
            },
        };
        respond(&request, answer).await;
        drop(place);
    }
}

/// Answers; whoever sent no reply subject hears nothing.
async fn respond(request: &Request, answer: Result<Bytes, ServiceError>) {
    let sent = match answer {
        Ok(payload) => request.respond(Ok(payload)).await,
        Err(refusal) => {
            tracing::debug!(subject = %request.message.subject, error = %refusal.error(), "refused");
            request.respond_with_headers(Err(refusal.error()), refusal.headers()).await
        }
    };
    if let Err(error) = sent {
        tracing::debug!(%error, "an answer is not sent");
    }
}
