//! The history of earlier Jobs in `JOB_STATUS`: copies of the outcome of a finished Job.

use async_nats::{HeaderMap, HeaderName, jetstream};
use futures::{StreamExt, TryStreamExt, stream};

use crate::clones::Pattern;
use crate::states::{FINISHED, SampleJob};

/// The concurrent publishes.
const PUBLISHES: usize = 1_000;
/// What `JOB_STATUS` may hold: an operator who keeps such a history raises its limit as well.
const MAX_BYTES: i64 = 4 << 30;

/// Publishes copies of a stored event.
pub(crate) struct History {
    context: jetstream::Context,
    subject: Pattern,
    headers: Vec<(HeaderName, Pattern)>,
    payload: Pattern,
    /// The number of copies so far.
    count: usize,
}

impl History {
    /// A history of copies of the last event of this Job.
    pub(crate) async fn of(context: &jetstream::Context, job: &SampleJob) -> Result<Self, String> {
        let failed = |error: &dyn std::fmt::Display| format!("history: {error}");
        let stream = context.get_stream("JOB_STATUS").await.map_err(|error| failed(&error))?;
        let mut config = stream.cached_info().config.clone();
        config.max_bytes = MAX_BYTES;
        context.update_stream(&config).await.map_err(|error| failed(&error))?;
        let subject = format!("jobs.simple.status.{}", job.name);
        let last = stream.get_last_raw_message_by_subject(&subject).await.map_err(|error| failed(&error))?;
        let pattern = |text: &[u8]| Pattern::new(text.to_vec(), &job.name, &[&job.uid]);
        // The fence would refuse a copy.
        let kept = last.headers.iter().filter(|(name, _)| !name.to_string().starts_with("Nats-"));
        let headers = kept.flat_map(|(name, values)| {
            values.iter().map(|value| (name.clone(), pattern(value.as_str().as_bytes())))
        });
        let subject = format!("dispatcher.event.simple.{}", job.name);
        Ok(Self {
            context: context.clone(),
            subject: pattern(subject.as_bytes()),
            headers: headers.collect(),
            payload: pattern(&last.payload),
            count: 0,
        })
    }

    /// Adds subjects up to this number.
    pub(crate) async fn extend(&mut self, to: usize) -> Result<(), String> {
        let numbers = self.count..to;
        let published = stream::iter(numbers).map(|number| self.publish(FINISHED + 1 + number));
        published.buffer_unordered(PUBLISHES).try_collect::<()>().await?;
        self.count = to.max(self.count);
        Ok(())
    }

    async fn publish(&self, number: usize) -> Result<(), String> {
        let text = |pattern: &Pattern| String::from_utf8_lossy(&pattern.copy(number)).into_owned();
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            headers.insert(name.clone(), text(value).as_str());
        }
        let payload = self.payload.copy(number).into();
        let sent = self.context.publish_with_headers(text(&self.subject), headers, payload).await;
        let sent = sent.map_err(|error| format!("history: {error}"))?;
        sent.await.map(drop).map_err(|error| format!("history: {error}"))
    }
}
