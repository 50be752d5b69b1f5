//! The queue of each template: looked at now and then, within a deadline, so that a scrape never waits for NATS.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::jetstream::consumer::PullConsumer;
use time::OffsetDateTime;
use tokio::time::{sleep, timeout};

use crate::nats::jobs_stream::JobsStream;
use crate::telemetry::metrics::Metrics;
use dispatcher_core::contract::names::TemplateName;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(15);
/// Of one look: longer than the two calls that it is made of may take each.
const DEADLINE: Duration = Duration::from_secs(10);

/// What a look has found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct QueueSample {
    /// Requests that were never delivered.
    pub(super) pending: u64,
    /// Requests that were delivered and not answered, or put back.
    pub(super) ack_pending: u64,
    /// Those of them that were delivered more than once.
    pub(super) redelivered: u64,
    /// How long the oldest of all has been stored, in seconds; 0 where there is none.
    pub(super) oldest: f64,
}

/// The last look of each template; `None` where it has failed.
#[derive(Debug, Clone, Default)]
pub(super) struct Queues(Arc<Mutex<BTreeMap<TemplateName, Option<QueueSample>>>>);

impl Queues {
    pub(super) fn set(&self, template: &TemplateName, look: Option<QueueSample>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(template.clone(), look);
    }

    pub(super) fn all(&self) -> Vec<(TemplateName, Option<QueueSample>)> {
        let looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        looks.iter().map(|(template, look)| (template.clone(), *look)).collect()
    }
}

/// Looks at the queues.
pub struct QueueSampler {
    /// The stream of requests.
    pub(crate) jobs: JobsStream,
    /// The consumers of all templates.
    pub consumers: Vec<(TemplateName, PullConsumer)>,
    /// Where it is told.
    pub metrics: Metrics,
}

impl QueueSampler {
    /// Looks for ever; the caller drops it to stop.
    pub async fn run(self) {
        loop {
            for (template, consumer) in &self.consumers {
                let look = timeout(DEADLINE, self.look(template, consumer)).await;
                let look = look.unwrap_or_else(|_| Err("no answer".to_owned()));
                if let Err(error) = &look {
                    // The rooms that pull tell what is wrong.
                    tracing::debug!(%template, error, "the queue is not looked at");
                }
                self.metrics.queues().set(template, look.ok());
            }
            sleep(LOOK).await;
        }
    }

    async fn look(&self, template: &TemplateName, consumer: &PullConsumer) -> Result<QueueSample, String> {
        let info = consumer.get_info().await.map_err(|e| e.to_string())?;
        // Disposition requests leave the work queue: the first that is there is the oldest.
        let oldest = self.jobs.first_request(template, 1).await?;
        let age = |stored: OffsetDateTime| (OffsetDateTime::now_utc() - stored).as_seconds_f64().max(0.0);
        Ok(QueueSample {
            pending: info.num_pending,
            ack_pending: info.num_ack_pending.try_into().unwrap_or(u64::MAX),
            redelivered: info.num_redelivered.try_into().unwrap_or(u64::MAX),
            oldest: oldest.map_or(0.0, |message| age(message.time)),
        })
    }
}
