//! One watch for all Jobs: states go to the status writer. A start, and a relist after a 410, compare what was said
//! with what is there.
//!
//! A reconnect to NATS goes the same way, since the server may have lost what it had not written to disk; so does the
//! moment in which this replica begins to report. One that does not report watches, and says nothing.
//!
//! The scan of what was said comes first, then a consistent list: a Job that is open in the scan and missing from the
//! list is gone, or lost its label; the writer asks for it before it says so. What was on its way to both while they were
//! read is for the second look.

use std::{collections::HashMap, sync::Arc, time::Duration};

use kube::runtime::watcher::{self, Event};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::retry::backoff;
use crate::{
    cancellation::Cancellations,
    concurrency::ConcurrencyLimiter,
    kube::{
        Jobs,
        watch_loop::{EventHandler, RelistTrigger, WatchLoop},
    },
    leader::{Leadership, Term},
    status::{
        StatusHandle, Stopped,
        store::{LastMessage, Store, StoreError},
    },
    telemetry::{
        health::Component,
        metrics::{Metrics, Watched},
    },
    watch::{
        second_pass::{CoveredJobs, second_looks},
        tombstones::Tombstones,
    },
};
use dispatcher_core::{
    contract::{
        job::{JobObject, JobState, LABEL_TEMPLATE, Presence},
        names::{JobName, TemplateName},
    },
    status::SubjectState,
};

/// How long the Lease is waited for at the start.
const LEASE_PATIENCE: Duration = Duration::from_secs(3);

/// What was said of the Jobs that have no outcome, by subject.
pub(super) type Open = HashMap<(TemplateName, JobName), SubjectState>;

/// See the module.
pub struct JobWatch {
    /// The Jobs to watch.
    pub jobs: Jobs,
    /// What was said of them.
    pub store: Store,
    /// Where their states go.
    pub writer: StatusHandle,
    /// Which of them are to go.
    pub cancels: Cancellations,
    /// Where unfinished ones are counted.
    pub active: ConcurrencyLimiter,
    /// Ready while the watch works.
    pub health: Component,
    /// Ready while what was said can be read.
    pub resync_health: Component,
    /// Changes when NATS is connected again.
    pub reconnects: watch::Receiver<u64>,
    /// Whether this replica reports. One that does not watches all the same.
    pub leadership: Leadership,
    /// What it saw meanwhile.
    pub witnessed: Tombstones,
    /// Where the watch and the comparisons are counted.
    pub metrics: Metrics,
}

impl JobWatch {
    /// Watches until the writer is gone; the caller drops it to stop. `listed` counts the lists that this replica took as
    /// the one that reports.
    pub async fn run(mut self, listed: watch::Sender<u64>) {
        // Else the first one of all would list, take the lead, and list again.
        let _ = timeout(LEASE_PATIENCE, self.leadership.is_known()).await;
        let follow = WatchLoop {
            api: self.jobs.api(),
            what: format!("Jobs in {}", self.jobs.namespace()),
            config: watcher::Config::default().labels(LABEL_TEMPLATE),
            health: self.health.clone(),
            metrics: (self.metrics.clone(), Watched::Jobs),
            again: RelistTrigger {
                changes: self.reconnects.clone(),
                leadership: Some(self.leadership.clone()),
            },
        };
        // It is not read while there is nothing to compare.
        self.resync_health.ready();
        let (watch, told, synced) = (Arc::new(self), CoveredJobs::default(), listed.subscribe());
        let taker = Taker { watch: watch.clone(), open: Open::new(), told: told.clone(), term: None, listed };
        tokio::select! {
            () = follow.run(taker) => {}
            () = second_looks(&watch, &told, synced) => {}
        }
    }

    async fn handle(
        &self,
        event: Event<JobObject>,
        open: &mut Open,
        told: &CoveredJobs,
    ) -> Result<(), Stopped> {
        self.note(&event);
        // What comes while another one reports is not missed: when this one begins to, all is synced anew.
        if !self.leadership.is_ours() {
            told.ends();
            return Ok(());
        }
        match event {
            // The watcher lists only when it is asked for its next event: the scan comes first.
            Event::Init => {
                *open = self.scan().await;
                tracing::info!(open = open.len(), "comparing what was said with the Jobs in the cluster");
                told.begins(open.values());
                Ok(())
            }
            Event::InitApply(job) => {
                let Some(state) = self.read(&job).await else { return Ok(()) };
                told.of(&state);
                // Nothing where the scan has nothing: the stream may have lost what the lane knows. Wrong, where all is said or
                // was said after the scan, it costs a refused publish.
                let known = open.remove(&(state.template.clone(), state.name.clone())).unwrap_or_default();
                // Its name may have been another one's before, whose end may have been seen.
                let earlier = known.last.as_ref().filter(|said| said.uid != state.uid);
                if let Some(earlier) = earlier.and_then(|said| self.witnessed.of(&said.uid)) {
                    self.writer.offer(earlier, Some(known)).await?;
                    return self.writer.offer(state, None).await;
                }
                self.writer.offer(state, Some(known)).await
            }
            Event::InitDone => self.missing(std::mem::take(open).into_keys()).await,
            Event::Apply(job) => self.offer(&job, Presence::Present, told).await,
            Event::Delete(job) => self.offer(&job, Presence::DeletedUnverified, told).await,
        }
    }

    async fn offer(&self, job: &JobObject, presence: Presence, told: &CoveredJobs) -> Result<(), Stopped> {
        let Some(state) = self.read(job).await else { return Ok(()) };
        told.of(&state);
        self.writer.offer(state.with_presence(presence), None).await
    }

    /// What every replica needs to know, whoever reports: how many Jobs are unfinished, which of them are to go, and how those
    /// ended that are gone.
    fn note(&self, event: &Event<JobObject>) {
        match event {
            Event::Init => self.active.begin_list(),
            Event::InitDone => self.active.end_list(),
            Event::InitApply(job) | Event::Apply(job) => {
                if let Ok(state) = JobState::from_object(job) {
                    self.active.apply(&state);
                    self.cancels.look(&state);
                }
            }
            Event::Delete(job) => {
                if let Ok(state) = JobState::from_object(job) {
                    self.witnessed.note(&state);
                    self.active.delete(&state);
                }
            }
        }
    }

    /// The state of a Job; of one whose marks somebody changed, with the identity that it was spoken of by. `None` of a
    /// Job that is not ours.
    async fn read(&self, job: &JobObject) -> Option<JobState> {
        let error = match JobState::from_object(job) {
            Ok(state) => return Some(state),
            Err(error) => error,
        };
        let name = job.metadata.name.as_deref().unwrap_or_default();
        let template = job.metadata.labels.as_ref()?.get(LABEL_TEMPLATE)?.as_str();
        let (template, name) = (TemplateName::try_from(template).ok()?, JobName::try_from(name).ok()?);
        let state = match self.last(&template, &name).await {
            Some(last) => {
                JobState::from_changed_object(job, last.event, last.request_hash.unwrap_or_default())
            }
            None => None,
        };
        match &state {
            Some(_) => {
                tracing::warn!(job = %name, %error, "somebody changed the marks of this Job; it is told all the same")
            }
            None => tracing::debug!(job = %name, %error, "a Job is left alone"),
        }
        state
    }

    /// The last message of a Job's subject, however long it takes to learn it.
    async fn last(&self, template: &TemplateName, name: &JobName) -> Option<LastMessage> {
        for delay in backoff() {
            match self.store.last(template, name).await {
                Ok(last) => {
                    self.resync_health.ready();
                    return last;
                }
                Err(StoreError::Foreign(_)) => {
                    self.resync_health.ready();
                    return None;
                }
                Err(error) => self.resync_health.not_ready(error.to_string()),
            }
            sleep(delay).await;
        }
        None
    }

    /// What was said of Jobs that have no outcome yet, however long it takes to learn it.
    pub(super) async fn scan(&self) -> Open {
        for delay in backoff() {
            match self.store.open_subjects().await {
                Ok(open) => {
                    self.resync_health.ready();
                    return open;
                }
                Err(error) => self.resync_health.not_ready(error.to_string()),
            }
            sleep(delay).await;
        }
        Open::new()
    }

    /// Jobs that were spoken of, have no outcome, and are in no list.
    pub(super) async fn missing(
        &self,
        open: impl IntoIterator<Item = (TemplateName, JobName)>,
    ) -> Result<(), Stopped> {
        for (template, name) in open {
            if let Some(last) = self.last(&template, &name).await {
                let known = last.known.clone();
                let state = self.witnessed.of(&last.event.uid).unwrap_or_else(|| last.missing());
                self.writer.offer(state, Some(known)).await?;
            }
        }
        Ok(())
    }
}

struct Taker {
    watch: Arc<JobWatch>,
    open: Open,
    told: CoveredJobs,
    /// That in which the comparison began.
    term: Option<Term>,
    listed: watch::Sender<u64>,
}

impl EventHandler<JobObject> for Taker {
    async fn take(&mut self, event: Event<JobObject>) -> Result<(), Stopped> {
        let leadership = &self.watch.leadership;
        let (begins, ends) = (matches!(event, Event::Init), matches!(event, Event::InitDone));
        if begins {
            self.term = leadership.term();
        }
        let done = ends && leadership.is_ours();
        self.watch.handle(event, &mut self.open, &self.told).await?;
        if done {
            tracing::info!("synced");
            self.watch.metrics.synced();
            self.term.into_iter().for_each(|term| self.watch.leadership.synced(term));
            self.listed.send_modify(|lists| *lists += 1);
        }
        Ok(())
    }
}
