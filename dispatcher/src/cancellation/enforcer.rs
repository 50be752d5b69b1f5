//! Carries out the cancellations, and removes each entry once it is complete.
//!
//! Runs in every replica, so each step may happen more than once.

use std::{collections::HashMap, time::Duration};

use dispatcher_core::{
    contract::{job::JobState, names::TemplateName},
    request::cancellation::{Cancel, Entry},
};
use tokio::time::sleep;

use crate::{
    cancellation::Cancellations,
    kube::JobClient,
    nats::{
        jobs_stream::JobsStream,
        status_stream::{StatusStream, StoreError},
    },
    telemetry::health::Component,
};

/// The delay between two rounds while there are entries.
const INTERVAL: Duration = Duration::from_secs(2);

/// Carries out the cancellations.
pub(crate) struct Enforcer {
    /// The entries.
    pub cancellations: Cancellations,
    /// The Jobs of the namespace.
    pub client: JobClient,
    /// The published events.
    pub store: StatusStream,
    /// The queued requests.
    pub jobs: JobsStream,
    /// Ready while the cancellations can be carried out.
    pub health: Component,
}

/// The end of a Job that is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RemovalResult {
    /// The Job is deleted.
    Deleted,
    /// The Job will be deleted once the last finalizer is removed, which others set.
    Deleting,
    /// The Job had finished.
    Finished,
    /// The Job has changed, so it was not deleted. Read it again.
    Changed,
}

/// Deletes a Job in the observed state unless it has finished. The API server refuses if the Job
/// has changed since.
///
/// # Errors
/// If the API server does not confirm the deletion.
pub(crate) async fn delete(client: &JobClient, observed: &JobState) -> Result<RemovalResult, String> {
    if observed.outcome().is_some() {
        return Ok(RemovalResult::Finished);
    }
    match client.delete(observed.name.as_ref(), &observed.uid, observed.resource_version).await {
        Ok(true) => Ok(RemovalResult::Deleted),
        Ok(false) => Ok(RemovalResult::Deleting),
        Err(error) if error.code() == Some(404) => Ok(RemovalResult::Deleted),
        Err(error) if error.code() == Some(409) => Ok(RemovalResult::Changed),
        Err(error) => Err(format!("cannot delete the Job {}: {error}", observed.name)),
    }
}

/// The sequence of the first queued request of each template, within one round.
type QueueStarts = HashMap<TemplateName, u64>;

impl Enforcer {
    /// Works forever; the caller drops the future to stop.
    pub(crate) async fn run(self) {
        let mut changes = self.cancellations.changes.subscribe();
        self.health.ready();
        loop {
            let is_empty = self.round().await;
            tokio::select! {
                result = changes.changed() => if result.is_err() {
                    return;
                },
                () = sleep(INTERVAL), if !is_empty => {}
            }
        }
    }

    /// Works on each entry once. Returns whether the table is empty then.
    async fn round(&self) -> bool {
        let mut failure = None;
        let mut starts = QueueStarts::new();
        for entry in self.cancellations.entries() {
            match self.enforce(&entry, &mut starts).await {
                Ok(true) => self.cancellations.with_table(|table| table.remove(&entry)),
                Ok(false) => {}
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            None => self.health.ready(),
            Some(error) => self.health.not_ready(error),
        }
        self.cancellations.entries().is_empty()
    }

    /// Works on an entry. Returns whether it is complete and removed from the bucket.
    async fn enforce(&self, entry: &Entry, starts: &mut QueueStarts) -> Result<bool, String> {
        let complete = match entry.cancel.up_to() {
            None => self.enforce_job(&entry.cancel).await?,
            Some(up_to) => {
                // The queue before the Job: a request leaves the queue only after its Job exists.
                let handled = self.queue_start(entry.cancel.target().0, starts).await? > up_to;
                if handled || !entry.checked {
                    self.cancel_job(&entry.cancel).await?;
                    self.cancellations.with_table(|table| table.mark_checked(entry));
                }
                handled
            }
        };
        if complete {
            self.cancellations.bucket.remove(&entry.cancel.key(), entry.revision).await?;
        }
        Ok(complete)
    }

    /// The sequence of the first queued request of a template. Reads it once per round.
    async fn queue_start(&self, template: &TemplateName, starts: &mut QueueStarts) -> Result<u64, String> {
        if let Some(start) = starts.get(template) {
            return Ok(*start);
        }
        let first = self.jobs.first_request(template, 1).await?;
        let start = first.map_or(u64::MAX, |message| message.sequence);
        starts.insert(template.clone(), start);
        Ok(start)
    }

    /// Adds an entry for the Job of a cancelled request, if it exists. The next round deletes the
    /// Job.
    async fn cancel_job(&self, cancel: &Cancel) -> Result<(), String> {
        let job = self.job(cancel).await?.filter(|state| state.outcome().is_none());
        match job {
            Some(state) => self.cancellations.put(Cancel::job(&state)).await,
            None => Ok(()),
        }
    }

    /// Deletes a cancelled Job. Returns whether the Job has ended and its outcome is stored.
    async fn enforce_job(&self, cancel: &Cancel) -> Result<bool, String> {
        if let Some(state) = self.job(cancel).await?
            && delete(&self.client, &state).await? == RemovalResult::Changed
        {
            return Ok(false);
        }
        let (template, name) = cancel.target();
        match self.store.last(template, name).await {
            Ok(Some(last)) => Ok(last.known.last.is_none_or(|last| {
                let is_of_job = matches!(cancel, Cancel::Job { uid, .. } if *uid == last.uid);
                last.is_final() || !is_of_job
            })),
            // Its `ADDED` is not stored yet, or the subject was purged. Keeping the entry costs
            // little.
            Ok(None) => Ok(false),
            Err(StoreError::Foreign(_)) => Ok(true),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The Job of an entry, if it exists.
    async fn job(&self, cancel: &Cancel) -> Result<Option<JobState>, String> {
        let (_, name) = cancel.target();
        let found = self.client.get(name.as_ref()).await.map_err(|e| e.to_string())?;
        Ok(found
            .and_then(|found| JobState::from_object(&found).ok())
            .filter(|state| cancel.covers_job(state)))
    }
}
