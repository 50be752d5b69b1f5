//! The key-value bucket `JOB_CANCELS`, by its stream.

use std::time::Duration;

use async_nats::jetstream::{
    self,
    consumer::{DeliverPolicy, pull::OrderedConfig},
    stream::{LastRawMessageErrorKind, Stream},
};
use futures::{StreamExt, stream::BoxStream};
use tokio::time::timeout;

use crate::nats::definitions::{CANCELS_SUBJECTS, JOB_CANCELS};
use dispatcher_core::request::cancellation::{Cancel, job_key};

/// How long one call to JetStream may take.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);

/// Access to the bucket.
#[derive(Clone)]
pub struct Bucket {
    context: jetstream::Context,
    stream: Stream<()>,
}

/// An entry, or `None` of a message that is none, and its revision.
pub(super) type Read = Result<(Option<Cancel>, u64), String>;

async fn bounded<T, E: std::fmt::Display>(call: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    let answer = timeout(DEADLINE, call).await;
    let answer =
        answer.map_err(|_| format!("stream {JOB_CANCELS}: no answer within {} s", DEADLINE.as_secs()))?;
    answer.map_err(|e| format!("stream {JOB_CANCELS}: {e}"))
}

fn subject(key: &str) -> String {
    CANCELS_SUBJECTS.replace('>', key)
}

impl Bucket {
    /// Opens the stream without asking for it: `provision` did.
    ///
    /// # Errors
    /// Where the stream's name is invalid, which it is not.
    pub async fn open(context: jetstream::Context) -> Result<Self, String> {
        let stream = context.get_stream_no_info(JOB_CANCELS).await.map_err(|e| e.to_string())?;
        Ok(Self { context, stream })
    }

    /// Stores an entry; its revision.
    pub(super) async fn put(&self, cancel: &Cancel) -> Result<u64, String> {
        let payload = serde_json::to_vec(cancel).map_err(|e| e.to_string())?;
        let sent = bounded(self.context.publish(subject(&cancel.key()), payload.into())).await?;
        Ok(bounded(sent.into_future()).await?.sequence)
    }

    /// Whether there is an entry of this Job; read through the stream's leader.
    pub(super) async fn has_job(&self, uid: &str) -> Result<bool, String> {
        let subject = subject(&job_key(uid));
        bounded(async {
            match self.stream.get_last_raw_message_by_subject(&subject).await {
                Ok(message) => Ok(!message.payload.is_empty()),
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(false),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// Removes the entry of this key up to this revision: a newer one stays. No marker is left behind.
    pub(super) async fn remove(&self, key: &str, revision: u64) -> Result<(), String> {
        let purge = self.stream.purge().filter(subject(key)).sequence(revision.saturating_add(1));
        bounded(purge.into_future()).await.map(drop)
    }

    /// Every entry, and then each new one; and how many there are now.
    pub(super) async fn follow(&self) -> Result<(BoxStream<'static, Read>, u64), String> {
        let config = OrderedConfig {
            deliver_policy: DeliverPolicy::LastPerSubject,
            filter_subject: CANCELS_SUBJECTS.to_owned(),
            ..OrderedConfig::default()
        };
        let consumer = bounded(self.stream.create_consumer(config)).await?;
        let pending = consumer.cached_info().num_pending;
        let messages = bounded(consumer.messages()).await?;
        let entries = messages.map(|message| {
            let message = message.map_err(|e| format!("stream {JOB_CANCELS}: {e}"))?;
            let revision = message.info().map_err(|e| e.to_string())?.stream_sequence;
            Ok((serde_json::from_slice(&message.payload).ok(), revision))
        });
        Ok((entries.boxed(), pending))
    }
}
