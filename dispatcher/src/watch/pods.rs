//! The watch of the Jobs' pods. Each time that the one who reports has listed the Jobs, the pods are listed anew: then the writer knows which Jobs
//! are unfinished, and the pods of all others are none of its business.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use kube::runtime::watcher::{self, Event};
use tokio::sync::watch;

use crate::{
    kube::{
        Jobs,
        watch_loop::{EventHandler, RelistTrigger, WatchLoop},
    },
    leader::Leadership,
    status::{StatusHandle, Stopped},
    telemetry::{
        health::Component,
        metrics::{Metrics, Watched},
    },
};
use dispatcher_core::{
    contract::{
        job::LABEL_TEMPLATE,
        names::{JobName, TemplateName},
    },
    status::{
        explain::pod::{PodObject, observation},
        pod_tracker::{PodObservation, PodState},
    },
};

/// The Jobs of the pods that do not run yet: an Event tells of a pod only.
#[derive(Clone, Default)]
pub struct PendingPods(Arc<Mutex<HashMap<String, Owner>>>);

/// A pod's Job: its template, name and uid.
type Owner = (Option<TemplateName>, JobName, String);

impl PendingPods {
    /// What `tells` of this pod, as a sign of its Job; `None` of a pod that has run, or is not of a Job.
    pub fn sign(&self, pod: &str, tells: PodState) -> Option<PodObservation> {
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (template, name, uid) = waiting.get(pod)?.clone();
        Some(PodObservation { template, name, uid, state: tells })
    }

    fn note(&self, sign: &PodObservation) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &sign.state {
            PodState::Waiting { pod, .. } => {
                waiting.insert(pod.clone(), (sign.template.clone(), sign.name.clone(), sign.uid.clone()));
            }
            PodState::Running { pod, .. } | PodState::Ended { pod, .. } => drop(waiting.remove(pod)),
            PodState::Refused { .. } => {}
        }
    }

    fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// See the module.
pub struct Pods {
    /// Where the pods are.
    pub jobs: Jobs,
    /// Where what they tell goes.
    pub writer: StatusHandle,
    /// Ready while the watch works; also before it is asked for.
    pub health: Component,
    /// Filled with the pods that do not run yet.
    pub unstarted: PendingPods,
    /// Whether this replica reports.
    pub leadership: Leadership,
    /// Where the watch counts.
    pub metrics: Metrics,
    /// Changes when this replica, as the one that reports, has listed the Jobs.
    pub jobs_listed: watch::Receiver<u64>,
    /// Changes when the pods are listed thereafter.
    pub listed: watch::Sender<u64>,
}

impl Pods {
    /// Watches until the writer is gone; the caller drops it to stop.
    pub async fn run(mut self) {
        self.health.ready();
        if self.jobs_listed.changed().await.is_err() {
            return;
        }
        let follow = WatchLoop {
            api: self.jobs.pods(),
            what: format!("pods in {}", self.jobs.namespace()),
            config: watcher::Config::default().labels(LABEL_TEMPLATE),
            health: self.health.clone(),
            metrics: (self.metrics.clone(), Watched::Pods),
            again: RelistTrigger { changes: self.jobs_listed.clone(), leadership: None },
        };
        follow.run(self).await;
    }
}

impl EventHandler<PodObject> for Pods {
    async fn take(&mut self, event: Event<PodObject>) -> Result<(), Stopped> {
        // As with the Jobs: when this replica begins to report, all is listed anew.
        if !self.leadership.is_ours() {
            return Ok(());
        }
        let (pod, gone) = match event {
            Event::Init => {
                self.unstarted.clear();
                return self.writer.pods_listing().await;
            }
            Event::InitDone => {
                self.writer.pods_listed().await?;
                self.listed.send_modify(|lists| *lists += 1);
                return Ok(());
            }
            Event::InitApply(pod) | Event::Apply(pod) => (pod, false),
            Event::Delete(pod) => (pod, true),
        };
        match observation(&pod, gone) {
            Some(sign) => {
                self.unstarted.note(&sign);
                self.writer.sign(sign).await
            }
            None => Ok(()),
        }
    }
}
