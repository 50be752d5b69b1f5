//! What the streams hold about a request: its message, its status events, its dead letter.

use std::time::{Duration, SystemTime};

use async_nats::{
    HeaderMap,
    jetstream::{self, consumer::DeliverPolicy, message::StreamMessage},
};
use bytes::Bytes;
use dispatcher_core::{
    contract::{
        event::EventType,
        headers::{
            JOB_ERROR, JOB_ERROR_MESSAGE, JOB_EVENT, JOB_REQUEST_HASH, JOB_REQUEST_ID, JOB_REQUEST_SEQ,
            NATS_MSG_ID,
        },
        names::{JobName, RequestId, TemplateName},
        rejection::{Reason, Rejection},
    },
    request::Request,
};

use crate::{
    micro::api::Wait,
    nats::{
        connection::Connection,
        definitions::{JOB_REJECTED, JOB_STATUS, JOBS},
        scan::StreamReader,
        status_stream::{LastMessage, StatusStream},
    },
};

/// The maximum age of a duplicate's dead letter. `JetStream`'s duplicate window is two minutes by
/// default.
const DUPLICATE_AGE: Duration = Duration::from_secs(60 * 60);

/// Reads `JOBS`, `JOB_STATUS` and `JOB_REJECTED`.
#[derive(Clone)]
pub(crate) struct History {
    jobs: StreamReader,
    status: StreamReader,
    rejected: StreamReader,
}

/// The request to look for, as its messages name it.
#[derive(Debug, Clone)]
pub(super) struct Query {
    pub(super) template: TemplateName,
    pub(super) name: JobName,
    pub(super) id: RequestId,
    pub(super) hash: String,
}

impl Query {
    /// Whether a message with this request hash belongs to this request, and not to another one
    /// with the same id. A message without a hash does.
    pub(super) fn matches_hash(&self, hash: Option<&str>) -> bool {
        hash.is_none_or(|hash| hash == self.hash)
    }
}

/// The request that `JetStream` stored under the id of a duplicate.
#[derive(Debug)]
pub(super) enum Original {
    /// The same request.
    Same,
    /// The same request, which was rejected.
    Rejected(Rejection),
    /// Another request, or one that no stream holds any more.
    Other,
}

impl History {
    /// Opens the streams, which exist after provisioning.
    ///
    /// # Errors
    /// A stream's name is invalid.
    pub(crate) async fn open(context: &jetstream::Context, scans: &Connection) -> Result<Self, String> {
        let open = async |name| Ok::<_, String>(StreamReader::open(context, name).await?.scanning_on(scans));
        Ok(Self {
            jobs: open(JOBS).await?,
            status: open(JOB_STATUS).await?,
            rejected: open(JOB_REJECTED).await?,
        })
    }

    /// The last status event of a Job as it is stored, read through the stream's leader.
    ///
    /// # Errors
    /// The stream does not answer.
    pub(super) async fn last(
        &self,
        template: &TemplateName,
        name: &JobName,
    ) -> Result<Option<StreamMessage>, String> {
        self.status.last_message(&template.status_subject(name)).await
    }

    /// The stored event that ends the wait: the subject's last event, or an earlier one if a later
    /// request has used the name since.
    ///
    /// # Errors
    /// The stream does not answer.
    pub(super) async fn event(&self, query: &Query, wait: Wait) -> Result<Option<Bytes>, String> {
        let matches = |map: &HeaderMap| {
            header(map, JOB_REQUEST_ID).as_deref() == Some(query.id.as_ref())
                && query.matches_hash(header(map, JOB_REQUEST_HASH).as_deref())
        };
        let Some(last) = self.last(&query.template, &query.name).await? else { return Ok(None) };
        if matches(&last.headers) {
            return Ok(wait.is_met_by(event_type(&last.headers)).then_some(last.payload));
        }
        let mut found = None;
        let subject = query.template.status_subject(&query.name);
        let visit = |_: &str, headers: &HeaderMap, sequence| {
            if matches(headers) && wait.is_met_by(event_type(headers)) {
                found = Some(sequence);
            }
        };
        self.status.scan(subject, DeliverPolicy::All, visit).await?;
        let Some(sequence) = found else { return Ok(None) };
        let message = self.status.message(sequence).await?;
        Ok(message.map(|message| message.payload))
    }

    /// The rejection of the request with this sequence, and the request's payload. Only dead
    /// letters younger than `age` are searched.
    ///
    /// # Errors
    /// The stream does not answer.
    pub(super) async fn rejection(
        &self,
        template: &TemplateName,
        request_seq: u64,
        age: Duration,
    ) -> Result<Option<(Rejection, Bytes)>, String> {
        let request_seq = request_seq.to_string();
        let mut found = None;
        let start = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        let from = DeliverPolicy::ByStartTime { start_time: start.into() };
        let visit = |_: &str, headers: &HeaderMap, sequence| {
            if header(headers, JOB_REQUEST_SEQ).as_deref() == Some(request_seq.as_str()) {
                found = Some(sequence);
            }
        };
        self.rejected.scan(template.rejected_subject(), from, visit).await?;
        let Some(sequence) = found else { return Ok(None) };
        let Some(letter) = self.rejected.message(sequence).await? else { return Ok(None) };
        let reason = header(&letter.headers, JOB_ERROR).unwrap_or_default();
        let reason = serde_json::from_value(reason.into()).unwrap_or(Reason::Refused);
        let message = header(&letter.headers, JOB_ERROR_MESSAGE).unwrap_or_default();
        Ok(Some((Rejection::new(reason, message), letter.payload)))
    }

    /// Compares a publish that `JetStream` deduplicated with the message stored at `sequence`.
    ///
    /// `JetStream` compares ids only, over all templates. Without this check, another request under a
    /// used id would be dropped, and its caller would get the first request's answer.
    ///
    /// # Errors
    /// A stream does not answer.
    pub(super) async fn original(
        &self,
        store: &StatusStream,
        query: &Query,
        sequence: u64,
    ) -> Result<Original, String> {
        let original = |hash: Option<&str>| match query.matches_hash(hash) {
            true => Original::Same,
            false => Original::Other,
        };
        let Query { template, name, id, .. } = query;
        if let Some(message) = self.jobs.message(sequence).await? {
            let stored_id = message.headers.get(NATS_MSG_ID).map(async_nats::HeaderValue::as_str);
            let matches =
                message.subject.as_str() == template.create_subject() && stored_id == Some(id.as_ref());
            // A payload without a hash is not a JSON object, and this request is one.
            return Ok(match Request::hash_of(template, &message.payload) {
                Some(hash) if matches => original(Some(&hash)),
                _ => Original::Other,
            });
        }
        let last = store.last(template, name).await.map_err(|e| e.to_string())?;
        let published = match last {
            Some(LastMessage { request_id, request_hash, .. }) if request_id == id.as_ref() => {
                Some(request_hash)
            }
            Some(_) => store.find_request(template, name, id).await.map_err(|e| e.to_string())?,
            None => None,
        };
        if let Some(hash) = published {
            return Ok(original(hash.as_deref()));
        }
        Ok(match self.rejection(template, sequence, DUPLICATE_AGE).await? {
            Some((rejection, payload))
                if Request::hash_of(template, &payload).as_deref() == Some(&query.hash) =>
            {
                Original::Rejected(rejection)
            }
            _ => Original::Other,
        })
    }
}

fn header(map: &HeaderMap, name: &str) -> Option<String> {
    map.get(name).map(|value| value.as_str().to_owned())
}

fn event_type(map: &HeaderMap) -> Option<EventType> {
    header(map, JOB_EVENT).as_deref().and_then(EventType::parse)
}
