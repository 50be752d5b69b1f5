//! What the streams hold of a Job or a request: events and dead letters, as they are stored.

use std::time::{Duration, SystemTime};

use async_nats::{
    HeaderMap,
    jetstream::{self, consumer::DeliverPolicy, message::StreamMessage},
};
use bytes::Bytes;

use crate::micro::query::Wait;
use crate::nats::{
    definitions::{JOB_REJECTED, JOB_STATUS, JOBS},
    scan::StreamReader,
};
use dispatcher_core::contract::{
    event::EventType,
    headers::{JOB_ERROR, JOB_ERROR_MESSAGE, JOB_EVENT, JOB_REQUEST_HASH, JOB_REQUEST_ID, JOB_REQUEST_SEQ},
    names::{JobName, RequestId, TemplateName},
    rejection::{Reason, Rejection},
};

/// Access to `JOBS`, `JOB_STATUS` and `JOB_REJECTED`.
#[derive(Clone)]
pub struct History {
    jobs: StreamReader,
    status: StreamReader,
    rejected: StreamReader,
}

/// A request, as its events name it.
#[derive(Debug, Clone)]
pub struct Query {
    /// Its template.
    pub template: TemplateName,
    /// Its Job's name.
    pub name: JobName,
    /// Its identity.
    pub id: RequestId,
    /// Its hash.
    pub hash: String,
}

impl Query {
    /// Whether a message with this hash is of this request and of no other of the same identity.
    pub fn is_of(&self, hash: Option<&str>) -> bool {
        hash.is_none_or(|hash| hash == self.hash)
    }
}

fn header(map: &HeaderMap, name: &str) -> Option<String> {
    map.get(name).map(|value| value.as_str().to_owned())
}

fn event_type(map: &HeaderMap) -> Option<EventType> {
    header(map, JOB_EVENT).as_deref().and_then(EventType::parse)
}

impl History {
    /// Opens the streams without asking for them: `provision` did.
    ///
    /// # Errors
    /// Where a stream's name is invalid, which it is not.
    pub async fn open(context: &jetstream::Context) -> Result<Self, String> {
        Ok(Self {
            jobs: StreamReader::open(context, JOBS).await?,
            status: StreamReader::open(context, JOB_STATUS).await?,
            rejected: StreamReader::open(context, JOB_REJECTED).await?,
        })
    }

    /// The request at a sequence; `None` where it is done.
    ///
    /// # Errors
    /// Where the stream does not answer.
    pub async fn request(&self, sequence: u64) -> Result<Option<StreamMessage>, String> {
        self.jobs.message(sequence).await
    }

    /// The last event of a Job's name, as it is stored; read through the stream's leader.
    ///
    /// # Errors
    /// Where the stream does not answer.
    pub async fn last(
        &self,
        template: &TemplateName,
        name: &JobName,
    ) -> Result<Option<StreamMessage>, String> {
        self.status.last_message(&template.status_subject(name)).await
    }

    /// The event that is waited for, where it is stored already: the last of the name, or, where the name was used again
    /// since, the last of this request before.
    ///
    /// # Errors
    /// Where the stream does not answer.
    pub async fn event(&self, asked: &Query, wait: Wait) -> Result<Option<Bytes>, String> {
        let ours = |map: &HeaderMap| {
            header(map, JOB_REQUEST_ID).as_deref() == Some(asked.id.as_ref())
                && asked.is_of(header(map, JOB_REQUEST_HASH).as_deref())
        };
        let Some(last) = self.last(&asked.template, &asked.name).await? else { return Ok(None) };
        if ours(&last.headers) {
            return Ok(wait.is_met_by(event_type(&last.headers)).then_some(last.payload));
        }
        let mut place = None;
        let subject = asked.template.status_subject(&asked.name);
        self.status
            .scan(subject, DeliverPolicy::All, |_, headers, sequence| {
                if ours(headers) && wait.is_met_by(event_type(headers)) {
                    place = Some(sequence);
                }
            })
            .await?;
        let Some(place) = place else { return Ok(None) };
        self.status.message(place).await.map(|message| message.map(|message| message.payload))
    }

    /// The rejection of the request that is stored at `sequence`, and its payload; looked for among those younger than `age`.
    ///
    /// # Errors
    /// Where the stream does not answer.
    pub async fn rejection(
        &self,
        template: &TemplateName,
        sequence: u64,
        age: Duration,
    ) -> Result<Option<(Rejection, Bytes)>, String> {
        let wanted = sequence.to_string();
        let mut place = None;
        let start = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        let from = DeliverPolicy::ByStartTime { start_time: start.into() };
        self.rejected
            .scan(template.rejected_subject(), from, |_, headers, at| {
                if header(headers, JOB_REQUEST_SEQ).as_deref() == Some(wanted.as_str()) {
                    place = Some(at);
                }
            })
            .await?;
        let Some(place) = place else { return Ok(None) };
        let Some(letter) = self.rejected.message(place).await? else { return Ok(None) };
        let word = header(&letter.headers, JOB_ERROR).unwrap_or_default();
        let reason = serde_json::from_value(word.into()).unwrap_or(Reason::Refused);
        let message = header(&letter.headers, JOB_ERROR_MESSAGE).unwrap_or_default();
        Ok(Some((Rejection::new(reason, message), letter.payload)))
    }
}
