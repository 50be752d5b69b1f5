//! Runs one pod from its start to its removal.

use std::{path::Path, sync::Arc};

use futures::future::join_all;
use k8s_openapi::{
    api::core::v1::{Container, Pod},
    jiff::Timestamp,
};
use kube::{Api, Resource, ResourceExt};
use tokio::sync::{SemaphorePermit, watch};

use super::{
    command::{ContainerCommand, StartFailure, prepare},
    context::{Context, StopSignal, stop_requested},
    report::{PodGone, Reporter},
    runner::Runner,
    status::{ContainerView, State, unschedulable},
};
use crate::controller::events::Note;

/// The task of one pod.
pub(super) struct Worker {
    context: Arc<Context>,
    pod: Pod,
    stop: StopSignal,
    reporter: Reporter,
}

impl Worker {
    pub(super) fn new(context: Arc<Context>, pod: Pod, stop: StopSignal) -> Self {
        let api = Api::namespaced(context.client.clone(), &pod.namespace().unwrap_or_default());
        let reporter = Reporter { api, name: pod.name_any(), uid: pod.uid().unwrap_or_default() };
        Self { context, pod, stop, reporter }
    }

    /// Completes when the pod is removed.
    pub(super) async fn run(self) {
        if let Err(PodGone) = self.run_pod().await {
            return;
        }
        // The logs of an ended pod stay readable until its deletion.
        stop_requested(&mut self.stop.clone()).await;
        let _ = self.reporter.remove().await;
    }

    async fn run_pod(&self) -> Result<(), PodGone> {
        let mut stop = self.stop.clone();
        let slot = tokio::select! {
            biased;
            _ = stop_requested(&mut stop) => return Ok(()),
            slot = self.acquire_slot() => slot?,
        };
        self.reporter.bind(&self.context.options.node).await?;
        let folder = tempfile::tempdir_in(self.context.folder.path()).map_err(|error| {
            tracing::error!(%error, "pod folder not created");
            PodGone
        })?;
        self.run_containers(folder.path()).await;
        drop(slot);
        Ok(())
    }

    /// Waits for a slot; a waiting pod is unschedulable.
    async fn acquire_slot(&self) -> Result<SemaphorePermit<'_>, PodGone> {
        if let Ok(slot) = self.context.slots.try_acquire() {
            return Ok(slot);
        }
        let message = "0/1 nodes are available: 1 Too many pods.";
        self.reporter.status(&unschedulable(message, Timestamp::now())).await?;
        // The semaphore is never closed.
        self.context.slots.acquire().await.map_err(|_| PodGone)
    }

    /// Runs the containers until they end, and reports their states.
    async fn run_containers(&self, folder: &Path) {
        let spec = self.pod.spec.clone().unwrap_or_default();
        let commands: Vec<_> =
            spec.containers.iter().map(|container| (container, self.prepare(container))).collect();
        let views = commands.iter().map(|(container, command)| view(container, command)).collect();
        let (sender, receiver) = watch::channel(views);
        let sender = Arc::new(sender);
        let restart_policy = spec.restart_policy.unwrap_or_default();
        let runners = commands.iter().enumerate().filter_map(|(index, (container, command))| {
            Some(Runner {
                context: &self.context,
                uid: &self.reporter.uid,
                name: &container.name,
                command: command.as_ref().ok()?,
                restart_policy: &restart_policy,
                folder,
                index,
                views: sender.clone(),
                stop: self.stop.clone(),
            })
        });
        let runs: Vec<_> = runners.map(Runner::run).collect();
        let has_failed_start = runs.len() < commands.len();
        let (mut stop, failures) =
            (self.stop.clone(), commands.iter().filter_map(|(_, command)| command.as_ref().err()));
        let run_all = async {
            join_all(runs).await;
            if has_failed_start {
                // A container that cannot start keeps the pod waiting.
                stop_requested(&mut stop).await;
            }
            drop(sender);
        };
        tokio::join!(run_all, self.reporter.follow(receiver), self.record_start_failures(failures));
    }

    fn prepare(&self, container: &Container) -> Result<ContainerCommand, StartFailure> {
        let init = self.pod.spec.as_ref().and_then(|spec| spec.init_containers.as_ref());
        if init.is_some_and(|containers| !containers.is_empty()) {
            let message = "the local cluster supports no init containers".to_owned();
            return Err(StartFailure { reason: "CreateContainerConfigError", message });
        }
        prepare(&self.pod, container, &self.context.options.images, &self.context.options.node)
    }

    /// Records an Event for each container that cannot start.
    async fn record_start_failures(&self, failures: impl Iterator<Item = &StartFailure>) {
        let subject = self.pod.object_ref(&());
        for StartFailure { reason, message } in failures {
            self.context.events.record(&subject, Note::warning(reason, message)).await;
            self.context.events.record(&subject, Note::warning("Failed", &format!("Error: {reason}"))).await;
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
