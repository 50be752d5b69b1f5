//! The watch of Kueue's Workloads: why Kueue keeps Jobs suspended.
//!
//! Lists the Workloads again after each list of the pods. Only then `status` knows the unfinished
//! Jobs, and it ignores the Workloads of all others.

use dispatcher_core::status::explain::workload::{WorkloadObject, observation, resource};
use kube::Api;
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

/// Watches the Workloads.
pub(crate) struct WorkloadWatch {
    /// The client, and the namespace of the Jobs.
    pub client: JobClient,
    /// Receives the observations.
    pub status: StatusHandle,
    /// Ready while the watch works, and before its first list.
    pub health: Component,
    /// Changes with each list of pods.
    pub pods_listed: watch::Receiver<u64>,
    /// Whether this replica is the leader.
    pub leadership: Leadership,
    /// Counts lists and errors.
    pub metrics: Metrics,
}

impl WorkloadWatch {
    /// Watches until the service stops; the caller drops the future to stop.
    pub(crate) async fn run(mut self) {
        self.health.ready();
        if self.pods_listed.changed().await.is_err() {
            return;
        }
        let namespace = self.client.namespace();
        let watch_loop = WatchLoop {
            api: Api::<WorkloadObject>::namespaced_with(self.client.client(), namespace, &resource()),
            name: format!("Workloads of Kueue in {namespace}"),
            selection: Selection { labels: "", list_fields: "", watch_fields: "" },
            health: self.health.clone(),
            metrics: (self.metrics.clone(), Watched::Workloads),
            relist: RelistTrigger { changes: self.pods_listed.clone(), leadership: None },
        };
        watch_loop.run(self).await;
    }
}

impl EventHandler<WorkloadObject> for WorkloadWatch {
    async fn handle(&mut self, event: Event<WorkloadObject>) -> Result<(), Stopped> {
        // A follower misses nothing: it lists the Workloads again when it becomes the leader.
        if !self.leadership.is_ours() {
            return Ok(());
        }
        let (workload, deleted) = match event {
            Event::InitApply(workload) | Event::Apply(workload) => (workload, false),
            Event::Delete(workload) => (workload, true),
            Event::Init | Event::InitDone => return Ok(()),
        };
        match observation(&workload, deleted) {
            Some(observation) => self.status.observe_pod(observation).await,
            None => Ok(()),
        }
    }
}
