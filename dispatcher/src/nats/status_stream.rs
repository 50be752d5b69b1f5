//! The stream `JOB_STATUS`: fenced publishes, the last message of a subject, and the open subjects.

use std::{collections::HashMap, error::Error};

use async_nats::{
    HeaderMap,
    jetstream::{
        self, ErrorCode,
        consumer::DeliverPolicy,
        context::{PublishError, PublishErrorKind},
        message::PublishMessage,
    },
};
use bytes::Bytes;
use dispatcher_core::{
    contract::{
        event::{EventType, StatusEvent},
        headers,
        job::JobState,
        names::{JobName, RequestId, TemplateName},
        nats_names::NatsNames,
        trace::Trace,
    },
    status::{LastEvent, SubjectKey, SubjectState},
};

use crate::{
    kube::chain,
    nats::{
        connection::Connection,
        headers::{put_trace, trace_of},
        scan::{DEADLINE, StreamReader},
    },
    retry::with_deadline,
};

/// The size of the headers of an event at most, with those of the republished message.
const HEADER_BYTES: usize = 4 * 1024;

/// The last message of a status subject.
#[derive(Debug, Clone)]
pub(crate) struct LastMessage {
    /// The sequence of the message, and the event that its headers describe.
    pub known: SubjectState,
    /// The id of the Job's request.
    pub request_id: String,
    /// The hash of that request, if the message carries it.
    pub request_hash: Option<String>,
    /// The trace, if the message has one.
    pub trace: Option<Trace>,
    /// The event.
    pub event: StatusEvent,
}

impl LastMessage {
    /// The state of a Job that the API server does not list: the last published one.
    pub(crate) fn missing(self) -> JobState {
        let Self { event, request_hash, trace, .. } = self;
        JobState { trace, ..JobState::from_last_event(event, request_hash.unwrap_or_default()) }
    }
}

/// A failed call to `JOB_STATUS`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// `JetStream` refused the publish: the subject's last sequence is not the expected one.
    #[error("the last message of the subject is another one")]
    Fenced,
    /// The message is larger than the server or the stream accepts. It is not stored.
    #[error("{0}")]
    TooLarge(String),
    /// The stream refuses this message, but not others. It is not stored.
    #[error("{0}")]
    Refused(String),
    /// The call failed, or its result is unknown.
    #[error("{0}")]
    Unknown(String),
    /// The last message of the subject, at this sequence, is not a status event.
    #[error("message {0} in the stream of status events is not a status event")]
    Foreign(u64),
}

/// Access to `JOB_STATUS`.
#[derive(Clone)]
pub(crate) struct StatusStream {
    context: jetstream::Context,
    names: NatsNames,
    reader: StreamReader,
}

impl StatusStream {
    /// Opens the stream. Sends nothing to the server.
    ///
    /// # Errors
    /// If the stream's name is invalid.
    pub(crate) async fn open(
        context: jetstream::Context,
        names: NatsNames,
        scans: &Connection,
    ) -> Result<Self, StoreError> {
        let reader = StreamReader::open(&context, names.job_status()).await.map_err(StoreError::Unknown)?;
        Ok(Self { context, names, reader: reader.scanning_on(scans) })
    }

    /// The largest event that the server accepts, in bytes of JSON.
    pub(crate) fn max_event(&self) -> usize {
        self.context.client().max_payload().saturating_sub(HEADER_BYTES)
    }

    /// Publishes an event of a Job, in its encoded form, if `expected` is the sequence of the subject's last message
    /// (`Nats-Expected-Last-Subject-Sequence`, ADR-22). Returns the sequence of the event.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the subject's last sequence is not `expected`,
    /// [`StoreError::TooLarge`] and [`StoreError::Refused`] for this message only: the event is not
    /// stored. [`StoreError::Unknown`] on any other failure: the event may be stored.
    pub(crate) async fn publish(
        &self,
        event: &StatusEvent,
        json: Bytes,
        state: &JobState,
        expected: u64,
    ) -> Result<u64, StoreError> {
        let message = PublishMessage::build()
            .payload(json)
            .headers(event_headers(event, state))
            .expected_last_subject_sequence(expected);
        let subject = self.names.event_subject(&event.template, &event.name);
        let stream = self.names.job_status();
        let ack = async {
            let sent =
                self.context.send_publish(subject, message).await.map_err(|e| store_error(stream, &e))?;
            sent.await.map_err(|e| store_error(stream, &e))
        };
        let ack = with_deadline(2 * DEADLINE, ack).await;
        let ack = ack.map_err(|e| StoreError::Unknown(publish_failed(stream, &e.to_string())))?;
        Ok(ack?.sequence)
    }

    /// The last message of a Job's subject.
    ///
    /// # Errors
    /// [`StoreError::Foreign`] if the message is not a status event, [`StoreError::Unknown`] if the
    /// stream does not answer.
    pub(crate) async fn last(
        &self,
        template: &TemplateName,
        name: &JobName,
    ) -> Result<Option<LastMessage>, StoreError> {
        let found = self.reader.last_message(&self.names.status_subject(template, name)).await;
        let Some(message) = found.map_err(StoreError::Unknown)? else { return Ok(None) };
        let foreign = || StoreError::Foreign(message.sequence);
        let last = last_event(&message.headers).ok_or_else(foreign)?;
        let event = serde_json::from_slice(&message.payload).map_err(|_| foreign())?;
        Ok(Some(LastMessage {
            known: SubjectState { sequence: message.sequence, last: Some(last) },
            request_id: header(&message.headers, headers::JOB_REQUEST_ID).unwrap_or_default(),
            request_hash: header(&message.headers, headers::JOB_REQUEST_HASH),
            trace: trace_of(Some(&message.headers)),
            event,
        }))
    }

    /// The last sequence of the stream, from its leader.
    ///
    /// # Errors
    /// If the stream does not answer.
    pub(crate) async fn newest_sequence(&self) -> Result<u64, StoreError> {
        let info = self.reader.call(self.reader.stream().get_info()).await.map_err(StoreError::Unknown)?;
        Ok(info.state.last_sequence)
    }

    /// Looks for an event of the request `id` in all messages of a Job's subject. Returns `None` if
    /// there is no such event. Otherwise returns the request's hash, or `Some(None)` if the event
    /// lacks it.
    ///
    /// # Errors
    /// If the stream does not answer.
    pub(crate) async fn find_request(
        &self,
        template: &TemplateName,
        name: &JobName,
        id: &RequestId,
    ) -> Result<Option<Option<String>>, StoreError> {
        let mut found = None;
        let each = |_: &str, map: &HeaderMap, _| {
            if header(map, headers::JOB_REQUEST_ID).as_deref() == Some(id.as_ref()) {
                found = Some(header(map, headers::JOB_REQUEST_HASH));
            }
        };
        let subject = self.names.status_subject(template, name);
        let scanned = self.reader.scan(subject, DeliverPolicy::All, each).await;
        scanned.map_err(StoreError::Unknown)?;
        Ok(found)
    }

    /// Every subject whose last message is not an `OUTCOME`.
    ///
    /// # Errors
    /// If the stream does not answer.
    pub(crate) async fn open_subjects(&self) -> Result<HashMap<SubjectKey, SubjectState>, StoreError> {
        let mut open = HashMap::new();
        let each = |subject: &str, map: &HeaderMap, sequence| {
            match (self.names.parse_status_subject(subject), last_event(map)) {
                (Some(subject), Some(last)) if last.is_final() => {
                    // An earlier event of this subject may be in the map: if the client recreates
                    // the consumer mid-scan, the new one delivers all later messages of a subject.
                    open.remove(&subject);
                }
                (Some(subject), Some(last)) => {
                    open.insert(subject, SubjectState { sequence, last: Some(last) });
                }
                _ if is_marker(map) => {}
                _ => tracing::warn!(subject, sequence, "stored message is not a status event"),
            }
        };
        let scanned =
            self.reader.scan(self.names.status_subjects(), DeliverPolicy::LastPerSubject, each).await;
        scanned.map_err(StoreError::Unknown)?;
        Ok(open)
    }
}

fn publish_failed(stream: &str, error: &str) -> String {
    format!("stream {stream}: publish: {error}")
}

fn store_error(stream: &str, error: &PublishError) -> StoreError {
    let text = publish_failed(stream, &chain(error));
    let answer = error.source().and_then(|source| source.downcast_ref::<jetstream::Error>());
    match (error.kind(), answer.map(jetstream::Error::error_code)) {
        (PublishErrorKind::WrongLastSequence, _) => StoreError::Fenced,
        (PublishErrorKind::MaxPayloadExceeded, _) | (_, Some(ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM)) => {
            StoreError::TooLarge(text)
        }
        (_, Some(ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM)) => StoreError::Refused(text),
        // The code is the same for all limits of a stream.
        (_, Some(ErrorCode::STREAM_STORE_FAILED)) if text.contains("messages per subject") => {
            StoreError::Refused(text)
        }
        _ => StoreError::Unknown(text),
    }
}

fn event_headers(event: &StatusEvent, state: &JobState) -> HeaderMap {
    let mut map = HeaderMap::new();
    map.insert(headers::JOB_EVENT, event.event.as_str());
    map.insert(headers::JOB_UID, headers::safe_value(&event.uid));
    map.insert(headers::JOB_REQUEST_ID, headers::safe_value(event.request_id.as_ref()));
    map.insert(headers::JOB_RESOURCE_VERSION, headers::safe_value(&event.resource_version));
    if !state.request_hash.is_empty() {
        map.insert(headers::JOB_REQUEST_HASH, headers::safe_value(&state.request_hash));
    }
    put_trace(&mut map, state.trace.as_ref());
    map
}

/// Whether NATS or a key-value client has stored this in place of deleted messages (ADR-43, ADR-8).
fn is_marker(map: &HeaderMap) -> bool {
    ["Nats-Marker-Reason", "KV-Operation"].iter().any(|name| map.get(*name).is_some())
}

fn header(map: &HeaderMap, name: &str) -> Option<String> {
    map.get(name).map(|value| value.as_str().to_owned())
}

/// The event that the headers of a message describe.
fn last_event(map: &HeaderMap) -> Option<LastEvent> {
    Some(LastEvent {
        uid: header(map, headers::JOB_UID)?,
        resource_version: header(map, headers::JOB_RESOURCE_VERSION)?.parse().ok()?,
        event: EventType::parse(&header(map, headers::JOB_EVENT)?)?,
    })
}
