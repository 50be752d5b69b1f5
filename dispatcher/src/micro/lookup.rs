//! Searches the queued requests, and `jobs.<template>.get`.
//!
//! Look-ups are bounded over all callers: an index per template reads each queued request once, and
//! the number of concurrent look-ups is limited.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::jetstream::{message::StreamMessage, stream::RawMessage};
use bytes::Bytes;
use dispatcher_core::{
    contract::{
        headers::NATS_MSG_ID,
        names::{JobName, TemplateName},
        submitter::{Submitter, Submitters},
    },
    request::{
        Envelope, Identity, Request,
        fair_concurrency::Flow,
        queue_index::{Lookup, QueueIndex},
    },
    template::Template,
};
use tokio::{
    sync::Mutex as AsyncMutex,
    time::{Instant, timeout_at},
};

use crate::{
    micro::{
        error::{ErrorCode, ServiceError},
        history::History,
        places::{Place, Places, TemplateCount},
    },
    nats::{headers::submitter_of, jobs_stream::JobsStream},
    retry::with_deadline,
    shares::{InFlight, Shares},
};

/// How many requests of a template the index holds. Later ones are not searched.
const MAX_INDEXED: usize = 10_000;
/// How many requests that may match are read.
const MAX_CANDIDATES: usize = 100;
/// The longest time that a search reads the queue, and that a call waits for its place.
const DEADLINE: Duration = Duration::from_secs(3);
/// How many calls that search the queue run concurrently. Others wait.
const CONCURRENCY: usize = 32;

/// The result of a search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// The request is queued, and its Job has this name.
    Queued(JobName),
    /// Only requests that the caller may not cancel match.
    Forbidden,
    /// The request is not queued.
    Absent,
    /// The queue is too long to search: the request may be queued.
    Unknown,
}

/// A search in progress, until it is dropped.
pub(super) struct LookUp {
    _place: Place,
    _in_flight: InFlight,
}

/// Searches the queued requests. Clones share the index.
#[derive(Clone)]
pub(crate) struct Lookups {
    jobs: JobsStream,
    submitters: Arc<Submitters>,
    places: Places,
    shares: Shares,
    indexes: Arc<Mutex<HashMap<TemplateName, Arc<AsyncMutex<QueueIndex>>>>>,
}

impl Lookups {
    /// Searches the requests of `JOBS`.
    pub(crate) fn new(
        jobs: JobsStream,
        submitters: Arc<Submitters>,
        shares: Shares,
        templates: TemplateCount,
    ) -> Self {
        let places = Places::new(CONCURRENCY, templates);
        Self { jobs, submitters, places, shares, indexes: Arc::default() }
    }

    /// A place for a search in the template's queue.
    ///
    /// # Errors
    /// [`ErrorCode::Overloaded`] if every place stays taken, or requests of other templates go first.
    pub(super) async fn place(&self, template: &TemplateName) -> Result<LookUp, ServiceError> {
        let share = self.shares.of(Flow::LookUps(template.clone()));
        let look_up = async {
            let place = self.places.wait_for(template).await;
            LookUp { _place: place, _in_flight: share.start_look_up().await }
        };
        with_deadline(DEADLINE, look_up).await.map_err(|_| {
            let message = format!("too many look-ups of template {template} are in progress; retry later");
            ServiceError::new(ErrorCode::Overloaded, message)
        })
    }

    /// Searches the queued requests of a template. Requests of submitters that `may_see` refuses
    /// are not returned.
    ///
    /// # Errors
    /// [`ErrorCode::Overloaded`] if the search takes too long; the next one continues where it
    /// ended. [`ErrorCode::NotReady`] if the stream does not answer.
    pub(super) async fn find(
        &self,
        template: &Template,
        lookup: Lookup<'_>,
        may_see: impl Fn(Option<&Submitter>) -> bool,
    ) -> Result<Found, ServiceError> {
        let end = Instant::now() + DEADLINE;
        let (candidates, extent) = self.candidates(template, lookup, end).await?;
        let mut found = None;
        // The oldest candidates may have left the queue.
        for sequence in candidates.iter().rev().take(MAX_CANDIDATES) {
            let message = self.first_request(template, *sequence, end).await?;
            let Some(message) = message.filter(|message| message.sequence == *sequence) else { continue };
            let Ok(message) = StreamMessage::try_from(message) else { continue };
            let Some(Queued { name, identity, submitter }) = self.read(template, &message) else { continue };
            let matches = match lookup {
                Lookup::Name(expected) => name == *expected,
                Lookup::Id(expected) => identity.id == *expected,
            };
            match matches {
                true if may_see(submitter.as_ref()) => return Ok(Found::Queued(name)),
                true => found = Some(Found::Forbidden),
                false => {}
            }
        }
        match (found, extent) {
            (Some(found), _) => Ok(found),
            (None, Extent::Partial) => Err(takes_too_long(template)),
            (None, Extent::Whole) if candidates.len() <= MAX_CANDIDATES => Ok(Found::Absent),
            (None, Extent::Whole | Extent::Full) => Ok(Found::Unknown),
        }
    }

    /// The sequences that may match, and how much of the queue the index contains.
    async fn candidates(
        &self,
        template: &Template,
        lookup: Lookup<'_>,
        end: Instant,
    ) -> Result<(Vec<u64>, Extent), ServiceError> {
        let index = self.index(&template.name);
        let Ok(mut index) = timeout_at(end, index.lock()).await else { return Err(takes_too_long(template)) };
        let first = self.first_request(template, 1, end).await?;
        index.begin(&self.jobs.incarnation(), first.map(|message| message.sequence));
        let extent = loop {
            let Some(next) = index.next() else { break Extent::Full };
            let message = match self.first_request(template, next, end).await {
                Ok(Some(message)) => message,
                Ok(None) => break Extent::Whole,
                Err(error) if error.code == ErrorCode::Overloaded => break Extent::Partial,
                Err(error) => return Err(error),
            };
            let sequence = message.sequence;
            // A poison message is not a request.
            let queued = StreamMessage::try_from(message).ok();
            match queued.and_then(|message| self.read(template, &message)) {
                Some(queued) => index.add(sequence, Some(&queued.name), &queued.identity.id),
                None => index.skip(sequence),
            }
        };
        Ok((index.candidates(lookup), extent))
    }

    async fn first_request(
        &self,
        template: &Template,
        from: u64,
        end: Instant,
    ) -> Result<Option<RawMessage>, ServiceError> {
        match timeout_at(end, self.jobs.first_request(&template.name, from)).await {
            Ok(message) => message.map_err(ServiceError::not_ready),
            Err(_) => Err(takes_too_long(template)),
        }
    }

    fn index(&self, template: &TemplateName) -> Arc<AsyncMutex<QueueIndex>> {
        let mut indexes = self.indexes.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(AsyncMutex::new(QueueIndex::new(MAX_INDEXED)));
        indexes.entry(template.clone()).or_insert_with(new).clone()
    }

    /// The last sequence of the stream.
    ///
    /// # Errors
    /// The stream does not answer.
    pub(super) async fn last_sequence(&self) -> Result<u64, String> {
        let name = self.jobs.names().jobs();
        let stream = with_deadline(DEADLINE, self.jobs.context().get_stream(name)).await;
        let stream = stream.map_err(|e| format!("stream {name}: {e}"))?;
        let stream = stream.map_err(|e| format!("stream {name}: {e}"))?;
        Ok(stream.cached_info().state.last_sequence)
    }

    /// The request in a message. One without a valid name gets no Job.
    fn read(&self, template: &Template, message: &StreamMessage) -> Option<Queued> {
        let envelope = Envelope {
            payload: &message.payload,
            message_id: message.headers.get(NATS_MSG_ID).map(async_nats::HeaderValue::as_str),
            stream: &self.jobs.incarnation(),
            sequence: message.sequence,
            stored_nanos: message.time.unix_timestamp_nanos(),
        };
        let (Ok(identity) | Err((identity, _))) = Identity::of(&envelope);
        let name = match Request::parse(template, identity.clone(), &message.payload) {
            Ok(request) => request.name,
            Err(rejection) => rejection.name?,
        };
        let submitter = submitter_of(
            &self.submitters,
            (&template.name, &identity.id, &message.payload),
            Some(&message.headers),
        );
        Some(Queued { name, identity, submitter })
    }
}

/// How much of the queue the index contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// Every request.
    Whole,
    /// As many as it may hold.
    Full,
    /// Those that the search could read in time.
    Partial,
}

fn takes_too_long(template: &Template) -> ServiceError {
    let message =
        format!("the search in the queue of template {} takes too long; retry later", template.name);
    ServiceError::new(ErrorCode::Overloaded, message)
}

/// A queued request.
struct Queued {
    name: JobName,
    identity: Identity,
    submitter: Option<Submitter>,
}

/// Answers with the last event as it is stored.
///
/// # Errors
/// [`ErrorCode::Queued`], [`ErrorCode::NotFound`], [`ErrorCode::Overloaded`] or
/// [`ErrorCode::NotReady`].
pub(super) async fn get(
    history: &History,
    lookups: &Lookups,
    template: &Template,
    name: &JobName,
) -> Result<Bytes, ServiceError> {
    let last = || async {
        let last = history.last(&template.name, name).await.map_err(ServiceError::not_ready)?;
        Ok::<_, ServiceError>(last.map(|message| message.payload))
    };
    if let Some(event) = last().await? {
        return Ok(event);
    }
    let _place = lookups.place(&template.name).await?;
    let found = lookups.find(template, Lookup::Name(name), |_| true).await?;
    // The request leaves the queue after its first event is stored: read the event again.
    match last().await? {
        Some(event) => Ok(event),
        None => Err(no_event(&found, template, name)),
    }
}

fn no_event(found: &Found, template: &Template, name: &JobName) -> ServiceError {
    match found {
        Found::Queued(_) | Found::Forbidden => {
            let message = format!("the request for Job `{name}` is still queued");
            ServiceError::new(ErrorCode::Queued, message).with_job(name)
        }
        Found::Absent => not_found(template, name),
        Found::Unknown => {
            let message = format!(
                "template {}: no Job `{name}` was found, and the queue is too long to search for its request",
                template.name
            );
            ServiceError::new(ErrorCode::NotFound, message).with_job(name)
        }
    }
}

/// Neither a Job nor a queued request has this name.
pub(super) fn not_found(template: &Template, name: &JobName) -> ServiceError {
    let message = format!("template {}: neither a Job `{name}` nor a queued request for it", template.name);
    ServiceError::new(ErrorCode::NotFound, message).with_job(name)
}
