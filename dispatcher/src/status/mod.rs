//! The only publisher of status events.
//!
//! ```text
//! intake ── publish_added ─┐                     ┌─ publish, fenced ──▶ JOB_STATUS
//! watch ─── observe_job ───┼▶ a queue per Job ───┼─ verify, retire ───▶ Kubernetes
//!           observe_pod ───┘  (dispatcher-core)  └─ fetch log tails, wait
//! ```

mod cluster;
mod handle;
mod reconciler;
mod runner;

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::{reconciler::StatusReconciler, runner::ActionRunner};
use crate::{
    leadership::Leadership,
    nats::status_stream::StatusStream,
    telemetry::{health::Health, metrics::Metrics, spans::Spans},
};

pub(crate) use self::{
    cluster::Cluster,
    handle::{StatusHandle, Stopped},
};

/// Inputs on their way to the reconciler.
const CHANNEL_CAPACITY: usize = 256;

/// A handle, and the task that reconciles its inputs.
///
/// The task ends when every handle is dropped and its inputs are published, or as soon as
/// `abort` is cancelled.
pub(crate) fn start(
    stream: StatusStream,
    cluster: Arc<dyn Cluster>,
    (health, metrics, spans): (&Health, Metrics, Spans),
    leadership: Leadership,
    abort: CancellationToken,
) -> (StatusHandle, impl Future<Output = ()> + use<>) {
    let (sender, inputs) = mpsc::channel(CHANNEL_CAPACITY);
    let runner = Arc::new(ActionRunner::new(stream, cluster, health, (metrics, spans)));
    (StatusHandle::new(sender), async move {
        abort.run_until_cancelled_owned(StatusReconciler::new(runner, leadership).run(inputs)).await;
    })
}
