//! The watch of Kubernetes Events: the Warnings that no condition of a Job or pod contains.
//!
//! The API server keeps no cache of Events, so that a list reads all Events of the namespace. A Job
//! that a quota refuses gets a new Event with each try.

use dispatcher_core::status::explain::event::{EventFinding, FIELDS, event_time, finding};
use k8s_openapi::{
    api::core::v1::Event as KubernetesEvent,
    jiff::{SignedDuration, Timestamp},
};
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
        pods::SharedPods,
        watch_loop::{EventHandler, RelistTrigger, WatchLoop},
    },
};

/// Listed Events of this age about a Job are ignored. The Job controller tries again at least every
/// ten minutes. An Event about a pod holds as long as the pod waits.
const MAX_AGE: SignedDuration = SignedDuration::from_mins(15);

/// Watches the Kubernetes Events.
pub(crate) struct EventWatch {
    /// The Jobs and Events of the namespace.
    pub client: JobClient,
    /// Receives the observations.
    pub status: StatusHandle,
    /// Ready while the watch works, and before its first list.
    pub health: Component,
    /// The pods that wait.
    pub pending: SharedPods,
    /// Changes with each list of pods.
    pub pods_listed: watch::Receiver<u64>,
    /// Whether this replica is the leader.
    pub leadership: Leadership,
    /// Counts lists and errors.
    pub metrics: Metrics,
}

impl EventWatch {
    /// Watches until the service stops; the caller drops the future to stop.
    pub(crate) async fn run(mut self) {
        self.health.ready();
        if self.pods_listed.changed().await.is_err() {
            return;
        }
        let watch_loop = WatchLoop {
            api: self.client.events(),
            name: format!("Events in {}", self.client.namespace()),
            selection: Selection { labels: "", list_fields: FIELDS, watch_fields: FIELDS },
            health: self.health.clone(),
            metrics: (self.metrics.clone(), Watched::Events),
            relist: RelistTrigger { changes: self.pods_listed.clone(), leadership: None },
        };
        watch_loop.run(self).await;
    }
}

impl EventHandler<KubernetesEvent> for EventWatch {
    async fn handle(&mut self, event: Event<KubernetesEvent>) -> Result<(), Stopped> {
        if !self.leadership.is_ours() {
            return Ok(());
        }
        let (event, listed) = match event {
            Event::InitApply(event) => (event, true),
            Event::Apply(event) => (event, false),
            Event::Init | Event::InitDone | Event::Delete(_) => return Ok(()),
        };
        let age = Timestamp::now().as_second() - event_time(&event);
        let observation = match finding(&event) {
            Some(EventFinding::Job(_)) if listed && age > MAX_AGE.as_secs() => None,
            Some(EventFinding::Job(observation)) => Some(observation),
            Some(EventFinding::Pod(pod, state)) => self.pending.warning(pod, state),
            None => None,
        };
        match observation {
            Some(observation) => self.status.observe_pod(observation).await,
            None => Ok(()),
        }
    }
}
