//! `jobs.<template>.get`: the last status event of a Job, or whether its request is queued.

use std::time::Duration;

use async_nats::jetstream::message::StreamMessage;
use bytes::Bytes;
use dispatcher_core::{
    contract::{
        headers::NATS_MSG_ID,
        names::{JobName, RequestId},
    },
    request::{Envelope, Identity, Request},
    template::Template,
};
use tokio::time::{Instant, timeout_at};

use crate::{
    micro::{
        error::{ErrorCode, ServiceError},
        history::History,
    },
    nats::{definitions::JOBS, jobs_stream::JobsStream},
    retry::with_deadline,
};

/// The maximum number of requests that one search reads, and its deadline.
const MAX_READ: usize = 10_000;
const DEADLINE: Duration = Duration::from_secs(3);

/// The request to search for.
#[derive(Debug, Clone)]
pub(super) enum Lookup<'a> {
    /// A request whose Job has this name.
    Name(&'a JobName),
    /// The request with this id.
    Id(&'a RequestId),
}

/// The result of a search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// The request is queued, and its Job has this name.
    Queued(JobName),
    /// The request is not queued.
    Absent,
    /// The queue is too long to search: the request may be queued.
    Unknown,
}

/// Searches the queued requests. A work queue has no index, so a search reads requests one by one,
/// bounded in number and time.
#[derive(Clone)]
pub(crate) struct Queue {
    pub(crate) jobs: JobsStream,
}

impl Queue {
    /// Searches the queued requests of a template.
    ///
    /// # Errors
    /// The stream does not answer.
    pub(super) async fn find(&self, template: &Template, lookup: &Lookup<'_>) -> Result<Found, String> {
        let end = Instant::now() + DEADLINE;
        let mut next = 1;
        for _ in 0..MAX_READ {
            let first = self.jobs.first_request(&template.name, next);
            let Ok(message) = timeout_at(end, first).await else { return Ok(Found::Unknown) };
            let Some(message) = message? else { return Ok(Found::Absent) };
            next = message.sequence.saturating_add(1);
            // A poison message is not a request.
            if let Ok(message) = StreamMessage::try_from(message)
                && let Some(name) = self.matching_name(template, &message, lookup)
            {
                return Ok(Found::Queued(name));
            }
        }
        Ok(Found::Unknown)
    }

    /// The last sequence of the stream.
    ///
    /// # Errors
    /// The stream does not answer.
    pub(super) async fn last_sequence(&self) -> Result<u64, String> {
        let stream = with_deadline(DEADLINE, self.jobs.context().get_stream(JOBS)).await;
        let stream = stream.map_err(|e| format!("stream {JOBS}: {e}"))?;
        let stream = stream.map_err(|e| format!("stream {JOBS}: {e}"))?;
        Ok(stream.cached_info().state.last_sequence)
    }

    /// The name of the message's Job if it matches. A request without a valid name has no Job.
    fn matching_name(
        &self,
        template: &Template,
        message: &StreamMessage,
        lookup: &Lookup<'_>,
    ) -> Option<JobName> {
        let envelope = Envelope {
            payload: &message.payload,
            message_id: message.headers.get(NATS_MSG_ID).map(async_nats::HeaderValue::as_str),
            stream: &self.jobs.incarnation(),
            sequence: message.sequence,
            stored_nanos: message.time.unix_timestamp_nanos(),
        };
        let (Ok(identity) | Err((identity, _))) = Identity::of(&envelope);
        if matches!(lookup, Lookup::Id(id) if identity.id != **id) {
            return None;
        }
        let name = match Request::parse(template, identity, &message.payload) {
            Ok(request) => request.name,
            Err(rejection) => rejection.name?,
        };
        (!matches!(lookup, Lookup::Name(expected) if name != **expected)).then_some(name)
    }
}

/// Answers with the last event as it is stored.
///
/// # Errors
/// [`ErrorCode::Queued`], [`ErrorCode::NotFound`] or [`ErrorCode::NotReady`].
pub(super) async fn get(
    history: &History,
    queue: &Queue,
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
    let found = queue.find(template, &Lookup::Name(name)).await.map_err(ServiceError::not_ready)?;
    // The request leaves the queue after its first event is stored: read the event again.
    match last().await? {
        Some(event) => Ok(event),
        None => Err(no_event(&found, template, name)),
    }
}

fn no_event(found: &Found, template: &Template, name: &JobName) -> ServiceError {
    match found {
        Found::Queued(_) => {
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
