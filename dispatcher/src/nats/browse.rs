//! Reads stored messages for people: the events of one Job, and the newest dead letters.
//!
//! Every read is one `STREAM.MSG.GET` on the connection of the scans, so that nothing here occupies
//! the publishing connection. Headers and payloads stay undecoded: any program may have sent them.

use async_nats::jetstream::{self, stream::RawMessage};
use base64::{Engine, engine::general_purpose::STANDARD};
use dispatcher_core::contract::nats_names::NatsNames;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use time::OffsetDateTime;

use crate::nats::{
    connection::Connection,
    scan::{call, get_message},
};

/// How many messages are read concurrently.
const CONCURRENCY: usize = 8;

/// A stored message.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) subject: String,
    pub(crate) sequence: u64,
    pub(crate) time: OffsetDateTime,
    pub(crate) headers: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

/// Reads the streams.
#[derive(Clone)]
pub(crate) struct Browser(Connection);

impl Browser {
    /// Reads by this connection.
    pub(crate) fn new(scans: Connection) -> Self {
        Self(scans)
    }

    /// The names of the installation.
    pub(crate) fn names(&self) -> &NatsNames {
        self.0.names()
    }

    /// Passes the messages of a subject of `JOB_STATUS` to `each`, the oldest first.
    ///
    /// # Errors
    /// The stream does not answer. `each` has got some of the messages.
    pub(crate) async fn status_events(
        &self,
        subject: &str,
        mut each: impl FnMut(Stored),
    ) -> Result<(), String> {
        let context = self.0.jetstream();
        let mut from = 1;
        loop {
            let query = json!({"seq": from, "next_by_subj": subject});
            let Some(message) = get_message(&context, self.0.names().job_status(), &query).await? else {
                return Ok(());
            };
            from = message.sequence.saturating_add(1);
            each(stored(message)?);
        }
    }

    /// The dead letters with the highest sequences below `before`, the newest first; and where the
    /// next older ones are. `max` bounds the reads, and so the dead letters.
    ///
    /// # Errors
    /// The stream does not answer.
    pub(crate) async fn dead_letters(
        &self,
        before: Option<u64>,
        max: u64,
    ) -> Result<(Vec<Stored>, Option<u64>), String> {
        let context = self.0.jetstream();
        let name = self.0.names().job_rejected();
        let stream = call(&format!("stream {name}"), context.get_stream(name)).await?;
        let state = &stream.cached_info().state;
        let end = before.unwrap_or(u64::MAX).min(state.last_sequence.saturating_add(1));
        let begin = end.saturating_sub(max).max(state.first_sequence).max(1);
        let reads = stream::iter((begin..end).rev()).map(|sequence| read(&context, name, sequence));
        let found: Vec<Option<Stored>> = reads.buffered(CONCURRENCY).try_collect().await?;
        let next = (begin > state.first_sequence && begin < end).then_some(begin);
        Ok((found.into_iter().flatten().collect(), next))
    }
}

async fn read(context: &jetstream::Context, stream: &str, sequence: u64) -> Result<Option<Stored>, String> {
    get_message(context, stream, &json!({"seq": sequence})).await?.map(stored).transpose()
}

fn stored(message: RawMessage) -> Result<Stored, String> {
    let RawMessage { subject, sequence, time, headers, payload, .. } = message;
    let decode = |text: String| STANDARD.decode(text).map_err(|e| format!("message {sequence}: {e}"));
    let (headers, payload) = (decode(headers.unwrap_or_default())?, decode(payload)?);
    Ok(Stored { subject, sequence, time, headers, payload })
}
