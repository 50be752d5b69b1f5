//! The watch of the Jobs' pods.
//!
//! Lists the unfinished pods again after each resync. Only then `status` knows the unfinished Jobs,
//! and it ignores the pods of all others. It asks for the ended pods of a Job whose status counts
//! more of them than the watch delivered.

use std::sync::{Arc, Mutex, PoisonError};

use dispatcher_core::{
    contract::job::LABEL_TEMPLATE,
    status::{
        explain::pod::{PodObject, observation as observe},
        pending_pods::PendingPods,
        pod_observation::{PodObservation, PodState},
    },
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
        watch_loop::{EventHandler, RelistTrigger, WatchLoop},
    },
};

/// The field selector of the listed pods. The watch has none: it would deliver the end of a pod as a
/// deletion, in the state of before.
const UNFINISHED: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// The pods that wait, shared with the watch of Kubernetes Events.
#[derive(Clone, Default)]
pub(crate) struct SharedPods(Arc<Mutex<PendingPods>>);

impl SharedPods {
    /// The observation of a Warning, if its pod waits. Otherwise it is kept for a pod that is not
    /// observed yet.
    pub(super) fn warning(&self, pod: String, state: PodState) -> Option<PodObservation> {
        self.with(|pods| pods.warning(pod, state))
    }

    fn with<T>(&self, change: impl FnOnce(&mut PendingPods) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Watches the pods.
pub(crate) struct PodWatch {
    /// The Jobs and pods of the namespace.
    pub client: JobClient,
    /// Receives the observations.
    pub status: StatusHandle,
    /// Ready while the watch works, and before its first list.
    pub health: Component,
    /// The pods that wait. The watch of Kubernetes Events shares them.
    pub pending: SharedPods,
    /// Whether this replica is the leader.
    pub leadership: Leadership,
    /// Counts lists and errors.
    pub metrics: Metrics,
    /// Changes with each resync.
    pub resyncs: watch::Receiver<u64>,
    /// Counts the lists of pods.
    pub listed: watch::Sender<u64>,
}

impl PodWatch {
    /// Watches until the service stops; the caller drops the future to stop.
    pub(crate) async fn run(mut self) {
        self.health.ready();
        if self.resyncs.changed().await.is_err() {
            return;
        }
        let watch_loop = WatchLoop {
            api: self.client.pods(),
            name: format!("pods in {}", self.client.namespace()),
            selection: Selection { labels: LABEL_TEMPLATE, list_fields: UNFINISHED, watch_fields: "" },
            health: self.health.clone(),
            metrics: (self.metrics.clone(), Watched::Pods),
            relist: RelistTrigger { changes: self.resyncs.clone(), leadership: None },
        };
        watch_loop.run(self).await;
    }
}

impl PodWatch {
    /// Sends an observation. A Warning never precedes the pod that it is about.
    async fn send(&self, observation: PodObservation) -> Result<(), Stopped> {
        let waiting = match &observation.state {
            PodState::Waiting { pod, .. } => Some(pod.clone()),
            PodState::Running { pod, .. }
            | PodState::Terminating { pod, .. }
            | PodState::Ended { pod, .. } => {
                self.pending.with(|pods| pods.does_not_wait(pod));
                None
            }
            PodState::Warning { .. } | PodState::Workload { .. } => None,
        };
        let Some(pod) = waiting else { return self.status.observe_pod(observation).await };
        self.status.observe_pod(observation.clone()).await?;
        for warning in self.pending.with(|pods| pods.waits(&observation, &pod)) {
            self.status.observe_pod(warning).await?;
        }
        Ok(())
    }
}

impl EventHandler<PodObject> for PodWatch {
    async fn handle(&mut self, event: Event<PodObject>) -> Result<(), Stopped> {
        // A follower misses nothing: it lists the pods again when it becomes the leader.
        if !self.leadership.is_ours() {
            return Ok(());
        }
        let (pod, deleted) = match event {
            Event::Init => {
                self.pending.with(PendingPods::clear);
                return self.status.pods_listing().await;
            }
            Event::InitDone => {
                self.status.pods_listed().await?;
                self.listed.send_modify(|count| *count += 1);
                return Ok(());
            }
            Event::InitApply(pod) | Event::Apply(pod) => (pod, false),
            Event::Delete(pod) => (pod, true),
        };
        let Some(observation) = observe(&pod, deleted) else { return Ok(()) };
        self.send(observation).await
    }
}
