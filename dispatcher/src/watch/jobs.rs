//! The watch of the Jobs. As the leader, it hands each observed state to `status` and resyncs.
//!
//! A start, a relist after a 410, a NATS reconnect (the server may have lost unsynced messages) and
//! a leadership change each cause a resync: a scan of the open subjects, then a consistent list.
//! `status` reconciles each pair. A follower only counts Jobs and keeps tombstones. A retired Job is
//! in no list, and its retirement arrives as a deletion.

use std::{sync::Arc, time::Duration};

use dispatcher_core::{
    contract::{
        job::{JobObject, JobState, LABEL_TEMPLATE, Presence, SELECTOR_NOT_RETIRED},
        names::{JobName, TemplateName},
    },
    status::SubjectState,
};
use tokio::sync::watch;

use crate::{
    cancellation::Cancellations,
    concurrency::ConcurrencyLimiter,
    kube::JobClient,
    leadership::{Leadership, Term},
    nats::status_stream::StatusStream,
    retry::with_deadline,
    status::{StatusHandle, Stopped},
    telemetry::{
        health::Component,
        metrics::{Metrics, Watched},
    },
    watch::{
        departures::Departures,
        list_watch::{Event, Selection},
        resync::{OpenSubjects, Resync},
        retired::RetiredJobs,
        watch_loop::{EventHandler, RelistTrigger, WatchLoop},
    },
};

/// The longest wait for the first read of the Lease at start.
const LEASE_DEADLINE: Duration = Duration::from_secs(3);

/// Watches the Jobs.
pub(crate) struct JobWatch {
    /// The Jobs of the namespace.
    pub client: JobClient,
    /// The published events.
    pub store: StatusStream,
    /// Publishes events.
    pub status: StatusHandle,
    /// The pending cancellations.
    pub cancellations: Cancellations,
    /// Counts the unfinished Jobs.
    pub limiter: ConcurrencyLimiter,
    /// The Jobs that leave the watch because this replica retired them.
    pub retired: RetiredJobs,
    /// Ready while the watch works.
    pub health: Component,
    /// Ready while a resync can read `JOB_STATUS`.
    pub resync_health: Component,
    /// Changes when NATS is connected again or a stream is recreated.
    pub reconnects: watch::Receiver<u64>,
    /// Whether this replica is the leader.
    pub leadership: Leadership,
    /// Counts lists, errors and resyncs.
    pub metrics: Metrics,
}

impl JobWatch {
    /// Watches until the service stops; the caller drops the future to stop. `resyncs` counts the
    /// resyncs.
    pub(crate) async fn run(mut self, resyncs: watch::Sender<u64>) {
        // A single replica becomes the leader now. Without this wait, it would list a second time.
        let _ = with_deadline(LEASE_DEADLINE, self.leadership.is_known()).await;
        let watch_loop = WatchLoop {
            api: self.client.api(),
            name: format!("Jobs in {}", self.client.namespace()),
            selection: Selection { labels: SELECTOR_NOT_RETIRED, list_fields: "", watch_fields: "" },
            health: self.health,
            metrics: (self.metrics.clone(), Watched::Jobs),
            relist: RelistTrigger { changes: self.reconnects, leadership: Some(self.leadership.clone()) },
        };
        let (status, leadership) = (self.status, self.leadership);
        let resync = Resync::new(self.store, status.clone(), leadership.clone(), self.resync_health);
        let (resync, resynced) = (Arc::new(resync), resyncs.subscribe());
        let departures = Arc::new(Departures::new(self.client, self.limiter.clone()));
        let handler = JobHandler {
            resync: resync.clone(),
            status,
            cancellations: self.cancellations,
            limiter: self.limiter,
            retired: self.retired,
            departures: departures.clone(),
            leadership,
            metrics: self.metrics,
            resyncs,
            open: OpenSubjects::new(),
            term: None,
        };
        tokio::select! {
            () = watch_loop.run(handler) => {}
            () = resync.run_second_passes(resynced) => {}
            () = departures.run() => {}
        }
    }
}

struct JobHandler {
    resync: Arc<Resync>,
    status: StatusHandle,
    cancellations: Cancellations,
    limiter: ConcurrencyLimiter,
    retired: RetiredJobs,
    departures: Arc<Departures>,
    leadership: Leadership,
    metrics: Metrics,
    resyncs: watch::Sender<u64>,
    /// The open subjects of the current resync that the list has not contained so far.
    open: OpenSubjects,
    /// The term in which the current resync began.
    term: Option<Term>,
}

impl EventHandler<JobObject> for JobHandler {
    async fn handle(&mut self, event: Event<JobObject>) -> Result<(), Stopped> {
        let is_retired = self.record(&event);
        if matches!(event, Event::Init) {
            self.term = self.leadership.term();
        }
        // A follower misses nothing: it resyncs when it becomes the leader.
        if !self.leadership.is_ours() {
            self.resync.covered.clear();
            return Ok(());
        }
        if is_retired {
            return Ok(());
        }
        match event {
            Event::Init => {
                self.start_resync().await;
                Ok(())
            }
            Event::InitApply(job) => self.observe_listed(&job).await,
            Event::InitDone => self.finish_resync().await,
            Event::Apply(job) => self.observe(&job, Presence::Present).await,
            Event::Delete(job) => self.observe(&job, Presence::DeletedUnverified).await,
        }
    }
}

impl JobHandler {
    /// Updates what every replica keeps: the unfinished Jobs, cancelled Jobs, and tombstones. Returns
    /// whether a Job left the watch because this replica has retired it.
    fn record(&self, event: &Event<JobObject>) -> bool {
        match event {
            Event::Init => self.limiter.begin_list(),
            Event::InitDone => self.departures.add(self.limiter.end_list()),
            Event::InitApply(job) | Event::Apply(job) => {
                job.metadata.uid.iter().for_each(|uid| self.departures.observed(uid));
                if let Ok(state) = JobState::from_object(job) {
                    self.limiter.apply(&state);
                    self.cancellations.observe(&state);
                }
            }
            Event::Delete(job) => return self.record_departure(job),
        }
        false
    }

    /// A Job left the watch: it is retired or deleted, or its labels were changed.
    fn record_departure(&self, job: &JobObject) -> bool {
        let uid = job.metadata.uid.as_deref().unwrap_or_default();
        let is_retired = self.retired.remove(uid);
        match JobState::from_object(job) {
            Ok(state) if state.is_finished() => {
                self.limiter.apply(&state);
                // The outcome of a retired Job is stored.
                if !is_retired {
                    self.resync.tombstones.add(&state);
                }
            }
            // Without a final condition, only a GET shows whether the Job still counts.
            _ => self.departures.add(self.limiter.departed(uid)),
        }
        is_retired
    }

    /// Scans the open subjects. The list starts after that.
    async fn start_resync(&mut self) {
        self.open = self.resync.open_subjects().await;
        tracing::info!(open = self.open.len(), "resync started");
        self.resync.covered.start(self.open.values());
    }

    /// Observes a Job of the list, with the state of its subject.
    async fn observe_listed(&mut self, job: &JobObject) -> Result<(), Stopped> {
        let Some(state) = self.read(job).await else { return Ok(()) };
        self.resync.covered.add(&state);
        // A subject that the scan lacks counts as empty, because the stream may have lost events
        // that the subject's queue remembers. If it is not empty, the fence refuses one publish.
        let key = (state.template.clone(), state.name.clone());
        let subject = self.open.remove(&key).unwrap_or_default();
        if let Some(previous) = self.tombstone_of_previous(&subject, &state) {
            self.status.observe_job(previous, Some(subject)).await?;
            return self.status.observe_job(state, None).await;
        }
        self.status.observe_job(state, Some(subject)).await
    }

    /// The tombstone of an earlier Job of the name, if the subject's last event is about that Job.
    fn tombstone_of_previous(&self, subject: &SubjectState, state: &JobState) -> Option<JobState> {
        let previous = subject.last.as_ref().filter(|last| last.uid != state.uid)?;
        self.resync.tombstones.get(&previous.uid)
    }

    async fn finish_resync(&mut self) -> Result<(), Stopped> {
        let missing = std::mem::take(&mut self.open);
        self.resync.observe_missing(missing.into_keys()).await?;
        tracing::info!("resync finished");
        self.metrics.synced();
        if let Some(term) = self.term {
            self.leadership.synced(term);
        }
        self.resyncs.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Observes a Job of a watch event.
    async fn observe(&self, job: &JobObject, presence: Presence) -> Result<(), Stopped> {
        let Some(state) = self.read(job).await else { return Ok(()) };
        self.resync.covered.add(&state);
        self.status.observe_job(state.with_presence(presence), None).await
    }

    /// The state of a Job. If its labels or annotations were changed, its last event identifies it.
    /// `None` if the dispatcher did not create the Job.
    async fn read(&self, job: &JobObject) -> Option<JobState> {
        let error = match JobState::from_object(job) {
            Ok(state) => return Some(state),
            Err(error) => error,
        };
        let name = job.metadata.name.as_deref().unwrap_or_default();
        let template = job.metadata.labels.as_ref()?.get(LABEL_TEMPLATE)?.as_str();
        let (template, name) = (TemplateName::try_from(template).ok()?, JobName::try_from(name).ok()?);
        let state = match self.resync.last(&template, &name).await {
            Some(last) => {
                JobState::from_changed_object(job, last.event, last.request_hash.unwrap_or_default())
            }
            None => None,
        };
        if state.is_some() {
            tracing::warn!(job = %name, %error, "job metadata was changed; its last event identifies it");
        } else {
            tracing::debug!(job = %name, %error, "unmanaged job ignored");
        }
        state
    }
}
