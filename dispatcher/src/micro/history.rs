//! What the streams hold of a Job or a request: events and dead letters, as they are stored.

use std::time::{Duration, SystemTime};

use async_nats::{
    HeaderMap,
    jetstream::{
        self,
        consumer::DeliverPolicy,
        message::StreamMessage,
        stream::{LastRawMessageErrorKind, RawMessageErrorKind, Stream},
    },
};
use bytes::Bytes;
use tokio::time::timeout;

use crate::micro::query::Wait;
use crate::nats::{
    definitions::{JOB_REJECTED, JOB_STATUS, JOBS},
    scan::scan,
};
use dispatcher_core::contract::{
    event::EventType,
    headers::{JOB_ERROR, JOB_ERROR_MESSAGE, JOB_EVENT, JOB_REQUEST_HASH, JOB_REQUEST_ID, JOB_REQUEST_SEQ},
    names::{JobName, RequestId, TemplateName},
    rejection::{Reason, Rejection},
};

/// How long one call to JetStream may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// Access to `JOBS`, `JOB_STATUS` and `JOB_REJECTED`.
#[derive(Clone)]
pub struct History {
    jobs: Stream<()>,
    status: Stream<()>,
    rejected: Stream<()>,
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

async fn bounded<T, E: std::fmt::Display>(
    stream: &str,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    let answer = timeout(DEADLINE, call).await;
    answer
        .map_err(|_| format!("stream {stream}: no answer within {} s", DEADLINE.as_secs()))?
        .map_err(|e| format!("stream {stream}: {e}"))
}

impl History {
    /// Opens the streams without asking for them: `provision` did.
    ///
    /// # Errors
    /// Where a stream's name is invalid, which it is not.
    pub async fn open(context: &jetstream::Context) -> Result<Self, String> {
        let open = async |name| context.get_stream_no_info(name).await.map_err(|e| e.to_string());
        Ok(Self {
            jobs: open(JOBS).await?,
            status: open(JOB_STATUS).await?,
            rejected: open(JOB_REJECTED).await?,
        })
    }

    /// The request at a sequence; `None` where it is done.
    ///
    /// # Errors
    /// Where the stream does not answer.
    pub async fn request(&self, sequence: u64) -> Result<Option<StreamMessage>, String> {
        get(&self.jobs, JOBS, sequence).await
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
        let subject = template.status_subject(name);
        bounded(JOB_STATUS, async {
            match self.status.get_last_raw_message_by_subject(&subject).await {
                Ok(message) => Ok(Some(message)),
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
                Err(error) => Err(error),
            }
        })
        .await
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
        scan(&self.status, subject, DeliverPolicy::All, |_, headers, sequence| {
            if ours(headers) && wait.is_met_by(event_type(headers)) {
                place = Some(sequence);
            }
        })
        .await
        .map_err(|e| format!("stream {JOB_STATUS}: {e}"))?;
        let Some(place) = place else { return Ok(None) };
        get(&self.status, JOB_STATUS, place).await.map(|message| message.map(|message| message.payload))
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
        scan(&self.rejected, template.rejected_subject(), from, |_, headers, at| {
            if header(headers, JOB_REQUEST_SEQ).as_deref() == Some(wanted.as_str()) {
                place = Some(at);
            }
        })
        .await
        .map_err(|e| format!("stream {JOB_REJECTED}: {e}"))?;
        let Some(place) = place else { return Ok(None) };
        let Some(letter) = get(&self.rejected, JOB_REJECTED, place).await? else { return Ok(None) };
        let word = header(&letter.headers, JOB_ERROR).unwrap_or_default();
        let reason = serde_json::from_value(word.into()).unwrap_or(Reason::Refused);
        let message = header(&letter.headers, JOB_ERROR_MESSAGE).unwrap_or_default();
        Ok(Some((Rejection::new(reason, message), letter.payload)))
    }
}

/// The message at a sequence; `None` where it is gone.
async fn get(stream: &Stream<()>, name: &str, sequence: u64) -> Result<Option<StreamMessage>, String> {
    bounded(name, async {
        match stream.get_raw_message(sequence).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(error),
        }
    })
    .await
}
