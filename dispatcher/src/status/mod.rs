//! The only publisher of status events.
//!
//! ```text
//! intake ── publish_added ─┐                     ┌─ publish, fenced ──▶ JOB_STATUS
//! watch ─── observe_job ───┼▶ a queue per Job ───┼─ verify, retire ───▶ Kubernetes
//!           observe_pod ───┘  (dispatcher-core)  └─ fetch log tails, wait
//! ```

mod cluster;
mod handle;
mod publish_failures;
mod reconciler;
mod refused;
mod runner;

use std::sync::Arc;

use tokio::sync::mpsc;

use self::{reconciler::StatusReconciler, runner::ActionRunner};
use crate::{
    leadership::Leadership,
    nats::status_stream::StatusStream,
    telemetry::{health::Health, metrics::Metrics, spans::Spans},
};

pub(crate) use self::{
    cluster::{Change, Cluster, Deletion},
    handle::{StatusHandle, Stopped},
};

/// Inputs on their way to the reconciler.
const CHANNEL_CAPACITY: usize = 256;

/// A handle, and the task that reconciles its inputs.
///
/// The task ends when every handle is dropped and its inputs are published.
pub(crate) fn start(
    stream: StatusStream,
    cluster: Arc<dyn Cluster>,
    (health, metrics, spans): (&Health, Metrics, Spans),
    leadership: Leadership,
) -> (StatusHandle, impl Future<Output = ()> + use<>) {
    let (sender, inputs) = mpsc::channel(CHANNEL_CAPACITY);
    let runner = Arc::new(ActionRunner::new(stream, cluster, health, (metrics, spans)));
    (StatusHandle::new(sender), StatusReconciler::new(runner, leadership).run(inputs))
}
