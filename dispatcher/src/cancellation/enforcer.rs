//! Sees to it that what is written down is done, and takes the entry away then. Every replica does; each step may be repeated.

use std::{collections::HashMap, time::Duration};

use async_nats::jetstream;
use tokio::time::sleep;

use crate::cancellation::Cancellations;
use crate::{
    kube::Jobs,
    nats::requests,
    status::store::{Store, StoreError},
    telemetry::health::Component,
};
use dispatcher_core::contract::{
    job::{JobObject, JobState},
    names::TemplateName,
};
use dispatcher_core::request::cancellation::{Cancel, Entry};

/// Between two rounds, while there are entries.
const ROUND: Duration = Duration::from_secs(2);

/// See the module.
pub struct Enforcer {
    /// What is written down.
    pub cancels: Cancellations,
    /// The Jobs of the namespace.
    pub jobs: Jobs,
    /// What was said.
    pub store: Store,
    /// For a look into the queue.
    pub context: jetstream::Context,
    /// Ready while what is written down can be done.
    pub health: Component,
}

/// What became of a Job that is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemovalResult {
    /// It is deleted, or was gone already.
    DeletionCheck,
    /// It had ended by itself.
    Finished,
    /// It changed meanwhile: look again.
    Changed,
}

/// Deletes a Job as it was seen, unless it has ended: whoever saw an older state learns that.
///
/// # Errors
/// Where the API server does not say that it is done.
pub async fn delete(jobs: &Jobs, seen: &JobState) -> Result<RemovalResult, String> {
    if seen.outcome().is_some() {
        return Ok(RemovalResult::Finished);
    }
    match jobs.delete(seen.name.as_ref(), &seen.uid, seen.resource_version).await {
        Ok(()) => Ok(RemovalResult::DeletionCheck),
        Err(error) if error.code() == Some(404) => Ok(RemovalResult::DeletionCheck),
        Err(error) if error.code() == Some(409) => Ok(RemovalResult::Changed),
        Err(error) => Err(format!("cannot delete the Job {}: {error}", seen.name)),
    }
}

impl Enforcer {
    /// Works for ever; the caller drops it to stop.
    pub async fn run(self) {
        let mut changes = self.cancels.changes.subscribe();
        self.health.ready();
        loop {
            let nothing_left = self.round().await;
            tokio::select! {
                changed = changes.changed() => if changed.is_err() {
                    return;
                },
                () = sleep(ROUND), if !nothing_left => {}
            }
        }
    }

    /// Looks after each entry once; whether none is left.
    async fn round(&self) -> bool {
        let mut trouble = None;
        let mut firsts = HashMap::new();
        for entry in self.cancels.entries() {
            match self.see_to(&entry, &mut firsts).await {
                Ok(true) => self.cancels.with(|table| table.remove(&entry)),
                Ok(false) => {}
                Err(error) => trouble = Some(error),
            }
        }
        match trouble {
            None => self.health.ready(),
            Some(error) => self.health.not_ready(error),
        }
        self.cancels.entries().is_empty()
    }

    /// Whether the entry is done, and gone from the bucket.
    async fn see_to(&self, entry: &Entry, firsts: &mut HashMap<TemplateName, u64>) -> Result<bool, String> {
        let done = match entry.cancel.up_to() {
            None => self.job_is_done(&entry.cancel).await?,
            Some(up_to) => {
                // The queue first: a request leaves it only after its Job is there.
                let past = self.first(entry.cancel.target().0, firsts).await? > up_to;
                if past || !entry.checked {
                    self.catch(&entry.cancel).await?;
                    self.cancels.with(|table| table.mark_checked(entry));
                }
                past
            }
        };
        if done {
            self.cancels.bucket.remove(&entry.cancel.key(), entry.revision).await?;
        }
        Ok(done)
    }

    /// The sequence of the first request of the template that is not done; read once in a round.
    async fn first(
        &self,
        template: &TemplateName,
        firsts: &mut HashMap<TemplateName, u64>,
    ) -> Result<u64, String> {
        if let Some(first) = firsts.get(template) {
            return Ok(*first);
        }
        let first =
            requests::first(&self.context, template, 1).await?.map_or(u64::MAX, |message| message.sequence);
        firsts.insert(template.clone(), first);
        Ok(first)
    }

    /// A Job that slipped through: it is written down that it is to go; the next round deletes it.
    async fn catch(&self, cancel: &Cancel) -> Result<(), String> {
        let found = self.job(cancel).await?.filter(|state| state.outcome().is_none());
        match found {
            Some(state) => self.cancels.put(Cancel::job(&state)).await,
            None => Ok(()),
        }
    }

    /// Whether the Job is gone or over, and its outcome stored; else it is deleted.
    async fn job_is_done(&self, cancel: &Cancel) -> Result<bool, String> {
        if let Some(state) = self.job(cancel).await?
            && delete(&self.jobs, &state).await? == RemovalResult::Changed
        {
            return Ok(false);
        }
        let (template, name) = cancel.target();
        match self.store.last(template, name).await {
            Ok(Some(last)) => Ok(last.known.last.is_none_or(|said| {
                let of_it = matches!(cancel, Cancel::Job { uid, .. } if *uid == said.uid);
                said.is_final() || !of_it
            })),
            // Purged, or not told of yet: the entry is small, and the latter is to come.
            Ok(None) => Ok(false),
            Err(StoreError::Foreign(_)) => Ok(true),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The Job that the entry concerns, where it is there.
    async fn job(&self, cancel: &Cancel) -> Result<Option<JobState>, String> {
        let (_, name) = cancel.target();
        let found: Option<JobObject> = self.jobs.get(name.as_ref()).await.map_err(|e| e.to_string())?;
        Ok(found
            .and_then(|found| JobState::from_object(&found).ok())
            .filter(|state| cancel.covers_job(state)))
    }
}
