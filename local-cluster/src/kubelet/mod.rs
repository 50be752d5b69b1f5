//! The kubelet: runs the containers of pods as local processes and reports the pods' status.
//!
//! ```text
//! watch of pods ─▶ Kubelet ─▶ one Worker per pod ─▶ one Runner per container ─▶ Process ─▶ LogBuffer ─▶ pods/log
//!                     │              │  ▲                    │                     ▲
//!                     └─ end it ─────┘  └──── views ─────────┘                  MemoryLimiter, Guard
//!                                       │
//!                                       └─▶ status of the pod
//! ```
//!
//! An image is a name for a program. There is no isolation: processes run as this user, see its
//! files and network, and ignore users, volumes, ports, probes and CPU limits. A pod that needs
//! other missing features (init containers, Secrets, `ConfigMaps`) does not start and reports the
//! reason. Processes never outlive their container, the kubelet or this program, except daemons
//! that leave both the process group and the parent.

mod command;
mod context;
mod expand;
mod guard;
mod log_buffer;
mod memory;
mod process;
mod quantity;
mod report;
mod run_logs;
mod runner;
mod status;
mod worker;

use std::{collections::HashMap, io, pin::pin, sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    runtime::watcher::{self, Event, watcher},
};
use tokio::{
    sync::{Semaphore, watch},
    task::{Id, JoinError, JoinSet},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

pub use self::{command::Program, context::Options, guard::Guard};
use self::{context::Context, memory::MemoryLimiter, run_logs::RunLogs, worker::Worker};
use crate::{controller::events::Recorder, logs::Logs};

/// The timeout of a watch, which bounds how long a silent watch goes unnoticed.
const WATCH_SECONDS: u32 = 60;
/// The pause after a failed watch.
const WATCH_PAUSE: Duration = Duration::from_millis(200);
/// The default of `terminationGracePeriodSeconds`, as in Kubernetes.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// A kubelet. Dropping it, or the future of [`Kubelet::run`], kills all processes.
pub struct Kubelet {
    context: Arc<Context>,
    workers: JoinSet<()>,
    pods: HashMap<String, TrackedPod>,
    /// The pod uid of each worker task, because a task that panics cannot return it.
    tasks: HashMap<Id, String>,
}

/// A pod that has a worker.
struct TrackedPod {
    stop: watch::Sender<Option<Duration>>,
    /// The grace period of a pod that disappears without a delete event.
    grace: Duration,
    /// Whether the current relist has returned the pod.
    listed: bool,
}

impl Kubelet {
    /// Creates a kubelet. It runs nothing before [`Self::run`], but its logs can be registered.
    ///
    /// It must be called in a Tokio runtime.
    ///
    /// # Errors
    /// If the temporary folder or the process guard (`/bin/sh`) cannot be created.
    pub fn new(client: Client, options: Options) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("local-cluster-").tempdir()?;
        let guard = Guard::start(folder.path())?;
        let memory = MemoryLimiter::default();
        let mut workers = JoinSet::new();
        workers.spawn(memory.clone().run(options.memory_interval));
        let context = Context {
            events: Recorder::new(client.clone(), "kubelet"),
            slots: Semaphore::new(options.max_pods),
            folder,
            logs: RunLogs::default(),
            client,
            options,
            memory,
            guard,
        };
        Ok(Self { context: Arc::new(context), workers, pods: HashMap::new(), tasks: HashMap::new() })
    }

    /// The logs of the containers, for
    /// [`LocalCluster::register_logs`](crate::LocalCluster::register_logs).
    #[must_use]
    pub fn logs(&self) -> Arc<dyn Logs> {
        Arc::new(self.context.logs.clone())
    }

    /// Runs pods until `shutdown`, then kills all processes. Failed API calls are retried without
    /// limit.
    pub async fn run(mut self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.run_loop()).await;
        self.workers.shutdown().await;
    }

    async fn run_loop(&mut self) {
        let config = watcher::Config::default().timeout(WATCH_SECONDS);
        let mut events = pin!(watcher(Api::<Pod>::all(self.context.client.clone()), config));
        loop {
            tokio::select! {
                Some(event) = events.next() => match event {
                    Ok(event) => self.handle(event),
                    Err(error) => {
                        tracing::debug!(%error, "pod watch failed");
                        sleep(WATCH_PAUSE).await;
                    }
                },
                Some(done) = self.workers.join_next_with_id() => self.finish(done),
            }
        }
    }

    fn handle(&mut self, event: Event<Pod>) {
        match event {
            Event::Init => self.pods.values_mut().for_each(|pod| pod.listed = false),
            Event::InitApply(pod) | Event::Apply(pod) => self.handle_pod(pod),
            Event::InitDone => {
                let deleted = self.pods.iter().filter(|(_, pod)| !pod.listed);
                deleted.for_each(|(_, pod)| stop(&pod.stop, pod.grace));
            }
            Event::Delete(pod) => {
                if let Some(tracked) = pod.uid().and_then(|uid| self.pods.get(&uid)) {
                    stop(&tracked.stop, tracked.grace);
                }
            }
        }
    }

    fn handle_pod(&mut self, pod: Pod) {
        let uid = pod.uid().unwrap_or_default();
        let deleting = pod.metadata.deletion_timestamp.is_some();
        let default = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
        let default = default.map_or(DEFAULT_GRACE, seconds);
        let grace = deleting.then(|| pod.metadata.deletion_grace_period_seconds.map_or(default, seconds));
        if let Some(tracked) = self.pods.get_mut(&uid) {
            tracked.listed = true;
            if let Some(grace) = grace {
                stop(&tracked.stop, grace);
            }
            return;
        }
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let is_ours = node.is_none_or(|node| node == self.context.options.node);
        if !is_ours || matches!(phase, Some("Succeeded" | "Failed")) {
            return;
        }
        let (stop, stop_signal) = watch::channel(grace);
        let worker = Worker::new(self.context.clone(), pod, stop_signal);
        let task = self.workers.spawn(worker.run());
        self.tasks.insert(task.id(), uid.clone());
        self.pods.insert(uid, TrackedPod { stop, grace: default, listed: true });
    }

    fn finish(&mut self, done: Result<(Id, ()), JoinError>) {
        let id = match done {
            Ok((id, ())) => id,
            Err(error) => {
                tracing::error!(%error, "kubelet task failed");
                error.id()
            }
        };
        if let Some(uid) = self.tasks.remove(&id) {
            self.pods.remove(&uid);
            self.context.logs.remove(&uid);
        }
    }
}

/// Requests a worker to stop its pod. A later request can only shorten the grace period.
fn stop(sender: &watch::Sender<Option<Duration>>, grace: Duration) {
    sender.send_if_modified(|current| {
        let shorter = current.is_none_or(|current| grace < current);
        if shorter {
            *current = Some(grace);
        }
        shorter
    });
}

fn seconds(number: i64) -> Duration {
    Duration::from_secs(number.try_into().unwrap_or(0))
}
