//! Reads of one stream: single messages, and scans of many by their headers.
//!
//! Every read goes through the stream's leader, because followers may lag. Every call has a
//! deadline, and every error names the stream.

use std::{fmt::Display, time::Duration};

use async_nats::{
    HeaderMap,
    jetstream::{
        self, ErrorCode,
        consumer::{Consumer, DeliverPolicy, pull::OrderedConfig},
        message::StreamMessage,
        response::Response,
        stream::{LastRawMessageErrorKind, RawMessage, RawMessageErrorKind, Stream},
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures::{FutureExt, StreamExt};
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::{nats::connection::Connection, retry::with_deadline};

/// The deadline of one call to `JetStream`, and of the next message of a scan.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

/// The deadline of the same while the server looks for the last message of every subject. That takes a
/// second for a million subjects, and a multiple on a busy machine. A retry would start from nothing.
const LAST_PER_SUBJECT_DEADLINE: Duration = Duration::from_secs(60);

/// The result of `call` within [`DEADLINE`]. An error begins with `what`.
pub(crate) fn call<T, E: Display>(
    what: &str,
    call: impl Future<Output = Result<T, E>>,
) -> impl Future<Output = Result<T, String>> {
    call_within(DEADLINE, what, call)
}

fn call_within<T, E: Display>(
    deadline: Duration,
    what: &str,
    call: impl Future<Output = Result<T, E>>,
) -> impl Future<Output = Result<T, String>> {
    with_deadline(deadline, call).map(move |result| match result {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(format!("{what}: {error}")),
        Err(error) => Err(format!("{what}: {error}")),
    })
}

/// One message of a stream by `STREAM.MSG.GET`; `None` if it has no such message. The client library
/// may be unable to decode its headers.
///
/// # Errors
/// If the stream does not answer or refuses.
pub(crate) async fn get_message(
    context: &jetstream::Context,
    stream: &str,
    query: &Value,
) -> Result<Option<RawMessage>, String> {
    /// The answer.
    #[derive(Deserialize)]
    struct Answer {
        message: RawMessage,
    }

    let label = format!("stream {stream}");
    match call(&label, context.request(format!("STREAM.MSG.GET.{stream}"), query)).await? {
        Response::<Answer>::Ok(answer) => Ok(Some(answer.message)),
        Response::Err { error } if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => Ok(None),
        Response::Err { error } => Err(format!("{label}: {error}")),
    }
}

/// A message as it is stored. Its headers can be anything, since any publisher may have sent it.
#[derive(Debug, Clone)]
pub(crate) struct StoredMessage {
    /// The sequence.
    pub sequence: u64,
    /// When it was stored.
    pub time: OffsetDateTime,
    /// The headers, undecoded.
    pub headers: Vec<u8>,
}

/// Reads one stream.
#[derive(Clone)]
pub(crate) struct StreamReader {
    context: jetstream::Context,
    name: String,
    stream: Stream<()>,
    /// Receives the messages of scans.
    scans: Option<Connection>,
    /// `stream <name>`, for errors.
    label: String,
}

impl StreamReader {
    /// A reader of the stream `name`. Sends nothing to the server: provisioning has verified the
    /// stream.
    ///
    /// # Errors
    /// If the name is invalid.
    pub(crate) async fn open(context: &jetstream::Context, name: &str) -> Result<Self, String> {
        let label = format!("stream {name}");
        let stream = context.get_stream_no_info(name).await.map_err(|e| format!("{label}: {e}"))?;
        Ok(Self { context: context.clone(), name: name.to_owned(), stream, scans: None, label })
    }

    /// The same reader with a connection of its own for scans: a message that cannot be decoded
    /// ends the connection that receives it.
    #[must_use]
    pub(crate) fn scanning_on(self, scans: &Connection) -> Self {
        Self { scans: Some(scans.clone()), ..self }
    }

    /// The stream's handle for consumers.
    ///
    /// # Errors
    /// If the name is invalid.
    pub(crate) async fn scanned_stream(&self) -> Result<Stream<()>, String> {
        let Some(scans) = &self.scans else { return Ok(self.stream.clone()) };
        let mut context = scans.jetstream();
        // The client library's own deadline. Every call has a shorter one, except that of a scan.
        context.set_timeout(LAST_PER_SUBJECT_DEADLINE);
        context.get_stream_no_info(&self.name).await.map_err(|e| format!("{}: {e}", self.label))
    }

    /// The stream's handle, for calls that this type lacks. Pass them to [`StreamReader::call`].
    pub(crate) fn stream(&self) -> &Stream<()> {
        &self.stream
    }

    /// The result of `call` within [`DEADLINE`].
    ///
    /// # Errors
    /// The error of the call or of the deadline, with the stream's name.
    pub(crate) fn call<T, E: Display>(
        &self,
        future: impl Future<Output = Result<T, E>>,
    ) -> impl Future<Output = Result<T, String>> {
        call(&self.label, future)
    }

    /// The last message of a subject, if there is one.
    ///
    /// # Errors
    /// If the stream does not answer.
    pub(crate) async fn last_message(&self, subject: &str) -> Result<Option<StreamMessage>, String> {
        self.call(async {
            match self.stream.get_last_raw_message_by_subject(subject).await {
                Ok(message) => Ok(Some(message)),
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// As [`StreamReader::last_message`], for a subject on which other programs may publish.
    ///
    /// # Errors
    /// If the stream does not answer.
    pub(crate) async fn last_stored(&self, subject: &str) -> Result<Option<StoredMessage>, String> {
        let query = json!({"last_by_subj": subject});
        let found = get_message(&self.context, &self.name, &query).await?;
        let Some(message) = found else { return Ok(None) };
        let headers = STANDARD.decode(message.headers.unwrap_or_default());
        let headers = headers.map_err(|e| format!("{}: headers are not base64: {e}", self.label))?;
        Ok(Some(StoredMessage { sequence: message.sequence, time: message.time, headers }))
    }

    /// The message at a sequence, unless the stream has removed it.
    ///
    /// # Errors
    /// If the stream does not answer.
    pub(crate) async fn message(&self, sequence: u64) -> Result<Option<StreamMessage>, String> {
        self.call(async {
            match self.stream.get_raw_message(sequence).await {
                Ok(message) => Ok(Some(message)),
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// As [`scan`].
    ///
    /// # Errors
    /// As [`scan`], with the stream's name.
    pub(crate) async fn scan(
        &self,
        subject: String,
        from: DeliverPolicy,
        each: impl FnMut(&str, &HeaderMap, u64),
    ) -> Result<(), String> {
        let stream = self.scanned_stream().await?;
        scan(&stream, subject, from, each).await.map_err(|e| format!("{}: {e}", self.label))
    }
}

/// Calls `each` with the subject, headers and sequence of every message that `subject` has now.
///
/// The consumer may be on a follower. So the scan first reads the last message through the leader,
/// and is complete only once the consumer has delivered it. A million messages take seconds.
///
/// # Errors
/// If the stream does not answer, or stops answering during the scan. Then `each` may have missed
/// messages.
pub async fn scan(
    stream: &Stream<()>,
    subject: String,
    from: DeliverPolicy,
    each: impl FnMut(&str, &HeaderMap, u64),
) -> Result<(), String> {
    let last = call("scan", async {
        match stream.get_last_raw_message_by_subject(&subject).await {
            Ok(last) => Ok(Some(last)),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(error),
        }
    });
    let last = match last.await? {
        Some(last) if delivers(from, last.sequence, last.time) => last.sequence,
        _ => return Ok(()),
    };
    let config = OrderedConfig {
        deliver_policy: from,
        filter_subject: subject,
        headers_only: true,
        ..OrderedConfig::default()
    };
    let deadline = deadline(from);
    let consumer = call_within(deadline, "scan", stream.create_consumer(config)).await?;
    let name = consumer.cached_info().name.clone();
    let result = read_until(consumer, last, deadline, each).await;
    // The server removes it after half a minute. Hundreds of scans per second would leave
    // thousands.
    if let Err(error) = call("delete consumer", stream.delete_consumer(&name)).await {
        tracing::debug!(error, "consumer of a scan is left to expire");
    }
    result
}

/// How long the start of a consumer with this policy may take, and its next message. The client may
/// have to start the consumer again.
fn deadline(policy: DeliverPolicy) -> Duration {
    if policy == DeliverPolicy::LastPerSubject { LAST_PER_SUBJECT_DEADLINE } else { DEADLINE }
}

/// Whether a consumer with this policy delivers the message of this sequence and time.
fn delivers(policy: DeliverPolicy, sequence: u64, time: OffsetDateTime) -> bool {
    match policy {
        DeliverPolicy::ByStartSequence { start_sequence } => sequence >= start_sequence,
        DeliverPolicy::ByStartTime { start_time } => time >= start_time,
        DeliverPolicy::New => false,
        DeliverPolicy::All | DeliverPolicy::Last | DeliverPolicy::LastPerSubject => true,
    }
}

/// Reads until the consumer has nothing pending and has delivered the message `last`.
async fn read_until(
    consumer: Consumer<OrderedConfig>,
    last: u64,
    deadline: Duration,
    mut each: impl FnMut(&str, &HeaderMap, u64),
) -> Result<(), String> {
    let none = HeaderMap::new();
    let mut messages = call("scan", consumer.messages()).await?;
    loop {
        let next = with_deadline(deadline, messages.next()).await.map_err(|e| format!("scan: {e}"))?;
        let message = next.ok_or("scan: ended early")?.map_err(|e| format!("scan: {e}"))?;
        let info = message.info().map_err(|e| format!("scan: {e}"))?;
        each(&message.subject, message.headers.as_ref().unwrap_or(&none), info.stream_sequence);
        if info.pending == 0 && info.stream_sequence >= last {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_delivers_the_last_message_unless_it_starts_after_it() {
        let time = OffsetDateTime::UNIX_EPOCH;
        let later = time + Duration::from_secs(1);
        for (policy, expected) in [
            (DeliverPolicy::All, true),
            (DeliverPolicy::LastPerSubject, true),
            (DeliverPolicy::ByStartSequence { start_sequence: 7 }, true),
            (DeliverPolicy::ByStartSequence { start_sequence: 8 }, false),
            (DeliverPolicy::ByStartTime { start_time: time }, true),
            (DeliverPolicy::ByStartTime { start_time: later }, false),
        ] {
            assert_eq!(delivers(policy, 7, time), expected, "{policy:?}");
        }
    }
}
