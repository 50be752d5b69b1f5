//! The watch of Kubernetes' Events: warnings only, and of those the few that conditions do not tell.
//!
//! A watch and no lists: the API server keeps no cache of Events, so that each list reads all of a namespace's, and a Job
//! that a quota refuses gets a new Event with each try.

use k8s_openapi::{
    api::core::v1::Event as KubernetesEvent,
    jiff::{SignedDuration, Timestamp},
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
    watch::pods::PendingPods,
};
use dispatcher_core::status::explain::event::{EventFinding, FIELDS, event_time, finding};

/// Older Events in a list say nothing of now: the Job controller tries again at least every ten minutes.
const OLD: SignedDuration = SignedDuration::from_mins(15);

/// See the module.
pub struct Events {
    /// Where the Events are.
    pub jobs: Jobs,
    /// Where what they tell goes.
    pub writer: StatusHandle,
    /// Ready while the watch works.
    pub health: Component,
    /// Whose pods do not run yet.
    pub unstarted: PendingPods,
    /// Changes when the pods are listed.
    pub pods_listed: watch::Receiver<u64>,
    /// Whether this replica reports.
    pub leadership: Leadership,
    /// Where the watch counts.
    pub metrics: Metrics,
}

impl Events {
    /// Watches until the writer is gone; the caller drops it to stop.
    pub async fn run(mut self) {
        self.health.ready();
        if self.pods_listed.changed().await.is_err() {
            return;
        }
        let follow = WatchLoop {
            api: self.jobs.events(),
            what: format!("Events in {}", self.jobs.namespace()),
            config: watcher::Config::default().fields(FIELDS),
            health: self.health.clone(),
            metrics: (self.metrics.clone(), Watched::Events),
            again: RelistTrigger { changes: self.pods_listed.clone(), leadership: None },
        };
        follow.run(self).await;
    }
}

impl EventHandler<KubernetesEvent> for Events {
    async fn take(&mut self, event: Event<KubernetesEvent>) -> Result<(), Stopped> {
        if !self.leadership.is_ours() {
            return Ok(());
        }
        let event = match event {
            Event::InitApply(event) if Timestamp::now().as_second() - event_time(&event) > OLD.as_secs() => {
                return Ok(());
            }
            Event::InitApply(event) | Event::Apply(event) => event,
            Event::Init | Event::InitDone | Event::Delete(_) => return Ok(()),
        };
        let sign = match finding(&event) {
            Some(EventFinding::Job(sign)) => Some(sign),
            Some(EventFinding::Pod(pod, tells)) => self.unstarted.sign(&pod, tells),
            None => None,
        };
        match sign {
            Some(sign) => self.writer.sign(sign).await,
            None => Ok(()),
        }
    }
}
