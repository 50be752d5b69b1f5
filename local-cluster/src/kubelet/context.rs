//! The options and the shared state of a kubelet.

use std::{collections::BTreeMap, time::Duration};

use kube::Client;
use tempfile::TempDir;
use tokio::sync::{Semaphore, watch};

use super::{command::Program, guard::Guard, memory::MemoryLimiter, run_logs::RunLogs};
use crate::controller::events::Recorder;

/// The options of a kubelet.
#[derive(Clone, Debug)]
pub struct Options {
    /// The available programs by image name, including the tag.
    pub images: BTreeMap<String, Program>,
    /// The name of the node.
    pub node: String,
    /// The limit of running pods; further pods are unschedulable. Default: 110, as in Kubernetes.
    pub max_pods: usize,
    /// The limit of the log of one container run, in bytes. Older lines are dropped.
    /// Default: 1 MiB.
    pub log_limit: usize,
    /// The interval of checking memory limits. Default: 50 ms.
    pub memory_interval: Duration,
    /// The factor of the restart back-off. Default: 1, the back-off of Kubernetes.
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

/// The state that the workers of a kubelet share.
pub(super) struct Context {
    pub(super) client: Client,
    pub(super) options: Options,
    pub(super) memory: MemoryLimiter,
    pub(super) guard: Guard,
    pub(super) logs: RunLogs,
    /// One permit per pod that may run.
    pub(super) slots: Semaphore,
    pub(super) events: Recorder,
    pub(super) folder: TempDir,
}

/// Requests a worker to stop its pod within a grace period.
pub(super) type StopSignal = watch::Receiver<Option<Duration>>;

/// Waits for the stop request and returns its grace period; zero if the kubelet is dropped.
pub(super) async fn stop_requested(stop: &mut StopSignal) -> Duration {
    match stop.wait_for(Option::is_some).await {
        Ok(grace) => grace.unwrap_or_default(),
        Err(_) => Duration::ZERO,
    }
}
