//! `/livez`, `/readyz`, `/leader` and `/metrics` over HTTP.

use std::net::SocketAddr;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    cli::StartError,
    leadership::Leadership,
    telemetry::{
        health::Health,
        metrics::{self, Metrics},
    },
};

/// Takes the address.
///
/// # Errors
/// [`StartError`] where it is taken or not ours.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .await
        .map_err(|e| StartError::new("DISPATCHER_ADMIN_ADDR", format!("{address}: {e}")))
}

/// Serves until `stop`.
pub async fn serve(
    listener: TcpListener,
    health: Health,
    leadership: Leadership,
    metrics: Metrics,
    stop: CancellationToken,
) {
    let router = Router::new()
        // Depends on nothing: a service that waits for NATS is alive.
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(health)
        .route("/leader", get(move || async move { leader(&leadership) }))
        .route(
            "/metrics",
            get(move || async move { ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics.text()) }),
        );
    let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, "the admin server has failed");
    }
}

async fn ready(State(health): State<Health>) -> (StatusCode, String) {
    let reasons = health.not_ready();
    if reasons.is_empty() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n")
    }
}

/// Whether this replica reports, and whether it has synced all since it began to.
fn leader(leadership: &Leadership) -> String {
    let (leader, synced) = (leadership.is_ours(), leadership.has_synced());
    format!("{{\"leader\":{leader},\"synced\":{synced}}}\n")
}
