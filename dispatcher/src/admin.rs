//! The admin server: `/livez`, `/readyz`, `/leader` and `/metrics` over HTTP.

mod server;

use std::{fmt::Write as _, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::RawQuery,
    http::{StatusCode, header::CONTENT_TYPE},
    routing::get,
};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub(crate) use self::server::Connection;
use crate::{
    cli::StartError,
    telemetry::{
        health::Health,
        metrics::{self, LeaderStatus, Metrics},
    },
};

const JSON: &str = "application/json";

/// Reads whether this replica is the leader.
pub(crate) type ReadLeaderStatus = Arc<dyn Fn() -> LeaderStatus + Send + Sync>;

/// Binds the address.
///
/// # Errors
/// [`StartError`] if the address is in use or does not belong to this host.
pub(crate) async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .await
        .map_err(|e| StartError::new("DISPATCHER_ADMIN_ADDR", format!("{address}: {e}")))
}

/// Serves until `stop` is cancelled.
pub(crate) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    server::serve(listener, router, stop).await;
}

/// The routes.
pub(crate) fn router(health: Health, leader_status: ReadLeaderStatus, metrics: Metrics) -> Router {
    Router::new()
        // Depends on nothing: a dispatcher that waits for NATS needs no restart.
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(async move |RawQuery(query)| readyz(&health, query.as_deref())))
        .route("/leader", get(async move || ([(CONTENT_TYPE, JSON)], leader(leader_status()))))
        .route("/metrics", get(async move || ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics.text())))
}

/// 200 if every component is ready, otherwise 503 with the reasons. The parameter `verbose` lists
/// every component, in the format of the Kubernetes API server.
fn readyz(health: &Health, query: Option<&str>) -> (StatusCode, String) {
    let mut parameters = query.unwrap_or_default().split('&');
    let verbose = parameters.any(|parameter| parameter.split('=').next() == Some("verbose"));
    let not_ready = health.not_ready();
    let status = if not_ready.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = match (verbose, not_ready.is_empty()) {
        (true, ready) => verbose_body(health, ready),
        (false, true) => "ready\n".to_owned(),
        (false, false) => not_ready.join("\n") + "\n",
    };
    (status, body)
}

fn verbose_body(health: &Health, ready: bool) -> String {
    let mut body = String::new();
    for component in health.components() {
        // Writing to a `String` cannot fail.
        let _ = match component.reason {
            None => writeln!(body, "[+]{} ok", component.name),
            Some(reason) => writeln!(body, "[-]{} {reason}", component.name),
        };
        for warning in component.warnings {
            let _ = writeln!(body, "[!]{} {warning}", component.name);
        }
    }
    body + if ready { "readyz check passed\n" } else { "readyz check failed\n" }
}

fn leader(LeaderStatus { leader, synced }: LeaderStatus) -> String {
    format!("{}\n", json!({"leader": leader, "synced": synced}))
}

#[cfg(test)]
mod tests {
    use axum::{
        body::{Body, to_bytes},
        http::Request,
    };
    use tower::ServiceExt;

    use super::*;
    use crate::concurrency::ConcurrencyLimiter;

    async fn fetch(health: &Health, path: &str) -> (u16, String, String) {
        let leader_status = || LeaderStatus { leader: true, synced: false };
        let metrics = Metrics::new(health.clone(), leader_status, ConcurrencyLimiter::default());
        let router = router(health.clone(), Arc::new(leader_status), metrics);
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap();
        let content_type = parts.headers[CONTENT_TYPE].to_str().unwrap().to_owned();
        (parts.status.as_u16(), content_type, String::from_utf8(body.into()).unwrap())
    }

    async fn get(health: &Health, path: &str) -> (u16, String) {
        let (status, _, body) = fetch(health, path).await;
        (status, body)
    }

    #[tokio::test]
    async fn livez_is_ok_while_a_component_is_not_ready() {
        let health = Health::default();
        health.component("nats").not_ready("not connected");
        assert_eq!(get(&health, "/livez").await, (200, "ok\n".to_owned()));
    }

    #[tokio::test]
    async fn readyz_returns_the_reasons_of_components_that_are_not_ready() {
        let health = Health::default();
        let (nats, watch) = (health.component("nats"), health.component("watch"));
        watch.ready();
        assert_eq!(get(&health, "/readyz").await, (503, "nats: starting\n".to_owned()));
        nats.ready();
        assert_eq!(get(&health, "/readyz").await, (200, "ready\n".to_owned()));
        watch.not_ready("403 Forbidden");
        nats.not_ready("not connected");
        let body = "nats: not connected\nwatch: 403 Forbidden\n";
        assert_eq!(get(&health, "/readyz").await, (503, body.to_owned()));
    }

    #[tokio::test]
    async fn verbose_readyz_lists_every_component() {
        let health = Health::default();
        let (nats, watch) = (health.component("nats"), health.component("watch"));
        nats.ready();
        watch.not_ready("403 Forbidden");
        let body = "[+]nats ok\n[-]watch 403 Forbidden\nreadyz check failed\n";
        assert_eq!(get(&health, "/readyz?verbose").await, (503, body.to_owned()));
        watch.ready();
        nats.warnings(vec!["no limit".to_owned()]);
        let body = "[+]nats ok\n[!]nats no limit\n[+]watch ok\nreadyz check passed\n";
        for path in ["/readyz?verbose", "/readyz?verbose=true", "/readyz?a=b&verbose"] {
            assert_eq!(get(&health, path).await, (200, body.to_owned()), "{path}");
        }
        assert_eq!(get(&health, "/readyz?other").await.1, "ready\n");
    }

    #[tokio::test]
    async fn leader_returns_json() {
        let (status, content_type, body) = fetch(&Health::default(), "/leader").await;
        assert_eq!((status, content_type.as_str()), (200, JSON));
        assert_eq!(body, "{\"leader\":true,\"synced\":false}\n");
    }

    #[tokio::test]
    async fn metrics_are_openmetrics_text() {
        let (status, content_type, body) = fetch(&Health::default(), "/metrics").await;
        assert_eq!((status, content_type.as_str()), (200, metrics::CONTENT_TYPE));
        assert!(body.contains("dispatcher_leader 1\n") && body.ends_with("# EOF\n"), "{body}");
    }

    #[tokio::test]
    async fn serve_ends_when_stopped() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let error = listen(listener.local_addr().unwrap()).await.unwrap_err().to_string();
        assert!(error.starts_with("DISPATCHER_ADMIN_ADDR: 127.0.0.1:"), "{error}");
        let stop = CancellationToken::new();
        stop.cancel();
        serve(listener, Router::new(), stop).await;
    }
}
