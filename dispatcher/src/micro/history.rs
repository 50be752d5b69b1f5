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
            JOB_ERROR, JOB_ERROR_MESSAGE, JOB_EVENT, JOB_REQUEST_HASH, JOB_REQUEST_ID, NATS_MSG_ID, value_of,
        },
        names::{JobName, RequestId, TemplateName},
        nats_names::NatsNames,
        rejection::{Reason, Rejection},
    },
    request::Request,
};

use crate::{
    micro::api::Wait,
    nats::{
        connection::Connection,
        scan::StreamReader,
        status_stream::{LastMessage, StatusStream, StoreError},
    },
};

/// The maximum age of a duplicate's dead letter: longer than any deduplication window in use.
const DUPLICATE_AGE: Duration = Duration::from_secs(60 * 60);

/// Reads `JOBS`, `JOB_STATUS` and `JOB_REJECTED`.
#[derive(Clone)]
pub(crate) struct History {
    names: NatsNames,
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

/// A stored rejection.
#[derive(Debug)]
pub(super) struct Rejected {
    pub(super) rejection: Rejection,
    /// The hash of the request, if its payload is a JSON object.
    hash: Option<String>,
}

impl History {
    /// Opens the streams, which exist after provisioning.
    ///
    /// # Errors
    /// A stream's name is invalid.
    pub(crate) async fn open(
        context: &jetstream::Context,
        names: NatsNames,
        scans: &Connection,
    ) -> Result<Self, String> {
        let open = async |name| Ok::<_, String>(StreamReader::open(context, name).await?.scanning_on(scans));
        Ok(Self {
            jobs: open(names.jobs()).await?,
            status: open(names.job_status()).await?,
            rejected: open(names.job_rejected()).await?,
            names,
        })
    }

    /// The last status event of a Job as it is stored, read through the stream's leader. `None` if
    /// the subject's last message is no event, such as a marker of deleted messages.
    ///
    /// # Errors
    /// The stream does not answer.
    pub(super) async fn last(
        &self,
        template: &TemplateName,
        name: &JobName,
    ) -> Result<Option<StreamMessage>, String> {
        let last = self.status.last_message(&self.names.status_subject(template, name)).await?;
        Ok(last.filter(|message| event_type(&message.headers).is_some()))
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
        let subject = self.names.status_subject(&query.template, &query.name);
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

    /// The rejection of the request with this sequence: its dead letter, if that has the request's
    /// id and is younger than `age`. An older one is from before `JOBS` was recreated.
    ///
    /// # Errors
    /// The stream does not answer.
    pub(super) async fn rejection(
        &self,
        query: &Query,
        request_seq: u64,
        age: Duration,
    ) -> Result<Option<Rejected>, String> {
        let subject = self.names.dead_letter_subject(&query.template, request_seq);
        let Some(letter) = self.rejected.last_stored(&subject).await? else { return Ok(None) };
        let start = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        let header = |name| value_of(&letter.headers, name);
        if letter.time < start || header(JOB_REQUEST_ID) != Some(query.id.as_ref()) {
            return Ok(None);
        }
        let reason = header(JOB_ERROR).unwrap_or_default();
        let reason = serde_json::from_value(reason.into()).unwrap_or(Reason::Refused);
        let message = header(JOB_ERROR_MESSAGE).unwrap_or_default();
        let hash = header(JOB_REQUEST_HASH).map(str::to_owned);
        Ok(Some(Rejected { rejection: Rejection::new(reason, message), hash }))
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
            let matches = message.subject.as_str() == self.names.create_subject(template)
                && stored_id == Some(id.as_ref());
            // A payload without a hash is not a JSON object, and this request is one.
            return Ok(match Request::hash_of(template, &message.payload) {
                Some(hash) if matches => original(Some(&hash)),
                _ => Original::Other,
            });
        }
        let last = match store.last(template, name).await {
            Err(StoreError::Foreign(_)) => None,
            last => last.map_err(|e| e.to_string())?,
        };
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
        Ok(match self.rejection(query, sequence, DUPLICATE_AGE).await? {
            Some(Rejected { rejection, hash }) if hash.as_deref() == Some(&query.hash) => {
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
