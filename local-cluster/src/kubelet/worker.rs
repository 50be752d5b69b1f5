//! One pod from its first sight to its end.

use std::{path::Path, sync::Arc, time::Duration};

use futures::future::join_all;
use k8s_openapi::{
    api::core::v1::{Container, Pod},
    jiff::Timestamp,
};
use kube::{Api, Resource, ResourceExt};
use tokio::sync::{SemaphorePermit, watch};

use super::{
    Shared,
    command::{ContainerCommand, StartFailure, prepare},
    report::{PodGone, Reporter},
    runner::Runner,
    status::{ContainerView, State, unschedulable},
};
use crate::controller::events::Note;

/// When a pod is to end, and how much time it has for that.
pub(super) type Stop = watch::Receiver<Option<Duration>>;

/// See the module.
pub(super) struct Worker {
    shared: Arc<Shared>,
    pod: Pod,
    stop: Stop,
    reporter: Reporter,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, pod: Pod, stop: Stop) -> Self {
        let api = Api::namespaced(shared.client.clone(), &pod.namespace().unwrap_or_default());
        let reporter = Reporter { api, name: pod.name_any(), uid: pod.uid().unwrap_or_default() };
        Self { shared, pod, stop, reporter }
    }

    /// Ends when the pod is gone.
    pub(super) async fn run(self) {
        if let Err(PodGone) = self.run_pod().await {
            return;
        }
        // What it wrote can be read until then.
        stop_requested(&mut self.stop.clone()).await;
        let _ = self.reporter.remove().await;
    }

    async fn run_pod(&self) -> Result<(), PodGone> {
        let mut stop = self.stop.clone();
        let slot = tokio::select! {
            biased;
            _ = stop_requested(&mut stop) => return Ok(()),
            slot = self.slot() => slot?,
        };
        self.reporter.bind(&self.shared.options.node).await?;
        let folder = tempfile::tempdir_in(self.shared.folder.path()).map_err(|error| {
            tracing::error!(%error, "a pod has no folder");
            PodGone
        })?;
        self.run_containers(folder.path()).await;
        drop(slot);
        Ok(())
    }

    /// A slot among the pods that may run at the same time.
    async fn slot(&self) -> Result<SemaphorePermit<'_>, PodGone> {
        if let Ok(slot) = self.shared.slots.try_acquire() {
            return Ok(slot);
        }
        let message = "0/1 nodes are available: 1 Too many pods.";
        self.reporter.status(&unschedulable(message, Timestamp::now())).await?;
        // Never closed.
        self.shared.slots.acquire().await.map_err(|_| PodGone)
    }

    /// Runs the containers to their end, and reports it.
    async fn run_containers(&self, folder: &Path) {
        let spec = self.pod.spec.clone().unwrap_or_default();
        let commands: Vec<_> =
            spec.containers.iter().map(|container| (container, self.prepare(container))).collect();
        let views = commands.iter().map(|(container, command)| view(container, command)).collect();
        let (sender, receiver) = watch::channel(views);
        let sender = Arc::new(sender);
        let restarts = spec.restart_policy.unwrap_or_default();
        let runners = commands.iter().enumerate().filter_map(|(index, (container, command))| {
            Some(Runner {
                shared: &self.shared,
                uid: &self.reporter.uid,
                name: &container.name,
                command: command.as_ref().ok()?,
                restarts: &restarts,
                folder,
                index,
                views: sender.clone(),
                stop: self.stop.clone(),
            })
        });
        let runs: Vec<_> = runners.map(Runner::run).collect();
        let is_stuck = runs.len() < commands.len();
        let (mut stop, failures) =
            (self.stop.clone(), commands.iter().filter_map(|(_, command)| command.as_ref().err()));
        let ended = async {
            join_all(runs).await;
            if is_stuck {
                // A container that cannot start waits, and the pod with it.
                stop_requested(&mut stop).await;
            }
            drop(sender);
        };
        tokio::join!(ended, self.reporter.follow(receiver), self.record_start_failures(failures));
    }

    fn prepare(&self, container: &Container) -> Result<ContainerCommand, StartFailure> {
        let init = self.pod.spec.as_ref().and_then(|spec| spec.init_containers.as_ref());
        if init.is_some_and(|containers| !containers.is_empty()) {
            let message = "the local cluster runs no init containers".to_owned();
            return Err(StartFailure { reason: "CreateContainerConfigError", message });
        }
        prepare(&self.pod, container, &self.shared.options.images, &self.shared.options.node)
    }

    /// Events for what keeps containers from starting.
    async fn record_start_failures(&self, failures: impl Iterator<Item = &StartFailure>) {
        let subject = self.pod.object_ref(&());
        for StartFailure { reason, message } in failures {
            self.shared.events.record(&subject, Note::warning(reason, message)).await;
            self.shared.events.record(&subject, Note::warning("Failed", &format!("Error: {reason}"))).await;
        }
    }
}

fn view(container: &Container, command: &Result<ContainerCommand, StartFailure>) -> ContainerView {
    let creating = StartFailure { reason: "ContainerCreating", message: String::new() };
    ContainerView {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        id: String::new(),
        state: State::Waiting(command.as_ref().err().cloned().unwrap_or(creating)),
        last: None,
        restarts: 0,
    }
}

/// Waits until the pod is to end; its grace. A kubelet that is gone leaves none.
pub(super) async fn stop_requested(stop: &mut Stop) -> Duration {
    match stop.wait_for(Option::is_some).await {
        Ok(grace) => grace.unwrap_or_default(),
        Err(_) => Duration::ZERO,
    }
}
