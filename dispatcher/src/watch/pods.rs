//! The watch of the Jobs' pods.
//!
//! Lists the pods again after each resync. Only then `status` knows the unfinished Jobs, and it
//! ignores the pods of all others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use dispatcher_core::{
    contract::{
        job::LABEL_TEMPLATE,
        names::{JobName, TemplateName},
    },
    status::{
        explain::pod::{PodObject, sign},
        pod_tracker::{PodObservation, PodState},
    },
};
use kube::runtime::watcher::{self, Event};
use tokio::sync::watch;

use crate::{
    kube::JobClient,
    leader::Leadership,
    status::{StatusHandle, Stopped},
    telemetry::{
        health::Component,
        metrics::{Metrics, Watched},
    },
    watch::watch_loop::{EventHandler, RelistTrigger, WatchLoop},
};

/// The Jobs of pending pods, by the pod's uid. A Kubernetes Event names only the pod.
#[derive(Clone, Default)]
pub(crate) struct PendingPods(Arc<Mutex<HashMap<String, Owner>>>);

/// The Job of a pod.
struct Owner {
    template: Option<TemplateName>,
    name: JobName,
    uid: String,
}

impl PendingPods {
    /// The observation of a pending pod's Job; `None` if the pod is not pending or has no Job.
    pub(super) fn observation(&self, pod: &str, state: PodState) -> Option<PodObservation> {
        let pods = self.lock();
        let Owner { template, name, uid } = pods.get(pod)?;
        let (template, name, uid) = (template.clone(), name.clone(), uid.clone());
        Some(PodObservation { template, name, uid, tells: state })
    }

    fn apply(&self, observation: &PodObservation) {
        let PodObservation { template, name, uid, tells } = observation;
        match tells {
            PodState::Waiting { pod, .. } => {
                let owner = Owner { template: template.clone(), name: name.clone(), uid: uid.clone() };
                self.lock().insert(pod.clone(), owner);
            }
            PodState::Running { pod, .. } | PodState::Ended { pod, .. } => drop(self.lock().remove(pod)),
            PodState::Refused { .. } => {}
        }
    }

    fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Owner>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// The pending pods. The watch of Kubernetes Events shares them.
    pub pending: PendingPods,
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
            config: watcher::Config::default().labels(LABEL_TEMPLATE),
            health: self.health.clone(),
            metrics: (self.metrics.clone(), Watched::Pods),
            relist: RelistTrigger { changes: self.resyncs.clone(), leadership: None },
        };
        watch_loop.run(self).await;
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
                self.pending.clear();
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
        let Some(observation) = sign(&pod, deleted) else { return Ok(()) };
        self.pending.apply(&observation);
        self.status.observe_pod(observation).await
    }
}
