//! The service: its tasks, and the order in which they are started and stopped.

mod start;
mod tasks;

use std::time::Duration;

use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::app::tasks::Tasks;
use crate::{
    admin,
    app::start::Prepared,
    cli::{Config, StartError},
    concurrency::ConcurrencyLimiter,
    leadership::{Leadership, leadership},
    telemetry::{health::Health, metrics::Metrics, spans::Spans},
};

/// How long what is at its very end may take: events that are under way, spans, callers of `/readyz`.
const FLUSH: Duration = Duration::from_secs(5);

/// Why the service ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A setting is wrong.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A task that should run for ever has ended.
    #[error("the task `{0}` has ended")]
    TaskEnded(&'static str),
}

/// Runs the service until `stop`; then stops in this order: not ready, pull no more, finish what is worked on, flush
/// the events, leave.
///
/// # Errors
/// [`RunError`]: wrong settings at start, or a task that died.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), RunError> {
    run_on(None, config, stop).await
}

/// The same on the cluster that `client` reaches, in place of the one that the settings name. The client has to leave
/// retries to the service.
///
/// # Errors
/// As [`run`].
pub async fn run_with(
    client: ::kube::Client,
    config: Config,
    stop: CancellationToken,
) -> Result<(), RunError> {
    run_on(Some(client), config, stop).await
}

async fn run_on(
    cluster: Option<::kube::Client>,
    config: Config,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let health = Health::default();
    // Before anybody can ask: without a room, all would be ready.
    let start = health.component("start");
    let (lead, leadership) = leadership();
    let active = ConcurrencyLimiter::default();
    let metrics = Metrics::new(health.clone(), leadership.clone(), active.clone());
    let spans = Spans::from_env()?;
    let listener = admin::listen(config.admin_addr).await?;
    let mut admin = Admin::start(listener, &health, leadership.clone(), metrics.clone());
    let prepared = tokio::select! {
        prepared = Prepared::new(cluster, &config, &health, &metrics) => prepared?,
        () = stop.cancelled() => return Ok(()),
    };
    let mut tasks =
        Tasks::start(prepared, &config, (&health, active, metrics, spans.clone()), (lead, leadership));
    start.ready();
    let ended = tokio::select! {
        () = stop.cancelled() => Ok(()),
        task = tasks.any_ended() => Err(RunError::TaskEnded(task)),
        _ = admin.task.join_next() => Err(RunError::TaskEnded("admin")),
    };
    health.component("shutdown").not_ready("stopping");
    tasks.stop().await;
    spans.stop(FLUSH).await;
    admin.stop().await;
    tracing::info!("stopped");
    ended
}

/// `/livez`, `/readyz`, `/leader` and `/metrics`, from before everything else to after it.
struct Admin {
    task: JoinSet<()>,
    stop: CancellationToken,
}

impl Admin {
    fn start(listener: TcpListener, health: &Health, leadership: Leadership, metrics: Metrics) -> Self {
        let (mut task, stop) = (JoinSet::new(), CancellationToken::new());
        task.spawn(admin::serve(listener, health.clone(), leadership, metrics, stop.clone()));
        Self { task, stop }
    }

    async fn stop(mut self) {
        self.stop.cancel();
        if timeout(FLUSH, self.task.join_next()).await.is_err() {
            tracing::debug!("a caller of /readyz holds on");
        }
    }
}
