//! One request's way: identify, read, build, launch, first event; and what is answered to the stream.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_nats::jetstream::{AckKind, Message};
use time::OffsetDateTime;
use tokio::time::{error::Elapsed, timeout};

use super::{
    HANDLE_DEADLINE, delay,
    fate::Fate,
    job,
    launch::{Launched, Launcher},
    reject::{DeadLetters, Letter},
    request::{Envelope, Identity, Request},
};
use crate::{
    active::Slot,
    cancels::Cancels,
    contract::{
        headers::{NATS_MSG_ID, trace_of},
        rejection::{Reason, Rejection},
        template::Template,
        trace::Trace,
    },
    metrics::{Answered, Metrics},
    nats::origin::Origin,
    spans::{Answer, Carried, Delivered, Spans},
    status::Writer,
};

/// How long the server may take to confirm an ack.
const ACK_DEADLINE: Duration = Duration::from_secs(5);

/// What the pull loop learns of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The request has its Job.
    Settled,
    /// The request is rejected.
    Rejected,
    /// It was put back: this kind cannot go on, and why.
    Retry(String),
    /// It was put back: nothing can go on until somebody mends something.
    NotReady(String),
}

/// Handles the requests of one kind.
pub struct Handler {
    /// The kind.
    pub template: Arc<Template>,
    /// Which `JOBS` it is.
    pub stream: Origin,
    /// Requests up to this sequence were there at the start: another consumer or process may have had them.
    pub maybe_seen: u64,
    /// Creates Jobs.
    pub launcher: Launcher,
    /// What is cancelled.
    pub cancels: Cancels,
    /// Keeps rejected requests.
    pub dead_letters: DeadLetters,
    /// Says the first event.
    pub writer: Writer,
    /// Where the answers are counted.
    pub metrics: Metrics,
    /// Where the deliveries are told.
    pub spans: Spans,
}

/// How a request was found or made done.
enum Handled {
    /// It has a Job: by this delivery, or before.
    Job {
        created: bool,
    },
    Rejected,
}

/// A message, read as far as nothing can fail.
struct Delivery<'a> {
    identity: Result<Identity, (Identity, Rejection)>,
    /// The request's own trace.
    trace: Option<Trace>,
    /// What it is passed on with.
    carried: Carried,
    began: SystemTime,
    stored: OffsetDateTime,
    again: bool,
    delivered: i64,
    message: &'a Message,
}

impl Handler {
    /// Handles one message and answers it: ack, nak with a delay, or term. With the slot of a kind that has a limit.
    pub async fn handle(&self, message: Message, slot: Option<Slot>) -> Verdict {
        let delivery = match self.read(&message) {
            Ok(delivery) => delivery,
            Err(error) => return Verdict::Retry(error),
        };
        let done = timeout(HANDLE_DEADLINE, self.process(&delivery, slot)).await;
        let created = matches!(done, Ok(Ok(Handled::Job { created: true })));
        let verdict = self.conclude(&delivery, done).await;
        let answered = answered(&verdict, created);
        self.metrics.answered(&self.template.kind, answered, delivery.stored);
        self.tell(&delivery, answered, &verdict);
        verdict
    }

    fn tell(&self, delivery: &Delivery<'_>, answered: Answered, verdict: &Verdict) {
        let (Ok(identity) | Err((identity, _))) = &delivery.identity;
        let problem = match verdict {
            Verdict::Settled => None,
            Verdict::Rejected => Some("rejected: JOB_REJECTED tells why"),
            Verdict::Retry(reason) | Verdict::NotReady(reason) => Some(reason.as_str()),
        };
        let queued = delivery.began.duration_since(delivery.stored.into()).unwrap_or_default();
        let answer = Answer {
            kind: &self.template.kind,
            identity,
            parent: delivery.trace.as_ref(),
            queued,
            began: delivery.began,
            ended: SystemTime::now(),
            answered,
            problem,
        };
        self.spans.answered(&answer, &delivery.carried);
    }

    async fn conclude(
        &self,
        delivery: &Delivery<'_>,
        done: Result<Result<Handled, Fate>, Elapsed>,
    ) -> Verdict {
        let fate = match done {
            Ok(Ok(Handled::Job { .. })) => {
                return self.answer(delivery, AckKind::Ack, Verdict::Settled).await;
            }
            Ok(Ok(Handled::Rejected)) => {
                return self.answer(delivery, AckKind::Term, Verdict::Rejected).await;
            }
            Ok(Err(fate)) => fate,
            Err(_) => Fate::Retry(format!("not done within {} s", HANDLE_DEADLINE.as_secs())),
        };
        let nak = || AckKind::Nak(Some(delay::of_delivery(delivery.delivered)));
        match fate {
            Fate::Retry(reason) => self.answer(delivery, nak(), Verdict::Retry(reason)).await,
            Fate::NotReady(reason) => self.answer(delivery, nak(), Verdict::NotReady(reason)).await,
            Fate::Reject(rejection) => match self.reject(delivery, &rejection).await {
                Ok(()) => self.answer(delivery, AckKind::Term, Verdict::Rejected).await,
                Err(reason) => self.answer(delivery, nak(), Verdict::Retry(reason)).await,
            },
        }
    }

    fn read<'a>(&self, message: &'a Message) -> Result<Delivery<'a>, String> {
        let info = message.info().map_err(|e| format!("a message without JetStream's reply subject: {e}"))?;
        let stream = self.stream.name();
        let envelope = Envelope {
            payload: &message.payload,
            message_id: message.headers.as_ref().and_then(|h| h.get(NATS_MSG_ID)).map(|v| v.as_str()),
            stream: &stream,
            sequence: info.stream_sequence,
            stored_nanos: info.published.unix_timestamp_nanos(),
        };
        let trace = trace_of(message.headers.as_ref());
        let delivered = Delivered { stream: &stream, sequence: info.stream_sequence, times: info.delivered };
        Ok(Delivery {
            identity: Identity::of(&envelope),
            carried: self.spans.carried(trace.as_ref(), &delivered),
            trace,
            began: SystemTime::now(),
            stored: info.published,
            again: info.delivered > 1 || info.stream_sequence <= self.maybe_seen,
            delivered: info.delivered,
            message,
        })
    }

    /// Until the request's Job is there and something is said of it, or it is found rejected before.
    async fn process(&self, delivery: &Delivery<'_>, slot: Option<Slot>) -> Result<Handled, Fate> {
        let (Ok(known) | Err((known, _))) = &delivery.identity;
        if let Some(slot) = &slot {
            slot.claim(&known.id);
        }
        if delivery.again {
            let copy = self.dead_letters.has_copy(&self.template.kind, known.sequence, delivery.stored);
            if copy.await.map_err(Fate::Retry)? {
                return Ok(Handled::Rejected);
            }
        }
        let identity = match &delivery.identity {
            Ok(identity) => identity,
            Err((_, rejection)) => return Err(Fate::Reject(rejection.clone())),
        };
        let built = Request::parse(&self.template, identity.clone(), &delivery.message.payload)
            .and_then(|request| Ok((job::build(&request, &self.template, &delivery.carried)?, request)));
        let launched = match built {
            Ok((_, request)) if self.is_cancelled(&request) => Err(Fate::Reject(cancelled(&request))),
            // A given id can come with another message too; a derived one only with this.
            Ok((job, request)) => {
                let again = delivery.again || identity.given;
                self.launcher.launch(&request, &job, again).await
            }
            Err(rejection) => Err(Fate::Reject(rejection)),
        };
        let launched = match launched {
            Err(Fate::Reject(rejection)) => self.before_rejection(delivery, identity, rejection).await?,
            other => other?,
        };
        let created = matches!(launched, Launched::Created(..));
        match launched {
            Launched::Done => Ok(Handled::Job { created }),
            // Whatever was to be told of it is told, also where that has expired since.
            Launched::There(state, _) if state.settled => Ok(Handled::Job { created }),
            Launched::Created(state, known) | Launched::There(state, known) => {
                if let Some(slot) = slot {
                    slot.has(&state);
                }
                tracing::debug!(job = %state.name, request_id = %state.request_id, "the Job is there");
                let said = self.writer.first_event(*state, known).await;
                said.map(|()| Handled::Job { created }).map_err(|e| Fate::Retry(e.to_string()))
            }
        }
    }

    /// A request is never both a Job and a rejection: what it may have become before is looked up.
    async fn before_rejection(
        &self,
        delivery: &Delivery<'_>,
        identity: &Identity,
        rejection: Rejection,
    ) -> Result<Launched, Fate> {
        let kind = &self.template.kind;
        if let Some(name) = rejection.name.as_ref().filter(|_| !rejection.reason.is_of_what_is_there()) {
            let hash = Request::hash_of(kind, &delivery.message.payload);
            let before = self.launcher.handled_before(kind, name, identity, hash.as_deref()).await?;
            if let Some(launched) = before {
                return Ok(launched);
            }
        }
        Err(Fate::Reject(rejection))
    }

    fn is_cancelled(&self, request: &Request) -> bool {
        let Request { identity, kind, name, .. } = request;
        self.cancels.covers(kind, name, &identity.id, identity.sequence)
    }

    async fn reject(&self, delivery: &Delivery<'_>, rejection: &Rejection) -> Result<(), String> {
        let identity = match &delivery.identity {
            Ok(identity) | Err((identity, _)) => identity,
        };
        tracing::info!(
            kind = %self.template.kind,
            request_id = %identity.id,
            request_seq = identity.sequence,
            reason = rejection.reason.as_str(),
            message = rejection.message,
            "request rejected"
        );
        let letter = Letter {
            kind: &self.template.kind,
            identity,
            stored_nanos: delivery.stored.unix_timestamp_nanos(),
            payload: delivery.message.payload.clone(),
            trace: delivery.carried.trace.as_ref(),
            rejection,
        };
        self.dead_letters.reject(letter).await
    }

    /// Answers and waits for the server's word: plain acks are lost when a server dies. Without the word the message
    /// comes again, and is found handled. A request of its own, since the client's `double_ack` takes "no responders"
    /// for a word.
    async fn answer(&self, delivery: &Delivery<'_>, answer: AckKind, verdict: Verdict) -> Verdict {
        let Some(reply) = delivery.message.reply.clone() else { return verdict };
        let client = delivery.message.context.client();
        match timeout(ACK_DEADLINE, client.request(reply, answer.into())).await {
            Ok(Ok(_)) => verdict,
            Ok(Err(error)) => unconfirmed(verdict, &error.to_string()),
            Err(_) => unconfirmed(verdict, "no answer"),
        }
    }
}

fn answered(verdict: &Verdict, created: bool) -> Answered {
    match verdict {
        Verdict::Settled if created => Answered::Created,
        Verdict::Settled => Answered::Exists,
        Verdict::Rejected => Answered::Rejected,
        Verdict::Retry(_) => Answered::Retried,
        Verdict::NotReady(_) => Answered::NotReady,
    }
}

fn cancelled(request: &Request) -> Rejection {
    Rejection::new(Reason::Cancelled, "it was cancelled while it was in the queue").of(&request.name)
}

fn unconfirmed(verdict: Verdict, error: &str) -> Verdict {
    match verdict {
        Verdict::Settled | Verdict::Rejected => {
            Verdict::Retry(format!("stream JOBS: an ack is not confirmed: {error}"))
        }
        other => other,
    }
}
