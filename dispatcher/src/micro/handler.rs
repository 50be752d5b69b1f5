//! Receives the calls of the NATS service and answers them, bounded in number and bytes.
//!
//! The receiving loop never waits for NATS. It refuses or drops a call for which there is no place,
//! so the buffers of the client library stay short.

use std::{collections::BTreeMap, pin::pin, sync::Arc, time::Duration};

use async_nats::Message;
use bytes::Bytes;
use dispatcher_core::{
    contract::{names::TemplateName, rejection::Reason},
    template::{Template, catalog::Entry},
};
use futures::{
    StreamExt,
    stream::{BoxStream, SelectAll},
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    micro::{
        answer::Answerer,
        api::{self, Verb},
        call::{Call, Caller},
        cancel::CancelHandler,
        discovery::{Discovery, Question},
        endpoint::Endpoint,
        error::{ErrorCode, ServiceError},
        history::History,
        lookup::{Lookups, get},
        places::{Place, Places},
        submit::SubmitHandler,
        waiters,
    },
    nats::{connection::Connection, subscription},
    telemetry::health::Component,
    templates::served::ServedTemplates,
};

/// How many calls are served concurrently, in addition to waiting ones.
const CONCURRENCY: usize = 256;
/// How many refusals are sent concurrently. Beyond that, a refused caller times out.
const REFUSALS: usize = 256;
/// How many questions of the discovery wait for their answer. Beyond that, they are dropped.
const QUESTIONS: usize = 64;

/// Runs the endpoints.
pub(crate) struct NatsService {
    /// The connections that receive calls: a message that cannot be decoded ends one of them.
    pub(crate) receivers: Vec<Connection>,
    /// The connection that receives the events that callers wait for.
    pub(crate) events: Connection,
    /// The connection that answers leave by.
    pub(crate) sender: Connection,
    pub(crate) templates: ServedTemplates,
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

/// The open endpoints.
#[derive(Default)]
struct Open {
    calls: Calls,
    templates: BTreeMap<TemplateName, OpenTemplate>,
}

/// The endpoints of one template, until they are closed.
struct OpenTemplate {
    endpoints: Vec<Arc<Endpoint>>,
    close: CancellationToken,
}

/// What bounds the calls in progress.
struct Limits {
    places: Places,
    refusals: Arc<Semaphore>,
}

impl NatsService {
    /// Serves until `stop` is cancelled, then answers the calls in flight.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let events = waiters::subscribe(&self.events).await;
        let mut open = Open::default();
        let discovery = Arc::new(Discovery::new(self.sender.names().clone(), Vec::new()));
        self.follow_templates(&mut open, &discovery, &stop).await;
        let mut questions = self.subscribe_to_discovery(&discovery.id, &stop).await;
        let mut templates = self.templates.clone();
        let answerer = Answerer::new(self.sender.client());
        let counted = self.templates.clone();
        let limits = Limits {
            places: Places::new(CONCURRENCY + self.max_waiters, Arc::new(move || counted.count())),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
        };
        let (asked, to_answer) = mpsc::channel(QUESTIONS);
        let mut tasks = JoinSet::new();
        let mut dispatching =
            pin!(waiters::dispatch(self.events.names().clone(), events, self.handler.submit.waiters.clone()));
        let mut discovering = pin!(answer_questions(discovery.clone(), answerer.clone(), to_answer));
        self.health.ready();
        loop {
            tokio::select! {
                // `None` once the last endpoint is closed; then the next turn can stop.
                call = open.calls.next(), if !open.calls.is_empty() => {
                    if let Some((endpoint, message)) = call {
                        self.serve(endpoint, &message, &answerer, &limits, &mut tasks);
                    }
                }
                () = templates.changed(), if !stop.is_cancelled() => {
                    self.follow_templates(&mut open, &discovery, &stop).await;
                }
                // The dispatcher is stopping, and every call that arrived has its task.
                () = stop.cancelled(), if open.calls.is_empty() => break,
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

    /// Opens the endpoints of new templates, describes changed ones, and closes those of templates
    /// that are gone.
    async fn follow_templates(&self, open: &mut Open, discovery: &Discovery, stop: &CancellationToken) {
        let catalog = self.templates.catalog();
        open.templates.retain(|name, template| {
            let is_served = catalog.get(name).is_some();
            if !is_served {
                template.close.cancel();
            }
            is_served
        });
        for (name, entry) in catalog.entries() {
            if let Some(known) = open.templates.get(name) {
                known.endpoints.iter().for_each(|endpoint| endpoint.describe(&entry.template));
            } else {
                let template = self.open(entry, &mut open.calls, stop.child_token()).await;
                open.templates.insert(name.clone(), template);
            }
        }
        discovery.set(open.templates.values().flat_map(|template| template.endpoints.clone()).collect());
    }

    /// Subscribes to the endpoints of a template on each connection. The subscriptions end when
    /// `close` is cancelled, after the messages that have arrived.
    async fn open(&self, entry: &Entry, calls: &mut Calls, close: CancellationToken) -> OpenTemplate {
        let names = self.sender.names();
        let endpoints = Verb::ALL.map(|verb| Arc::new(Endpoint::new(names, &entry.template, verb))).to_vec();
        for receiver in &self.receivers {
            for endpoint in &endpoints {
                let subject = in_group(endpoint.subject.clone(), names.service());
                let messages = subscription::subscribe(receiver, subject, close.clone()).await;
                let endpoint = endpoint.clone();
                calls.push(messages.map(move |message| (endpoint.clone(), message)).boxed());
            }
        }
        OpenTemplate { endpoints, close }
    }

    async fn subscribe_to_discovery(&self, id: &str, stop: &CancellationToken) -> Questions {
        let mut questions = SelectAll::new();
        for receiver in &self.receivers {
            for question in Question::ALL {
                for subject in question.subjects(self.sender.names().service(), id) {
                    // One connection of this replica answers.
                    let messages =
                        subscription::subscribe(receiver, in_group(subject, id), stop.clone()).await;
                    questions.push(messages.map(move |message| (question, message)).boxed());
                }
            }
        }
        questions
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
        let place = || limits.places.take(&endpoint.template).ok_or_else(overloaded);
        let admitted = Call::of(message).and_then(|call| Ok((call, place()?)));
        let answerer = answerer.clone();
        match admitted {
            Ok((call, place)) => {
                let (handler, entry) = (self.handler.clone(), self.templates.entry(&endpoint.template));
                tasks.spawn(async move {
                    handler.handle((&endpoint, entry), (caller, call), place, &answerer).await;
                });
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

fn in_group(name: String, queue_group: &str) -> subscription::Subject {
    subscription::Subject { name, queue_group: Some(queue_group.to_owned()) }
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

impl Handler {
    /// The answer to a call.
    ///
    /// # Errors
    /// Those of the endpoint.
    pub(crate) async fn call(
        &self,
        verb: Verb,
        template: &Template,
        call: Call,
    ) -> Result<Bytes, ServiceError> {
        let Call { headers, payload, submitter } = call;
        match verb {
            Verb::Submit => self.submit.submit(template, &headers, payload, submitter).await,
            Verb::Cancel => {
                let target = api::parse_cancel(&payload)?;
                self.cancel.cancel(template, &target, submitter).await
            }
            Verb::Get => {
                let name = api::parse_get(&payload)?;
                get(&self.history, &self.lookups, template, &name).await
            }
        }
    }

    /// Handles a call and answers it. The place is held until the answer is sent, so that the
    /// answers in memory are bounded too.
    async fn handle(
        &self,
        (endpoint, entry): (&Endpoint, Option<Entry>),
        (caller, call): (Caller, Call),
        place: Place,
        answerer: &Answerer,
    ) {
        let answer = match entry {
            Some(entry) if endpoint.verb != Verb::Submit || !entry.deleting => {
                self.call(endpoint.verb, &entry.template, call).await
            }
            _ => Err(deleted(&endpoint.template)),
        };
        endpoint.count(caller.received.elapsed(), answer.as_ref().err());
        if let Err(error) = &answer {
            tracing::debug!(subject = endpoint.subject, error = error.text(), "call refused");
        }
        answerer.send(&caller, answer).await;
        drop(place);
    }
}

fn deleted(template: &TemplateName) -> ServiceError {
    let message = format!("the template {template} is being deleted; it accepts no new requests");
    ServiceError::new(ErrorCode::Rejected(Reason::TemplateDeleted), message)
}
