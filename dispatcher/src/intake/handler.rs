//! Handles one request: reads it, creates its Job, publishes `ADDED`, and answers the stream.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use async_nats::{
    HeaderValue,
    connection::State,
    jetstream::{AckKind, Message},
};
use dispatcher_core::{
    contract::{
        headers::NATS_MSG_ID,
        names::TemplateName,
        rejection::{Reason, Rejection},
        submitter::{Submitter, Submitters},
        trace::{Trace, TraceContext},
    },
    request::{
        Disposition, Envelope, HANDLE_DEADLINE, Identity, Request,
        breaker::{FailedDelivery, Verdict},
        cancellation::QueuedRequest,
        error::{HandleError, Stage},
        job,
    },
    template::{DeletionPolicy, Template},
};
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::{
    cancellation::Cancellations,
    concurrency::Reservation,
    intake::{
        breaker::TemplateBreaker,
        create::{CreateResult, JobCreator},
        dead_letters::{DeadLetter, DeadLetters},
    },
    nats::{
        headers::{submitter_of, trace_of},
        jobs_stream::JobsStream,
    },
    retry::with_deadline,
    status::StatusHandle,
    telemetry::{
        metrics::Metrics,
        spans::{Delivered, DeliverySpan, Spans},
    },
};

/// The longest wait for the server to confirm an ack.
const ACK_DEADLINE: Duration = Duration::from_secs(5);
/// The deadline for the lookup and the dead letter of a request that failed too often. With
/// `HANDLE_DEADLINE` and `ACK_DEADLINE` it is below `ack_wait`.
const REJECT_DEADLINE: Duration = Duration::from_secs(15);

/// A version of a template.
#[derive(Clone)]
pub(crate) struct Version {
    /// The template.
    pub template: Arc<Template>,
    /// Whether the template is being deleted.
    pub deleting: bool,
}

/// Handles the requests of one template.
pub(crate) struct Handler {
    /// The name of the template.
    pub name: TemplateName,
    /// The version of the template in use.
    pub version: watch::Receiver<Version>,
    /// The stream of requests.
    pub jobs: JobsStream,
    /// The last sequence of `JOBS` at start. Another consumer or process may have handled the
    /// requests up to it.
    pub maybe_seen: u64,
    /// Creates Jobs.
    pub creator: JobCreator,
    /// Limits the pulls while requests fail.
    pub breaker: TemplateBreaker,
    /// The pending cancellations.
    pub cancellations: Cancellations,
    /// Keeps rejected requests.
    pub dead_letters: DeadLetters,
    /// Reads the submitters of requests.
    pub submitters: Arc<Submitters>,
    /// Publishes `ADDED`.
    pub status: StatusHandle,
    /// Counts each delivery.
    pub metrics: Metrics,
    /// Records a span of each delivery.
    pub spans: Spans,
}

/// How one delivery ended, and the delay of the next one.
struct End {
    disposition: Disposition,
    /// For a request that is delivered again.
    delay: Duration,
}

/// A message with everything that can be read from it without failing.
struct Delivery<'a> {
    /// A change of the template concerns later deliveries.
    version: Version,
    identity: Result<Identity, (Identity, Rejection)>,
    /// The trace in the request's headers.
    trace: Option<Trace>,
    /// The trace context that the dispatcher passes on.
    context: TraceContext,
    /// Who submitted the request, if it is known.
    submitter: Option<Submitter>,
    began: SystemTime,
    stored: OffsetDateTime,
    redelivered: bool,
    delivered: i64,
    message: &'a Message,
}

impl Delivery<'_> {
    fn identity(&self) -> &Identity {
        let (Ok(identity) | Err((identity, _))) = &self.identity;
        identity
    }

    fn failed_at(&self, stage: Stage) -> FailedDelivery {
        FailedDelivery { sequence: self.identity().sequence, delivered: self.delivered, stage }
    }
}

impl Handler {
    /// The version of the template in use.
    pub(crate) fn version(&self) -> Version {
        self.version.borrow().clone()
    }

    /// Handles one message and answers it: ack, nak with a delay, or term. A template with a
    /// concurrency limit passes a reservation.
    pub(crate) async fn handle(&self, message: Message, reservation: Option<Reservation>) -> Disposition {
        let delivery = match self.read(&message) {
            Ok(delivery) => delivery,
            Err(error) => {
                // Without a sequence, nothing can answer it.
                tracing::debug!(template = %self.name, error, "message ignored");
                return Disposition::Retrying(error);
            }
        };
        let result = with_deadline(HANDLE_DEADLINE, self.process(&delivery, reservation)).await;
        let result = result
            .unwrap_or_else(|error| Err(HandleError::other(format!("handling of the request: {error}"))));
        let end = match result {
            Ok(disposition) => End { disposition, delay: Duration::ZERO },
            Err(HandleError::Permanent(rejection)) => match self.reject(&delivery, &rejection).await {
                Ok(()) => End { disposition: Disposition::Rejected, delay: Duration::ZERO },
                Err(reason) => self.failed(&delivery, Stage::Other, reason).await,
            },
            Err(HandleError::Transient(stage, reason)) => self.failed(&delivery, stage, reason).await,
            Err(HandleError::Throttled(reason)) => {
                let delay = self.breaker.all_fail(delivery.failed_at(Stage::Create), &reason, false);
                End { disposition: Disposition::Retrying(reason), delay }
            }
            Err(HandleError::Blocked(stage, reason)) => {
                let delay = self.breaker.all_fail(delivery.failed_at(stage), &reason, true);
                End { disposition: Disposition::Blocked(reason), delay }
            }
        };
        let disposition = self.answer(&delivery, end).await;
        self.breaker.ended(delivery.identity().sequence, &disposition);
        self.metrics.handled(&self.name, &disposition, delivery.stored);
        self.record_span(&delivery, &disposition);
        disposition
    }

    /// After a failure that may be the request's own: its next delivery, or its rejection.
    async fn failed(&self, delivery: &Delivery<'_>, stage: Stage, reason: String) -> End {
        match self.breaker.failed(delivery.failed_at(stage), &reason) {
            Verdict::Retry(delay) => End { disposition: Disposition::Retrying(reason), delay },
            Verdict::Reject(delay) => {
                let give_up = with_deadline(REJECT_DEADLINE, self.give_up(delivery, &reason)).await;
                let disposition = match give_up {
                    Ok(true) => Disposition::Rejected,
                    Ok(false) | Err(_) => Disposition::Retrying(reason),
                };
                End { disposition, delay }
            }
        }
    }

    /// Rejects a request that failed too often, unless it has a Job. Returns whether it is rejected.
    async fn give_up(&self, delivery: &Delivery<'_>, reason: &str) -> bool {
        let Ok(identity) = &delivery.identity else { return false };
        let payload = &delivery.message.payload;
        // An invalid request is rejected as such.
        let Ok(request) = Request::parse(&delivery.version.template, identity.clone(), payload) else {
            return false;
        };
        let message = format!(
            "the request failed {} times while others succeeded, and too many requests of the template fail; \
             last error: {reason}",
            delivery.delivered
        );
        let rejection = Rejection::new(Reason::RetriesExhausted, message).with_name(&request.name);
        match self.before_rejection(delivery, identity, rejection).await {
            Err(HandleError::Permanent(rejection)) => self.reject(delivery, &rejection).await.is_ok(),
            Ok(_) | Err(_) => false,
        }
    }

    fn record_span(&self, delivery: &Delivery<'_>, disposition: &Disposition) {
        let queued = delivery.began.duration_since(delivery.stored.into()).unwrap_or_default();
        let span = DeliverySpan {
            template: &self.name,
            subject: &self.jobs.names().create_subject(&self.name),
            identity: delivery.identity(),
            parent: delivery.trace.as_ref(),
            queued,
            began: delivery.began,
            ended: SystemTime::now(),
            disposition,
        };
        self.spans.delivery(&span, &delivery.context);
    }

    fn read<'a>(&self, message: &'a Message) -> Result<Delivery<'a>, String> {
        let info = message.info().map_err(|e| format!("message without a JetStream reply subject: {e}"))?;
        let stream = self.jobs.incarnation();
        let envelope = Envelope {
            payload: &message.payload,
            message_id: message.headers.as_ref().and_then(|h| h.get(NATS_MSG_ID)).map(HeaderValue::as_str),
            stream: &stream,
            sequence: info.stream_sequence,
            stored_nanos: info.published.unix_timestamp_nanos(),
        };
        let trace = trace_of(message.headers.as_ref());
        let delivered = Delivered { stream: &stream, sequence: info.stream_sequence, times: info.delivered };
        let identity = Identity::of(&envelope);
        let (Ok(Identity { id, .. }) | Err((Identity { id, .. }, _))) = &identity;
        let request = (&self.name, id, &message.payload[..]);
        let submitter = submitter_of(&self.submitters, request, message.headers.as_ref());
        Ok(Delivery {
            version: self.version(),
            identity,
            submitter,
            context: self.spans.context(trace.as_ref(), &delivered),
            trace,
            began: SystemTime::now(),
            stored: info.published,
            redelivered: info.delivered > 1 || info.stream_sequence <= self.maybe_seen,
            delivered: info.delivered,
            message,
        })
    }

    /// Creates the request's Job and publishes its `ADDED`, or finds the end of an earlier
    /// delivery.
    async fn process(
        &self,
        delivery: &Delivery<'_>,
        reservation: Option<Reservation>,
    ) -> Result<Disposition, HandleError> {
        let Identity { id, sequence, .. } = delivery.identity();
        if let Some(reservation) = &reservation {
            reservation.bind(id);
        }
        if delivery.redelivered {
            let stored = self.dead_letters.contains(&self.name, *sequence, delivery.stored);
            if stored.await.map_err(HandleError::other)? {
                return Ok(Disposition::Rejected);
            }
        }
        let identity = match &delivery.identity {
            Ok(identity) => identity,
            Err((_, rejection)) => return Err(HandleError::Permanent(rejection.clone())),
        };
        let created = match self.create(delivery, identity).await {
            Err(HandleError::Permanent(rejection)) => {
                self.before_rejection(delivery, identity, rejection).await?
            }
            other => other?,
        };
        let disposition = match &created {
            CreateResult::Created(..) => Disposition::Created,
            CreateResult::Exists(..) | CreateResult::AlreadyPublished => Disposition::Exists,
        };
        match created {
            CreateResult::AlreadyPublished => {}
            // All of a retired Job's events are stored, even if they have expired since.
            CreateResult::Exists(job, _) if job.retired => {}
            CreateResult::Created(job, subject) | CreateResult::Exists(job, subject) => {
                if let Some(reservation) = reservation {
                    reservation.job_exists(&job);
                }
                tracing::debug!(job = %job.name, request_id = %job.request_id, "job exists");
                let added = self.status.publish_added(*job, subject).await;
                added.map_err(HandleError::other)?;
            }
        }
        Ok(disposition)
    }

    async fn create(
        &self,
        delivery: &Delivery<'_>,
        identity: &Identity,
    ) -> Result<CreateResult, HandleError> {
        let payload = &delivery.message.payload;
        let Version { template, deleting } = &delivery.version;
        let request = Request::parse(template, identity.clone(), payload).map_err(HandleError::Permanent)?;
        if *deleting && template.deletion_policy == DeletionPolicy::Reject {
            return Err(HandleError::Permanent(deleted(&request)));
        }
        let mut job = job::build(&request, template, &delivery.context).map_err(HandleError::Permanent)?;
        job::set_submitter(&mut job, delivery.submitter.as_ref());
        if self.is_cancelled(&request, delivery.submitter.as_ref()) {
            return Err(HandleError::Permanent(cancelled(&request)));
        }
        // Two messages can carry the same client-supplied id; a derived id belongs to one message.
        let look_up = delivery.redelivered || identity.client_supplied;
        let created = self.creator.create(&request, &job, look_up).await?;
        if matches!(created, CreateResult::Created(..)) {
            self.breaker.set_canary(Arc::new(job));
        }
        Ok(created)
    }

    /// The Job that an earlier delivery created, if any: a request never has a Job and a rejection.
    /// A first delivery is no proof that there is none: a recreated consumer counts from one again.
    async fn before_rejection(
        &self,
        delivery: &Delivery<'_>,
        identity: &Identity,
        rejection: Rejection,
    ) -> Result<CreateResult, HandleError> {
        let template = &self.name;
        if let Some(name) = rejection.name.as_ref().filter(|_| !rejection.reason.is_from_lookup()) {
            let hash = Request::hash_of(template, &delivery.message.payload);
            let earlier = self.creator.find(template, name, identity, hash.as_deref()).await?;
            if let Some(found) = earlier {
                return Ok(found);
            }
        }
        Err(HandleError::Permanent(rejection))
    }

    fn is_cancelled(&self, request: &Request, submitter: Option<&Submitter>) -> bool {
        let Request { identity: Identity { id, sequence, .. }, template, name, .. } = request;
        let account = submitter.map(|submitter| submitter.account.as_str());
        self.cancellations.covers(&QueuedRequest { template, name, id, sequence: *sequence, account })
    }

    async fn reject(&self, delivery: &Delivery<'_>, rejection: &Rejection) -> Result<(), String> {
        let identity = delivery.identity();
        tracing::debug!(
            template = %self.name,
            request_id = %identity.id,
            request_seq = identity.sequence,
            reason = rejection.reason.as_str(),
            message = rejection.message,
            "request rejected"
        );
        let dead_letter = DeadLetter {
            template: &self.name,
            identity,
            stored: delivery.stored,
            payload: delivery.message.payload.clone(),
            trace: delivery.context.trace.as_ref(),
            submitter: delivery.submitter.as_ref(),
            rejection,
        };
        self.dead_letters.reject(dead_letter).await
    }

    /// Answers the stream and waits for the server's confirmation: plain acks are lost when a
    /// server is killed. If no confirmation arrives, the request is delivered again and finds its
    /// Job. The client's `double_ack` would take "no responders" for a confirmation.
    async fn answer(&self, delivery: &Delivery<'_>, end: End) -> Disposition {
        let End { disposition, delay } = end;
        let Some(reply) = delivery.message.reply.clone() else { return disposition };
        let ack = match disposition {
            Disposition::Created | Disposition::Exists => AckKind::Ack,
            Disposition::Rejected => AckKind::Term,
            Disposition::Retrying(_) | Disposition::Blocked(_) => AckKind::Nak(Some(delay)),
        };
        let client = delivery.message.context.client();
        let connects = || client.statistics().connects.load(Ordering::Relaxed);
        let before = connects();
        let error = match with_deadline(ACK_DEADLINE, client.request(reply, ack.into())).await {
            Ok(Ok(_)) => return disposition,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        // A lost connection says nothing about the permissions, and is reported as such.
        let lost = connects() != before || client.connection_state() != State::Connected;
        let done = disposition.is_final();
        let disposition = disposition.unconfirmed(&error);
        if done && let Disposition::Blocked(reason) = &disposition {
            self.breaker.unconfirmed(delivery.failed_at(Stage::Other), reason, lost);
        }
        disposition
    }
}

fn deleted(request: &Request) -> Rejection {
    let message = format!("the template {} is deleted, and its deletion policy is Reject", request.template);
    Rejection::new(Reason::TemplateDeleted, message).with_name(&request.name)
}

fn cancelled(request: &Request) -> Rejection {
    let message = "the request was cancelled before its Job was created";
    Rejection::new(Reason::Cancelled, message).with_name(&request.name)
}
