//! Cancellations: every replica knows them, and a crash leaves none half done.
//!
//! ```text
//! micro ── put ─▶ JOB_CANCELS ── watch ─▶ table (pure) ◀─ intake: is this request cancelled?
//!                      ▲                    │   ▲──────── watch side: did this Job escape?
//!                      └──── remove ──── enforcer
//! status: a Job was deleted; was it cancelled? ── read ─▶ JOB_CANCELS
//! ```

pub(crate) mod enforcer;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dispatcher_core::{
    contract::{job::JobState, names::TemplateName},
    request::cancellation::{Cancel, Entry, QueuedRequest, Table},
};
use futures::StreamExt;
use tokio::{sync::watch, time::sleep};

use crate::{
    nats::{cancellation_bucket::CancellationBucket, scan},
    retry::{retry_forever, with_deadline},
    telemetry::health::Component,
};

/// The delay before a watch of the bucket that has ended starts again.
const RESTART_DELAY: Duration = Duration::from_secs(1);

/// The bucket and a copy of its entries. Clones share them.
#[derive(Clone)]
pub(crate) struct Cancellations {
    bucket: CancellationBucket,
    table: Arc<Mutex<Table>>,
    changes: watch::Sender<()>,
}

impl Cancellations {
    /// Reads all entries. Pull requests only after that, or an earlier cancellation has no effect.
    ///
    /// # Errors
    /// If the stream does not answer.
    pub(crate) async fn open(bucket: CancellationBucket) -> Result<Self, String> {
        let this = Self { bucket, table: Arc::default(), changes: watch::Sender::new(()) };
        let (mut entries, pending) = this.bucket.watch().await?;
        for _ in 0..pending {
            let next = with_deadline(scan::DEADLINE, entries.next()).await;
            let next = next.map_err(|e| format!("bucket JOB_CANCELS: {e}"))?;
            let (cancel, revision) = next.ok_or("bucket JOB_CANCELS: the watch ended early")??;
            this.apply(cancel, revision);
        }
        Ok(this)
    }

    /// Watches the bucket forever; the caller drops the future to stop.
    pub(crate) async fn run(self, health: Component) {
        loop {
            let (mut entries, _) = retry_forever(&health, || self.bucket.watch()).await;
            while let Some(Ok((cancel, revision))) = entries.next().await {
                self.apply(cancel, revision);
            }
            sleep(RESTART_DELAY).await;
        }
    }

    /// Stores a cancellation. It is in effect in this replica when the call returns.
    ///
    /// # Errors
    /// If the cancellation may not be stored.
    pub(crate) async fn put(&self, cancel: Cancel) -> Result<(), String> {
        let revision = self.bucket.put(&cancel).await?;
        self.apply(Some(cancel), revision);
        Ok(())
    }

    /// Whether the request is cancelled.
    pub(crate) fn covers(&self, request: &QueuedRequest<'_>) -> bool {
        self.with_table(|table| table.covers(request))
    }

    /// The number of cancellations of queued requests of a template.
    pub(crate) fn pending(&self, template: &TemplateName) -> usize {
        self.with_table(|table| table.pending(template))
    }

    /// Observes a Job of the watch. If its request is cancelled, the Job escaped the intake, and
    /// the enforcer looks for it.
    pub(crate) fn observe(&self, state: &JobState) {
        let request = QueuedRequest {
            template: &state.template,
            name: &state.name,
            id: &state.request_id,
            sequence: state.request_seq,
            account: state.submitter.as_ref().map(|submitter| submitter.account.as_str()),
        };
        if state.outcome().is_none() && self.covers(&request) {
            self.with_table(|table| table.mark_unchecked(&state.template, &state.name));
            self.changes.send_replace(());
        }
    }

    /// Whether the Job with this uid is cancelled. Reads the bucket itself.
    ///
    /// # Errors
    /// If the stream does not answer.
    pub(crate) async fn is_cancelled(&self, uid: &str) -> Result<bool, String> {
        self.bucket.contains_job(uid).await
    }

    fn apply(&self, cancel: Option<Cancel>, revision: u64) {
        // A delete marker of an operator, or a message that is not an entry.
        let Some(cancel) = cancel else { return };
        self.with_table(|table| table.put(cancel, revision));
        self.changes.send_replace(());
    }

    fn entries(&self) -> Vec<Entry> {
        self.with_table(|table| table.entries())
    }

    fn with_table<T>(&self, work: impl FnOnce(&mut Table) -> T) -> T {
        work(&mut self.table.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
