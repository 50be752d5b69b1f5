//! The key-value bucket `JOB_CANCELS`, through its stream: cancellations until they are complete.

use async_nats::jetstream::{
    self,
    consumer::{DeliverPolicy, pull::OrderedConfig},
};
use dispatcher_core::{
    contract::nats_names::NatsNames,
    request::cancellation::{Cancel, job_key},
};
use futures::{StreamExt, stream::BoxStream};

use crate::nats::{connection::Connection, scan::StreamReader};

/// Access to the bucket.
#[derive(Clone)]
pub(crate) struct CancellationBucket {
    context: jetstream::Context,
    names: NatsNames,
    reader: StreamReader,
    /// Receives the entries.
    scans: Connection,
}

/// An entry and its revision. The entry is `None` if the message is not an entry.
pub(crate) type Revision = Result<(Option<Cancel>, u64), String>;

impl CancellationBucket {
    /// Opens the bucket. Sends nothing to the server.
    ///
    /// # Errors
    /// If the stream's name is invalid.
    pub(crate) async fn open(
        context: jetstream::Context,
        names: NatsNames,
        scans: &Connection,
    ) -> Result<Self, String> {
        let reader = StreamReader::open(&context, names.job_cancels()).await?.scanning_on(scans);
        Ok(Self { context, names, reader, scans: scans.clone() })
    }

    /// Stores an entry. Returns its revision.
    ///
    /// # Errors
    /// If the entry may not be stored.
    pub(crate) async fn put(&self, cancel: &Cancel) -> Result<u64, String> {
        let payload = serde_json::to_vec(cancel).map_err(|e| e.to_string())?;
        let subject = self.names.cancel_subject(&cancel.key());
        let sent = self.reader.call(self.context.publish(subject, payload.into())).await?;
        Ok(self.reader.call(sent.into_future()).await?.sequence)
    }

    /// Whether the bucket has an entry for the Job with this uid.
    ///
    /// # Errors
    /// If the stream does not answer.
    pub(crate) async fn contains_job(&self, uid: &str) -> Result<bool, String> {
        let last = self.reader.last_message(&self.names.cancel_subject(&job_key(uid))).await?;
        Ok(last.is_some_and(|message| !message.payload.is_empty()))
    }

    /// Removes the entry of a key up to a revision. Leaves no delete marker.
    ///
    /// # Errors
    /// If the stream does not answer.
    pub(crate) async fn remove(&self, key: &str, revision: u64) -> Result<(), String> {
        let subject = self.names.cancel_subject(key);
        let purge = self.reader.stream().purge().filter(subject).sequence(revision.saturating_add(1));
        self.reader.call(purge.into_future()).await.map(drop)
    }

    /// All entries and then each new one, and the number of entries that exist now. Ends when the
    /// connection was lost.
    ///
    /// # Errors
    /// If the stream does not answer.
    pub(crate) async fn watch(&self) -> Result<(BoxStream<'static, Revision>, u64), String> {
        let config = OrderedConfig {
            deliver_policy: DeliverPolicy::LastPerSubject,
            filter_subject: self.names.cancel_subject(">"),
            ..OrderedConfig::default()
        };
        let mut changes = self.scans.changes();
        let stream = self.reader.scanned_stream().await?;
        let consumer = self.reader.call(stream.create_consumer(config)).await?;
        let pending = consumer.cached_info().num_pending;
        let messages = self.reader.call(consumer.messages()).await?;
        let names = self.names.clone();
        let entries = messages.map(move |message| {
            let message = message.map_err(|e| format!("stream {}: {e}", names.job_cancels()))?;
            let revision = message.info().map_err(|e| e.to_string())?.stream_sequence;
            Ok((serde_json::from_slice(&message.payload).ok(), revision))
        });
        let lost = Box::pin(async move { changes.changed().await });
        Ok((entries.take_until(lost).boxed(), pending))
    }
}
