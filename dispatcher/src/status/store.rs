//! `JOB_STATUS` as a store: fenced publishes, the last message of a subject, the scan of what was said.

use std::{collections::HashMap, time::Duration};

use async_nats::{
    HeaderMap,
    jetstream::{
        self,
        consumer::DeliverPolicy,
        context::{PublishError, PublishErrorKind},
        message::PublishMessage,
        stream::{LastRawMessageErrorKind, Stream},
    },
};
use tokio::time::timeout;

use crate::nats::{definitions::JOB_STATUS, scan::scan};
use dispatcher_core::status::SubjectState;
use dispatcher_core::{
    contract::{
        event::{EventType, StatusEvent},
        headers,
        job::JobState,
        names::{JobName, RequestId, TemplateName, parse_status_subject},
        trace::Trace,
    },
    status::LastEvent,
};

/// How long one call to JetStream may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// The last message of a status subject, whole.
#[derive(Debug, Clone)]
pub struct LastMessage {
    /// Sequence and what it says.
    pub known: SubjectState,
    /// The identity of the request whose Job it tells of.
    pub request_id: String,
    /// The hash of that request, where the message carries it.
    pub request_hash: Option<String>,
    /// The trace that the message belongs to.
    pub trace: Option<Trace>,
    /// The event.
    pub event: StatusEvent,
}

impl LastMessage {
    /// The state that it tells of, of a Job that is in no list any more.
    pub fn missing(self) -> JobState {
        let Self { event, request_hash, trace, .. } = self;
        JobState { trace, ..JobState::missing(event, request_hash.unwrap_or_default()) }
    }
}

/// A call to the store that failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Stored by somebody who knew more: the subject's last message is another one.
    #[error("the last message of the subject is another one")]
    Fenced,
    /// No answer, or one that does not say what happened.
    #[error("stream JOB_STATUS: {0}")]
    Unknown(String),
    /// The stream's last message of a subject is no status event.
    #[error("stream JOB_STATUS: message {0} is no status event")]
    Foreign(u64),
}

/// Access to `JOB_STATUS`.
#[derive(Clone)]
pub struct Store {
    context: jetstream::Context,
    stream: Stream<()>,
}

impl Store {
    /// Opens the stream without asking for it: `provision` did.
    ///
    /// # Errors
    /// Where the stream's name is invalid, which it is not.
    pub async fn open(mut context: jetstream::Context) -> Result<Self, StoreError> {
        context.set_timeout(DEADLINE);
        let stream =
            context.get_stream_no_info(JOB_STATUS).await.map_err(|e| StoreError::Unknown(e.to_string()))?;
        Ok(Self { context, stream })
    }

    /// The largest message that the server takes, in bytes.
    pub fn max_payload(&self) -> usize {
        self.context.client().max_payload()
    }

    /// Publishes an `event` of the Job `state` if the subject's last message still is `expected` (ADR-22, expected last subject sequence).
    /// The answer is the sequence under which it is stored.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] where it is not; anything else leaves open whether it is stored.
    pub async fn publish(
        &self,
        event: &StatusEvent,
        state: &JobState,
        expected: u64,
    ) -> Result<u64, StoreError> {
        let unknown = |e: String| StoreError::Unknown(e);
        let payload = serde_json::to_vec(event).map_err(|e| unknown(e.to_string()))?;
        let message = PublishMessage::build()
            .payload(payload.into())
            .headers(event_headers(event, state))
            .expected_last_subject_sequence(expected);
        let from = |error: PublishError| match error.kind() {
            PublishErrorKind::WrongLastSequence => StoreError::Fenced,
            _ => StoreError::Unknown(error.to_string()),
        };
        let subject = event.template.event_subject(&event.name);
        let sent =
            async { self.context.send_publish(subject, message).await.map_err(from)?.await.map_err(from) };
        match timeout(DEADLINE * 2, sent).await {
            Ok(acked) => Ok(acked?.sequence),
            Err(_) => Err(unknown(format!("no answer to a publish within {} s", 2 * DEADLINE.as_secs()))),
        }
    }

    /// The last message of a Job's status subject, read through the stream's leader: a replica may lag.
    ///
    /// # Errors
    /// Where the stream does not answer, or the message is no status event.
    pub async fn last(
        &self,
        template: &TemplateName,
        name: &JobName,
    ) -> Result<Option<LastMessage>, StoreError> {
        let subject = template.status_subject(name);
        match timeout(DEADLINE, self.stream.get_last_raw_message_by_subject(&subject)).await {
            Err(_) => Err(StoreError::Unknown(format!("no answer within {} s", DEADLINE.as_secs()))),
            Ok(Err(error)) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Ok(Err(error)) => Err(StoreError::Unknown(error.to_string())),
            Ok(Ok(message)) => {
                let foreign = || StoreError::Foreign(message.sequence);
                let said = said(&message.headers).ok_or_else(foreign)?;
                let event = serde_json::from_slice(&message.payload).map_err(|_| foreign())?;
                let header = |name: &str| message.headers.get(name).map(|v| v.as_str().to_owned());
                Ok(Some(LastMessage {
                    known: SubjectState { sequence: message.sequence, last: Some(said) },
                    request_id: header(headers::JOB_REQUEST_ID).unwrap_or_default(),
                    request_hash: header(headers::JOB_REQUEST_HASH),
                    trace: crate::nats::headers::trace_of(Some(&message.headers)),
                    event,
                }))
            }
        }
    }

    /// Whether the request `id` was spoken of anywhere in the history of a status subject; with the hash of that request,
    /// where the message carries it. Read by headers only.
    ///
    /// # Errors
    /// Where the stream does not answer, or stops answering under way.
    pub async fn find_request(
        &self,
        template: &TemplateName,
        name: &JobName,
        id: &RequestId,
    ) -> Result<Option<Option<String>>, StoreError> {
        let mut found = None;
        scan(&self.stream, template.status_subject(name), DeliverPolicy::All, |_, headers, _| {
            let header = |name: &str| headers.get(name).map(|value| value.as_str().to_owned());
            if header(headers::JOB_REQUEST_ID).as_deref() == Some(id.as_ref()) {
                found = Some(header(headers::JOB_REQUEST_HASH));
            }
        })
        .await
        .map_err(StoreError::Unknown)?;
        Ok(found)
    }

    /// Every Job whose last message is no `OUTCOME`: read by headers only, last message per subject.
    ///
    /// # Errors
    /// Where the stream does not answer, or stops answering under way.
    pub async fn open_subjects(&self) -> Result<HashMap<(TemplateName, JobName), SubjectState>, StoreError> {
        let mut open = HashMap::new();
        let subjects = "jobs.*.status.*".to_owned();
        scan(&self.stream, subjects, DeliverPolicy::LastPerSubject, |subject, headers, sequence| {
            match (parse_status_subject(subject), said(headers)) {
                (Some(subject), Some(said)) if said.is_final() => {
                    // A consumer that was made anew under way gives all messages, the last one last.
                    open.remove(&subject);
                }
                (Some(subject), Some(said)) => {
                    open.insert(subject, SubjectState { sequence, last: Some(said) });
                }
                _ => tracing::warn!(subject, sequence, "a message in JOB_STATUS is no status event"),
            }
        })
        .await
        .map_err(StoreError::Unknown)?;
        Ok(open)
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
    crate::nats::headers::put_trace(&mut map, state.trace.as_ref());
    map
}

fn said(map: &HeaderMap) -> Option<LastEvent> {
    Some(LastEvent {
        uid: map.get(headers::JOB_UID)?.as_str().to_owned(),
        resource_version: map.get(headers::JOB_RESOURCE_VERSION)?.as_str().parse().ok()?,
        event: EventType::parse(map.get(headers::JOB_EVENT)?.as_str())?,
    })
}
