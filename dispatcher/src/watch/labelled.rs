//! Finds the Jobs that are created with an outcome label: copies of retired Jobs.
//!
//! The watch of Jobs never delivers them. This watch begins at the present and selects Jobs with the
//! label and without a succeeded pod: new copies, and the Jobs that failed before they were retired.

use dispatcher_core::contract::job::{JobObject, JobState, Presence, SELECTOR_RETIRED};
use tokio::sync::watch;

use crate::{
    kube::JobClient,
    leadership::Leadership,
    status::{StatusHandle, Stopped},
    telemetry::{
        health::Component,
        metrics::{Metrics, Watched},
    },
    watch::{
        list_watch::{Event, Selection},
        watch_loop::{EventHandler, RelistTrigger, WatchLoop},
    },
};

/// No Job has this name: the list returns only its version, and its cost does not grow with the Jobs.
const NOTHING: &str = "metadata.name=-";
const NOT_SUCCEEDED: &str = "status.successful=0";

/// Watches the Jobs with an outcome label.
pub(crate) struct LabelledJobWatch {
    /// The Jobs of the namespace.
    pub client: JobClient,
    /// Verifies the labels.
    pub status: StatusHandle,
    /// Ready while the watch works.
    pub health: Component,
    /// Whether this replica is the leader.
    pub leadership: Leadership,
    /// Counts lists and errors.
    pub metrics: Metrics,
}

impl LabelledJobWatch {
    /// Watches until the service stops; the caller drops the future to stop.
    pub(crate) async fn run(self) {
        self.health.ready();
        let watch_loop = WatchLoop {
            api: self.client.api(),
            name: format!("labelled Jobs in {}", self.client.namespace()),
            selection: Selection {
                labels: SELECTOR_RETIRED,
                list_fields: NOTHING,
                watch_fields: NOT_SUCCEEDED,
            },
            health: self.health.clone(),
            metrics: (self.metrics.clone(), Watched::LabelledJobs),
            // It never lists again: a resync has nothing to read here.
            relist: RelistTrigger { changes: watch::channel(0).1, leadership: None },
        };
        watch_loop.run(self).await;
    }
}

impl EventHandler<JobObject> for LabelledJobWatch {
    async fn handle(&mut self, event: Event<JobObject>) -> Result<(), Stopped> {
        let Event::Apply(job) = event else { return Ok(()) };
        if !self.leadership.is_ours() {
            return Ok(());
        }
        match JobState::from_object(&job) {
            // To `status`, it is a Job that left the selector: a GET decides about the label.
            Ok(state) if !state.retired => {
                self.status.observe_job(state.with_presence(Presence::DeletedUnverified), None).await
            }
            _ => Ok(()),
        }
    }
}
