//! The kubelet: runs the containers of pods as processes of this machine, and reports what becomes of them.
//!
//! ```text
//! watch of pods ─▶ Kubelet ─▶ one Worker per pod ─▶ one Runner per container ─▶ Process ─▶ LogBuffer ─▶ pods/log
//!                     │              │  ▲                    │                     ▲
//!                     └─ end it ─────┘  └──── views ─────────┘                  MemoryLimiter, Guard
//!                                       │
//!                                       └─▶ status of the pod
//! ```
//!
//! An image is a name for a program; there is no isolation: processes run as this user, see this machine's files and network,
//! and what a pod says of users, volumes, ports, probes and CPU is ignored. What cannot be ignored without being wrong
//! (init containers, values from Secrets and ConfigMaps, unknown images) keeps the pod from running, and its status says why.
//!
//! A container's processes never outlive it, this kubelet, or this program: see `process` and `guard`. What leaves both
//! the process group and the parent (a daemon) is beyond its reach.

mod command;
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

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::PathBuf,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    runtime::watcher::{self, Event, watcher},
};
use tempfile::TempDir;
use tokio::{
    sync::{Semaphore, watch},
    task::{Id, JoinError, JoinSet},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

pub use self::guard::Guard;
use self::{memory::MemoryLimiter, run_logs::RunLogs, worker::Worker};
use crate::{Logs, controller::events::Recorder};

/// Where every pod is to be found.
const ADDRESS: &str = "127.0.0.1";
/// How long the API keeps one watch: a watch that went silent is noticed after that.
const WATCH_SECONDS: u32 = 60;
/// The wait after a watch failed.
const WATCH_PAUSE: Duration = Duration::from_millis(200);
/// The grace of a pod whose spec gives none, as Kubernetes' default.
const GRACE: Duration = Duration::from_secs(30);

/// What an image stands for: a program of this machine and its default arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its file; a name without a slash is looked up on the container's `PATH`.
    pub path: PathBuf,
    /// What it gets where the container gives neither `command` nor `args`.
    pub arguments: Vec<String>,
    /// Variables that it gets whatever the container says: what a template sets for a cluster can be too slow here.
    pub environment: BTreeMap<String, String>,
}

impl Program {
    /// A program without arguments, and with the container's environment.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), arguments: Vec::new(), environment: BTreeMap::new() }
    }

    /// The same with this variable in slot of the container's.
    #[must_use]
    pub fn with_variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// The same with these arguments.
    #[must_use]
    pub fn with_arguments(self, arguments: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { arguments: arguments.into_iter().map(Into::into).collect(), ..self }
    }
}

/// How a kubelet is set.
#[derive(Clone, Debug)]
pub struct Options {
    /// The images that there are, by the names that containers give, tag included.
    pub images: BTreeMap<String, Program>,
    /// The name of the node that it is.
    pub node: String,
    /// Pods that run at the same time; others wait as unschedulable. 110, as in Kubernetes.
    pub max_pods: usize,
    /// Bytes that are kept of what a container's run wrote, from the end. 1 MiB.
    pub log_limit: usize,
    /// How often memory limits are looked at. 50 ms.
    pub memory_interval: Duration,
    /// Times this factor the back-off before a container is started again: 1 is Kubernetes' own.
    pub time_scale: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            images: BTreeMap::new(),
            node: "local".to_owned(),
            max_pods: 110,
            log_limit: 1 << 20,
            memory_interval: Duration::from_millis(50),
            time_scale: 1.0,
        }
    }
}

/// See the module. Dropping it, or the future of [`Kubelet::run`], kills all processes.
pub struct Kubelet {
    shared: Arc<Shared>,
    workers: JoinSet<()>,
    pods: HashMap<String, TrackedPod>,
    /// Which worker is whose: one that panics cannot say.
    tasks: HashMap<Id, String>,
}

/// What the workers share.
struct Shared {
    client: Client,
    options: Options,
    memory: MemoryLimiter,
    guard: Guard,
    logs: RunLogs,
    slots: Semaphore,
    events: Recorder,
    folder: TempDir,
}

/// A pod that has a worker.
struct TrackedPod {
    stop: watch::Sender<Option<Duration>>,
    /// What it has to end in, where it is gone without being told.
    grace: Duration,
    /// Whether the list that is under way has it.
    listed: bool,
}

impl Kubelet {
    /// A kubelet that has not started; its logs can be registered already. Call it within a Tokio runtime.
    ///
    /// # Errors
    /// When there can be no temporary folder, or no `/bin/sh` as guard of the processes.
    pub fn new(client: Client, options: Options) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("local-cluster-").tempdir()?;
        let guard = Guard::start(folder.path())?;
        let memory = MemoryLimiter::default();
        let mut workers = JoinSet::new();
        workers.spawn(memory.clone().run(options.memory_interval));
        let shared = Shared {
            events: Recorder::new(client.clone(), "kubelet"),
            slots: Semaphore::new(options.max_pods),
            folder,
            logs: RunLogs::default(),
            client,
            options,
            memory,
            guard,
        };
        Ok(Self { shared: Arc::new(shared), workers, pods: HashMap::new(), tasks: HashMap::new() })
    }

    /// The logs of its containers, for [`LocalCluster::register_logs`](crate::LocalCluster::register_logs).
    #[must_use]
    pub fn logs(&self) -> Arc<dyn Logs> {
        Arc::new(self.shared.logs.clone())
    }

    /// Runs pods until `shutdown`, then kills what runs. An API that fails is tried again, for ever.
    pub async fn run(mut self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.follow()).await;
        self.workers.shutdown().await;
    }

    async fn follow(&mut self) {
        let config = watcher::Config::default().timeout(WATCH_SECONDS);
        let mut events = pin!(watcher(Api::<Pod>::all(self.shared.client.clone()), config));
        loop {
            tokio::select! {
                Some(event) = events.next() => match event {
                    Ok(event) => self.handle(event),
                    Err(error) => {
                        tracing::debug!(%error, "the kubelet's watch failed");
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
                let gone = self.pods.iter().filter(|(_, pod)| !pod.listed);
                gone.for_each(|(_, pod)| stop(&pod.stop, pod.grace));
            }
            Event::Delete(pod) => {
                if let Some(known) = pod.uid().and_then(|uid| self.pods.get(&uid)) {
                    stop(&known.stop, known.grace);
                }
            }
        }
    }

    fn handle_pod(&mut self, pod: Pod) {
        let uid = pod.uid().unwrap_or_default();
        let deleting = pod.metadata.deletion_timestamp.is_some();
        let default = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
        let default = default.map_or(GRACE, seconds);
        let grace = deleting.then(|| pod.metadata.deletion_grace_period_seconds.map_or(default, seconds));
        if let Some(known) = self.pods.get_mut(&uid) {
            known.listed = true;
            if let Some(grace) = grace {
                stop(&known.stop, grace);
            }
            return;
        }
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let is_ours = node.is_none_or(|node| node == self.shared.options.node);
        if !is_ours || matches!(phase, Some("Succeeded" | "Failed")) {
            return;
        }
        let (stop, stop_requested) = watch::channel(grace);
        let worker = Worker::new(self.shared.clone(), pod, stop_requested);
        let task = self.workers.spawn(worker.run());
        self.tasks.insert(task.id(), uid.clone());
        self.pods.insert(uid, TrackedPod { stop, grace: default, listed: true });
    }

    fn finish(&mut self, done: Result<(Id, ()), JoinError>) {
        let id = match done {
            Ok((id, ())) => id,
            Err(error) => {
                tracing::error!(%error, "a task of the kubelet broke off");
                error.id()
            }
        };
        if let Some(uid) = self.tasks.remove(&id) {
            self.pods.remove(&uid);
            self.shared.logs.forget(&uid);
        }
    }
}

/// Tells a worker to end its pod; a grace can only be made shorter.
fn stop(sender: &watch::Sender<Option<Duration>>, grace: Duration) {
    sender.send_if_modified(|known| {
        let shorter = known.is_none_or(|known| grace < known);
        if shorter {
            *known = Some(grace);
        }
        shorter
    });
}

fn seconds(number: i64) -> Duration {
    Duration::from_secs(number.try_into().unwrap_or(0))
}
