//! Carries out the cancellations, and removes each entry once it is complete.
//!
//! Runs in every replica, so each step may happen more than once.

use std::{collections::HashMap, time::Duration};

use dispatcher_core::{
    contract::{job::JobState, names::TemplateName},
    request::{
        cancellation::{Cancel, Entry},
        change_error::{ChangeFailure, classify_change, is_denial, refusal_delay},
    },
};
use tokio::time::{Instant, sleep};

use crate::{
    cancellation::Cancellations,
    kube::{JobClient, refusals::Refusals},
    nats::{
        jobs_stream::JobsStream,
        status_stream::{StatusStream, StoreError},
    },
    telemetry::{health::Component, metrics::Operation},
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
    /// Reports the Jobs that may not be deleted.
    pub refusals: Refusals,
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

/// Why a Job is not deleted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeleteError {
    /// Kubernetes refuses to delete this Job: a policy protects it.
    #[error("{0}")]
    Refused(String),
    /// Kubernetes is not reachable or permits no deletion.
    #[error("{0}")]
    Unavailable(String),
}

/// Deletes a Job in the observed state unless it has finished. The API server refuses if the Job
/// has changed since.
///
/// # Errors
/// If the API server does not confirm the deletion.
pub(crate) async fn delete(client: &JobClient, observed: &JobState) -> Result<RemovalResult, DeleteError> {
    if observed.outcome().is_some() {
        return Ok(RemovalResult::Finished);
    }
    let name = observed.name.as_ref();
    let error = match client.delete(name, &observed.uid, observed.resource_version).await {
        Ok(true) => return Ok(RemovalResult::Deleted),
        Ok(false) => return Ok(RemovalResult::Deleting),
        Err(error) => error,
    };
    let message = format!("cannot delete the Job {name}: {error}");
    // A webhook can choose the codes 404 and 409 for its denial.
    match (error.code(), is_denial(&error, name), classify_change(&error, name)) {
        (Some(404), false, _) => Ok(RemovalResult::Deleted),
        (Some(409), false, _) => Ok(RemovalResult::Changed),
        (.., ChangeFailure::Refused) => Err(DeleteError::Refused(message)),
        (.., ChangeFailure::Unavailable) => Err(DeleteError::Unavailable(message)),
    }
}

/// The sequence of the first queued request of each template, within one round.
type QueueStarts = HashMap<TemplateName, u64>;

/// The entries of Jobs that Kubernetes refuses to delete: the number of refusals and the time of the
/// next try, by the key of the entry.
type RefusedEntries = HashMap<String, (u32, Instant)>;

/// What is left of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// The entry is complete and removed from the bucket.
    Complete,
    /// The next round continues.
    Pending,
    /// Kubernetes refuses to delete the Job of the entry. The refusal is reported.
    Refused,
}

impl Enforcer {
    /// Works forever; the caller drops the future to stop.
    pub(crate) async fn run(self) {
        let mut changes = self.cancellations.changes.subscribe();
        let mut refused = RefusedEntries::new();
        self.health.ready();
        loop {
            let is_empty = self.round(&mut refused).await;
            tokio::select! {
                result = changes.changed() => if result.is_err() {
                    return;
                },
                () = sleep(INTERVAL), if !is_empty => {}
            }
        }
    }

    /// Works on each entry that is due. Returns whether the table is empty then.
    async fn round(&self, refused: &mut RefusedEntries) -> bool {
        let mut failure = None;
        let mut starts = QueueStarts::new();
        let entries = self.cancellations.entries();
        refused.retain(|key, _| entries.iter().any(|entry| entry.cancel.key() == *key));
        for entry in entries {
            let key = entry.cancel.key();
            if refused.get(&key).is_some_and(|(_, due)| *due > Instant::now()) {
                continue;
            }
            match self.enforce(&entry, &mut starts).await {
                Ok(Progress::Complete) => self.cancellations.with_table(|table| table.remove(&entry)),
                Ok(Progress::Pending) => {}
                Ok(Progress::Refused) => {
                    let (count, due) = refused.entry(key).or_insert((0, Instant::now()));
                    *count = count.saturating_add(1);
                    *due = Instant::now() + refusal_delay(*count);
                }
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            None => self.health.ready(),
            Some(error) => self.health.not_ready(error),
        }
        self.cancellations.entries().is_empty()
    }

    /// Works on an entry, and removes it from the bucket if it is complete.
    async fn enforce(&self, entry: &Entry, starts: &mut QueueStarts) -> Result<Progress, String> {
        let progress = match entry.cancel.up_to() {
            None => self.enforce_job(&entry.cancel).await?,
            Some(up_to) => {
                // The queue before the Job: a request leaves the queue only after its Job exists.
                let handled = self.queue_start(entry.cancel.target().0, starts).await? > up_to;
                if handled || !entry.checked {
                    self.cancel_job(&entry.cancel).await?;
                    self.cancellations.with_table(|table| table.mark_checked(entry));
                }
                if handled { Progress::Complete } else { Progress::Pending }
            }
        };
        if progress == Progress::Complete {
            self.cancellations.bucket.remove(&entry.cancel.key(), entry.revision).await?;
        }
        Ok(progress)
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

    /// Deletes a cancelled Job. The entry is complete once the Job has ended and its outcome is
    /// stored.
    async fn enforce_job(&self, cancel: &Cancel) -> Result<Progress, String> {
        if let Some(state) = self.job(cancel).await? {
            match delete(&self.client, &state).await {
                Ok(RemovalResult::Deleted | RemovalResult::Deleting | RemovalResult::Finished) => {}
                Ok(RemovalResult::Changed) => return Ok(Progress::Pending),
                Err(DeleteError::Unavailable(error)) => return Err(error),
                Err(DeleteError::Refused(error)) => {
                    self.refusals.report(&state, Operation::Delete, &error).await;
                    return Ok(Progress::Refused);
                }
            }
        }
        let (template, name) = cancel.target();
        let complete = match self.store.last(template, name).await {
            Ok(Some(last)) => last.known.last.is_none_or(|last| {
                let is_of_job = matches!(cancel, Cancel::Job { uid, .. } if *uid == last.uid);
                last.is_final() || !is_of_job
            }),
            // Its `ADDED` is not stored yet, or the subject was purged. Keeping the entry costs
            // little.
            Ok(None) => false,
            Err(StoreError::Foreign(_)) => true,
            Err(error) => return Err(error.to_string()),
        };
        Ok(if complete { Progress::Complete } else { Progress::Pending })
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
