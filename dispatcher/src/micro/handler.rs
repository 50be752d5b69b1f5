//! Receives the calls of the NATS service and answers them, bounded in number and bytes.
//!
//! The receiving loop never waits for NATS. It refuses or drops a call for which there is no place,
//! so the buffers of the client library stay short.

use std::{collections::HashMap, pin::pin, sync::Arc, time::Duration};

use async_nats::{Client, Message, Subscriber};
use bytes::Bytes;
use dispatcher_core::{contract::names::TemplateName, template::Template};
use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream, SelectAll},
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    micro::{
        answer::Answerer,
        api::{self, Verb},
        call::{Call, Caller},
        cancel::CancelHandler,
        discovery::{Discovery, NAME, Question},
        endpoint::Endpoint,
        error::{ErrorCode, ServiceError},
        history::History,
        lookup::{Lookups, get},
        places::{Place, Places},
        submit::SubmitHandler,
        waiters,
    },
    telemetry::health::Component,
};

/// How many calls are served concurrently, in addition to waiting ones.
const CONCURRENCY: usize = 256;
/// How many refusals are sent concurrently. Beyond that, a refused caller times out.
const REFUSALS: usize = 256;
/// How many questions of the discovery wait for their answer. Beyond that, they are dropped.
const QUESTIONS: usize = 64;
/// At shutdown: how long each endpoint waits for calls in flight to arrive.
const IN_FLIGHT: Duration = Duration::from_millis(250);

/// Runs the endpoints.
pub(crate) struct NatsService {
    /// The connection that receives calls.
    pub(crate) receiver: Client,
    /// The connection that answers leave by.
    pub(crate) sender: Client,
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
    pub(crate) lookups: Lookups,
}

type Calls = SelectAll<BoxStream<'static, (Arc<Endpoint>, Message)>>;
type Questions = SelectAll<BoxStream<'static, (Question, Message)>>;

/// What bounds the calls in progress.
struct Limits {
    places: Places,
    refusals: Arc<Semaphore>,
}

impl NatsService {
    /// Serves until `stop` is cancelled, then answers the calls in flight.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let subscriber = match waiters::subscribe(&self.receiver).await {
            Ok(subscriber) => subscriber,
            Err(error) => return self.health.not_ready(format!("cannot subscribe: {error}")),
        };
        let endpoints = self.endpoints();
        let discovery = Arc::new(Discovery::new(endpoints.clone()));
        let (mut calls, mut questions) = match self.subscribe(endpoints, &discovery.id, &stop).await {
            Ok(open) => open,
            Err(error) => return self.health.not_ready(format!("cannot open endpoints: {error}")),
        };
        let answerer = Answerer::new(self.sender.clone());
        let limits = Limits {
            places: Places::new(CONCURRENCY + self.max_waiters, self.templates.len()),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
        };
        let (asked, to_answer) = mpsc::channel(QUESTIONS);
        let mut tasks = JoinSet::new();
        let mut dispatching = pin!(waiters::dispatch(subscriber, self.handler.submit.waiters.clone()));
        let mut discovering = pin!(answer_questions(discovery, answerer.clone(), to_answer));
        self.health.ready();
        loop {
            tokio::select! {
                call = calls.next() => match call {
                    Some((endpoint, message)) => {
                        self.serve(endpoint, &message, &answerer, &limits, &mut tasks);
                    }
                    // The dispatcher is stopping, or the client is closed.
                    None => break,
                },
                Some((question, message)) = questions.next() => {
                    let _ = asked.try_send((question, Caller::of(&message)));
                }
                Some(ended) = tasks.join_next() => log_panic(ended),
                () = &mut dispatching => break,
                () = &mut discovering => break,
            }
        }
        while let Some(ended) = tasks.join_next().await {
            log_panic(ended);
        }
    }

    fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        let mut templates: Vec<_> = self.templates.values().cloned().collect();
        templates.sort_by(|a, b| a.name.cmp(&b.name));
        let of =
            |template: Arc<Template>| Verb::ALL.map(|verb| Arc::new(Endpoint::new(template.clone(), verb)));
        templates.into_iter().flat_map(of).collect()
    }

    /// Subscribes to the endpoints and the discovery. The endpoints end when `stop` is cancelled,
    /// after the calls that have arrived.
    async fn subscribe(
        &self,
        endpoints: Vec<Arc<Endpoint>>,
        id: &str,
        stop: &CancellationToken,
    ) -> Result<(Calls, Questions), String> {
        let (mut calls, mut questions) = (SelectAll::new(), SelectAll::new());
        for endpoint in endpoints {
            let subscriber = self.receiver.queue_subscribe(endpoint.subject.clone(), NAME.to_owned());
            let messages = messages_until(subscriber.await.map_err(|e| e.to_string())?, stop.clone());
            calls.push(messages.map(move |message| (endpoint.clone(), message)).boxed());
        }
        for question in Question::ALL {
            for subject in question.subjects(id) {
                let subscriber = self.receiver.subscribe(subject).await.map_err(|e| e.to_string())?;
                questions.push(subscriber.map(move |message| (question, message)).boxed());
            }
        }
        Ok((calls, questions))
    }

    /// Handles a call in a new task, or refuses it if it is too large or too many are being served.
    fn serve(
        &self,
        endpoint: Arc<Endpoint>,
        message: &Message,
        answerer: &Answerer,
        limits: &Limits,
        tasks: &mut JoinSet<()>,
    ) {
        let caller = Caller::of(message);
        let place = || limits.places.take(&endpoint.template.name).ok_or_else(overloaded);
        let admitted = Call::of(message).and_then(|call| Ok((call, place()?)));
        let answerer = answerer.clone();
        match admitted {
            Ok((call, place)) => {
                let handler = self.handler.clone();
                tasks.spawn(async move { handler.handle(&endpoint, (caller, call), place, &answerer).await });
            }
            Err(error) => {
                endpoint.count(Duration::ZERO, Some(&error));
                if let Ok(permit) = limits.refusals.clone().try_acquire_owned() {
                    tasks.spawn(async move {
                        answerer.send(&caller, Err(error)).await;
                        drop(permit);
                    });
                }
            }
        }
    }
}

fn overloaded() -> ServiceError {
    let message = "too many calls are being served, or too many of this template; retry later";
    ServiceError::new(ErrorCode::Overloaded, message)
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "the task of a call panicked");
    }
}

/// Answers the discovery one by one, so that a flood of questions keeps one answer in memory.
async fn answer_questions(
    discovery: Arc<Discovery>,
    answerer: Answerer,
    mut asked: mpsc::Receiver<(Question, Caller)>,
) {
    while let Some((question, caller)) = asked.recv().await {
        let answer = discovery.answer(question, answerer.max_payload());
        answerer.send(&caller, Ok(answer)).await;
    }
}

/// The messages of an endpoint, until `stop` is cancelled and those in flight have arrived.
fn messages_until(subscriber: Subscriber, stop: CancellationToken) -> impl Stream<Item = Message> + Send {
    stream::unfold((subscriber, stop), |(mut subscriber, stop)| async move {
        let next = tokio::select! {
            next = subscriber.next() => next,
            () = stop.cancelled() => {
                // Another replica gets later calls; this one answers those it has received.
                if let Err(error) = subscriber.unsubscribe().await {
                    tracing::debug!(%error, "cannot stop an endpoint");
                }
                timeout(IN_FLIGHT, subscriber.next()).await.ok().flatten()
            }
        };
        next.map(|message| (message, (subscriber, stop)))
    })
}

impl Handler {
    /// Handles a call and answers it. The place is held until the answer is sent, so that the
    /// answers in memory are bounded too.
    async fn handle(
        &self,
        endpoint: &Endpoint,
        (caller, call): (Caller, Call),
        place: Place,
        answerer: &Answerer,
    ) {
        let Call { headers, payload, submitter } = call;
        let template = &*endpoint.template;
        let answer: Result<Bytes, ServiceError> = match endpoint.verb {
            Verb::Submit => self.submit.submit(template, &headers, payload, submitter).await,
            Verb::Cancel => match api::parse_cancel(&payload) {
                Ok(target) => self.cancel.cancel(template, &target, submitter).await,
                Err(error) => Err(error),
            },
            Verb::Get => match api::parse_get(&payload) {
                Ok(name) => get(&self.history, &self.lookups, template, &name).await,
                Err(error) => Err(error),
            },
        };
        endpoint.count(caller.received.elapsed(), answer.as_ref().err());
        if let Err(error) = &answer {
            tracing::debug!(subject = endpoint.subject, error = error.text(), "call refused");
        }
        answerer.send(&caller, answer).await;
        drop(place);
    }
}
