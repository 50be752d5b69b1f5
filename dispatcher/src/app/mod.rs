//! The service: its tasks, and the order in which they start and stop.
//!
//! Shutdown order: not ready, stop pulling, finish the requests in progress, publish the pending
//! status events, drain the connection, send the spans, stop the admin server.

mod catalog;
mod connections;
mod deletion;
mod objects;
mod queue_sampler;
mod serving;
mod shared;
mod start;
mod tasks;

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    admin,
    app::{
        shared::Shared,
        start::Prepared,
        tasks::{start_tasks, stop_tasks},
    },
    cli::{Config, StartError},
    concurrency::ConcurrencyLimiter,
    console::Console,
    leadership::{Leadership, leadership},
    retry::backoff,
    supervisor::Supervisor,
    telemetry::{
        health::{Component, Health},
        metrics::{LeaderStatus, Metrics},
        spans::Spans,
    },
    watch::retired::RetiredJobs,
};

/// The deadlines of the last spans and of the admin server at shutdown.
const LAST_STEPS: Duration = Duration::from_secs(5);

/// Why the service ended without being stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A setting is wrong.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A task ended that should run until the service stops.
    #[error("{0}")]
    TaskEnded(String),
}

/// Runs the service until `stop` is cancelled.
///
/// # Errors
/// [`RunError::Start`] for a wrong setting, and [`RunError::TaskEnded`] if a task ends by itself.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), RunError> {
    run_on(None, config, stop).await
}

/// Like [`run`], on the cluster of `client` instead of the configured one. The client must leave
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
    // Registered before the admin server starts: without components, `/readyz` would answer 200.
    let start = health.component("start");
    let (leader, leadership) = leadership();
    let leader_status = leader_status(leadership.clone());
    let limiter = ConcurrencyLimiter::default();
    let metrics = Metrics::new(health.clone(), leader_status.clone(), limiter.clone());
    let spans = Spans::from_env()?;
    let console = Console::new(&config.console)?;

    let mut supervisor = Supervisor::default();
    let listener = admin::listen(config.admin_addr).await?;
    let router = admin::router(health.clone(), Arc::new(leader_status), metrics.clone());
    let router = router.merge(console.as_ref().map(Console::router).unwrap_or_default());
    supervisor.group(LAST_STEPS).spawn("admin", |stop| admin::serve(listener, router, stop));

    let prepared = tokio::select! {
        prepared = prepare(cluster, &config, &health, &metrics, &start) => prepared?,
        () = stop.cancelled() => return Ok(()),
    };
    let client = prepared.connections.client();
    let shared = Shared {
        config,
        health: health.clone(),
        metrics,
        spans: spans.clone(),
        leadership,
        limiter,
        retired: RetiredJobs::default(),
        console,
    };
    start_tasks(&mut supervisor, prepared, shared, leader);
    start.ready();

    let ended = tokio::select! {
        () = stop.cancelled() => Ok(()),
        ended = supervisor.ended() => Err(RunError::TaskEnded(ended.to_string())),
    };
    health.component("shutdown").not_ready("stopping");
    stop_tasks(&mut supervisor, client).await;
    spans.stop(LAST_STEPS).await;
    supervisor.stop().await;
    tracing::info!("stopped");
    ended
}

/// Repeats the start while NATS or the API server is away; `start` is not ready meanwhile.
async fn prepare(
    cluster: Option<::kube::Client>,
    config: &Config,
    health: &Health,
    metrics: &Metrics,
    start: &Component,
) -> Result<Prepared, StartError> {
    let mut delays = backoff();
    loop {
        match Prepared::new(cluster.clone(), config, health, metrics).await {
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, "start failed; trying again");
                start.not_ready(error.to_string());
                sleep(delays.next().unwrap_or_default()).await;
            }
            result => return result,
        }
    }
}

fn leader_status(leadership: Leadership) -> impl Fn() -> LeaderStatus + Clone + Send + Sync + 'static {
    move || LeaderStatus { leader: leadership.is_ours(), synced: leadership.has_synced() }
}
