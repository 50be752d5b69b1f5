//! `/live`, `/ready`, `/reports` and `/metrics` over HTTP.

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
    config::StartError,
    health::Health,
    metrics::{self, Metrics},
    status::leadership::Leadership,
};

/// Takes the address.
///
/// # Errors
/// [`StartError`] where it is taken or not ours.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|e| StartError::new("ADMIN_ADDR", format!("{address}: {e}")))
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
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready))
        .with_state(health)
        .route("/reports", get(move || async move { reports(&leadership) }))
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

/// Whether this replica reports, and whether it has compared all since it began to.
fn reports(leadership: &Leadership) -> String {
    let (reports, compared) = (leadership.is_ours(), leadership.has_compared());
    format!("{{\"reports\":{reports},\"compared\":{compared}}}\n")
}
