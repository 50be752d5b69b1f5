//! What is to be cancelled, written down in the bucket `JOB_CANCELS` before it is done, so that every replica knows of it and a
//! crash leaves nothing half done.
//!
//! ```text
//! service ── put ─▶ JOB_CANCELS ── follow ─▶ table (pure) ◀─ intake: is this request cancelled?
//!                        ▲                     │   ▲──────── watch: is this Job one that slipped through?
//!                        └─── remove ── reap ◀─┘
//! report: a Job is gone; was it to be cancelled? ── read ─▶ JOB_CANCELS
//! ```
//!
//! Nothing is in there nearly always; a create costs a look into an empty table.

pub mod bucket;
pub mod enforcer;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::StreamExt;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::cancellation::bucket::Bucket;
use crate::retry::backoff;
use crate::telemetry::health::Component;
use dispatcher_core::contract::{
    job::JobState,
    names::{JobName, RequestId, TemplateName},
};
use dispatcher_core::request::cancellation::{Cancel, Entry, Table};

/// Before a bucket that is followed no more is followed again.
const PAUSE: Duration = Duration::from_secs(1);

/// The bucket and what is known of it here, shared.
#[derive(Clone)]
pub struct Cancellations {
    bucket: Bucket,
    table: Arc<Mutex<Table>>,
    changes: watch::Sender<()>,
}

impl Cancellations {
    /// Reads the bucket: whoever pulls requests after that misses no cancellation from before.
    ///
    /// # Errors
    /// Where the stream does not answer.
    pub async fn open(bucket: Bucket) -> Result<Self, String> {
        let this = Self { bucket, table: Arc::default(), changes: watch::Sender::new(()) };
        let (mut entries, pending) = this.bucket.follow().await?;
        for _ in 0..pending {
            let next = timeout(bucket::DEADLINE, entries.next()).await;
            let (cancel, revision) = next.ok().flatten().ok_or("bucket JOB_CANCELS: it cannot be read")??;
            this.learn(cancel, revision);
        }
        Ok(this)
    }

    /// Follows the bucket for ever; the caller drops it to stop.
    pub async fn follow(self, health: Component) {
        loop {
            for delay in backoff() {
                match self.bucket.follow().await {
                    Ok((mut entries, _)) => {
                        health.ready();
                        while let Some(Ok((cancel, revision))) = entries.next().await {
                            self.learn(cancel, revision);
                        }
                        // What ended at once would be asked for at once.
                        sleep(PAUSE).await;
                        break;
                    }
                    Err(error) => health.not_ready(error),
                }
                sleep(delay).await;
            }
        }
    }

    /// Writes down what is to be cancelled; known here, too, from the return on.
    ///
    /// # Errors
    /// Where it is not certain that it is stored.
    pub async fn put(&self, cancel: Cancel) -> Result<(), String> {
        let revision = self.bucket.put(&cancel).await?;
        self.learn(Some(cancel), revision);
        Ok(())
    }

    /// Whether the request of this name and identity, stored at `sequence`, is cancelled.
    pub fn covers(&self, template: &TemplateName, name: &JobName, id: &RequestId, sequence: u64) -> bool {
        self.with(|table| table.covers(template, name, id, sequence))
    }

    /// The watch tells of a Job: if its request was cancelled, it slipped through and is looked after.
    pub fn look(&self, state: &JobState) {
        if state.outcome().is_none()
            && self.covers(&state.template, &state.name, &state.request_id, state.request_seq)
        {
            self.with(|table| table.mark_unchecked(&state.template, &state.name));
            self.changes.send_replace(());
        }
    }

    /// Whether it is written down that this Job is to be cancelled; read in the bucket itself.
    ///
    /// # Errors
    /// Where the stream does not answer.
    pub async fn is_cancelled(&self, uid: &str) -> Result<bool, String> {
        self.bucket.has_job(uid).await
    }

    fn learn(&self, cancel: Option<Cancel>, revision: u64) {
        // A marker of a deletion made by hand, or something that is no entry: nothing to do.
        let Some(cancel) = cancel else { return };
        self.with(|table| table.put(cancel, revision));
        self.changes.send_replace(());
    }

    fn entries(&self) -> Vec<Entry> {
        self.with(|table| table.entries())
    }

    fn with<T>(&self, work: impl FnOnce(&mut Table) -> T) -> T {
        work(&mut self.table.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
