//! Samples the queue of each template for the metrics, so that a scrape never waits for NATS.

use std::time::Duration;

use dispatcher_core::contract::names::TemplateName;
use time::OffsetDateTime;
use tokio::time::sleep;

use crate::{
    nats::jobs_stream::JobsStream,
    retry::with_deadline,
    telemetry::metrics::{Metrics, QueueSample},
    templates::served::ServedTemplates,
};

/// The pause between two rounds of samples.
const INTERVAL: Duration = Duration::from_secs(15);
/// The longest duration of one sample, which makes two calls.
const DEADLINE: Duration = Duration::from_secs(10);

/// Samples the queues of all templates.
pub(super) struct QueueSampler {
    pub(super) jobs: JobsStream,
    pub(super) templates: ServedTemplates,
    pub(super) metrics: Metrics,
}

impl QueueSampler {
    /// Samples until the caller drops the future.
    pub(super) async fn run(self) {
        loop {
            for template in &self.templates.names() {
                let sample = with_deadline(DEADLINE, self.sample(template)).await;
                let sample = sample.unwrap_or_else(|error| Err(error.to_string()));
                if let Err(error) = &sample {
                    // The intake reports the same failure at /readyz.
                    tracing::debug!(%template, error, "cannot sample the queue");
                }
                self.metrics.set_queue(template, sample.ok());
            }
            sleep(INTERVAL).await;
        }
    }

    async fn sample(&self, template: &TemplateName) -> Result<QueueSample, String> {
        let info = self.jobs.queue(template).await?.ok_or("the consumer does not exist")?;
        // Acknowledged requests leave the work queue, so the first stored request is the oldest.
        let oldest = self.jobs.first_request(template, 1).await?;
        let age = |stored: OffsetDateTime| (OffsetDateTime::now_utc() - stored).as_seconds_f64();
        Ok(QueueSample {
            pending: info.num_pending,
            ack_pending: info.num_ack_pending.try_into().unwrap_or(u64::MAX),
            redelivered: info.num_redelivered.try_into().unwrap_or(u64::MAX),
            oldest_age_seconds: oldest.map_or(0.0, |message| age(message.time).max(0.0)),
        })
    }
}
