//! Looks for a request that is still in the queue. A work queue has no index, so this is a walk, bounded in steps and time.

use std::time::Duration;

use async_nats::jetstream::message::StreamMessage;
use tokio::time::{Instant, timeout, timeout_at};

use crate::nats::{definitions::JOBS, jobs_stream::JobsStream};
use dispatcher_core::{
    contract::{
        headers::NATS_MSG_ID,
        names::{JobName, RequestId},
    },
    request::{Envelope, Identity, Request},
    template::Template,
};

/// Requests that are looked at, at most, and for how long.
const MOST: usize = 10_000;
const DEADLINE: Duration = Duration::from_secs(3);

/// Which request is looked for.
#[derive(Debug, Clone)]
pub enum Lookup<'a> {
    /// One whose Job is to have this name.
    Name(&'a JobName),
    /// The one of this identity.
    Id(&'a RequestId),
}

/// What the walk has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It is there, and its Job is to have this name.
    Queued(JobName),
    /// It is not there.
    Absent,
    /// The queue is longer than can be looked through: it may be there.
    Unknown,
}

/// Where requests are looked for.
#[derive(Clone)]
pub struct Queue {
    /// The stream of requests.
    pub(crate) jobs: JobsStream,
}

impl Queue {
    /// Walks through the requests of the template's template.
    ///
    /// # Errors
    /// Where the stream does not answer.
    pub async fn find(&self, template: &Template, wanted: &Lookup<'_>) -> Result<Found, String> {
        let end = Instant::now() + DEADLINE;
        let mut next = 1;
        for _ in 0..MOST {
            let first = self.jobs.first_request(&template.name, next);
            let message = match timeout_at(end, first).await {
                Ok(message) => message?,
                Err(_) => return Ok(Found::Unknown),
            };
            let Some(message) = message else { return Ok(Found::Absent) };
            next = message.sequence.saturating_add(1);
            // One that no client can read is no request.
            if let Ok(message) = StreamMessage::try_from(message)
                && let Some(name) = self.name_of(template, &message, wanted)
            {
                return Ok(Found::Queued(name));
            }
        }
        Ok(Found::Unknown)
    }

    /// The last sequence of the queue.
    ///
    /// # Errors
    /// Where the stream does not answer.
    pub async fn last(&self) -> Result<u64, String> {
        match timeout(DEADLINE, self.jobs.context().get_stream(JOBS)).await {
            Ok(Ok(stream)) => Ok(stream.cached_info().state.last_sequence),
            Ok(Err(error)) => Err(format!("stream {JOBS}: {error}")),
            Err(_) => Err(format!("stream {JOBS}: no answer within {} s", DEADLINE.as_secs())),
        }
    }

    /// The name of the message's Job, if it is the one that is wanted. One without a valid name becomes no Job.
    fn name_of(&self, template: &Template, message: &StreamMessage, wanted: &Lookup<'_>) -> Option<JobName> {
        let envelope = Envelope {
            payload: &message.payload,
            message_id: message.headers.get(NATS_MSG_ID).map(|value| value.as_str()),
            stream: &self.jobs.incarnation(),
            sequence: message.sequence,
            stored_nanos: message.time.unix_timestamp_nanos(),
        };
        let (Ok(identity) | Err((identity, _))) = Identity::of(&envelope);
        if matches!(wanted, Lookup::Id(id) if identity.id != **id) {
            return None;
        }
        let name = match Request::parse(template, identity, &message.payload) {
            Ok(request) => request.name,
            Err(rejection) => rejection.name?,
        };
        (!matches!(wanted, Lookup::Name(wanted) if name != **wanted)).then_some(name)
    }
}
