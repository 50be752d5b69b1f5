//! A proxy for the API server: plain HTTP on loopback, forwarded with a kubeconfig's credentials.
//!
//! Faults are those of the local cluster ([`Faults`]): calls fail, break or are delayed, watches
//! stall, connections are refused. [`ApiProxy::hold_before`] and [`ApiProxy::hold_after`] hold a
//! single call.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::Response;
use kube::Client;
use local_cluster::Faults;
use local_cluster::fault_proxy;
use local_cluster::faults::{Call, Calls};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::breakpoint::{Breakpoint, Points, Side};
use super::traffic::{Counters, Traffic};
use crate::kubernetes::ready;
use crate::paths;

/// The limit of the API server.
const BODY_LIMIT: usize = 3 << 20;

/// A running proxy; it ends when this is dropped.
pub struct ApiProxy {
    /// Injects faults. To revoke permissions, use [`crate::Namespace::revoke`].
    pub faults: Faults,
    /// A kubeconfig for the proxy, with the same namespace as the original.
    pub kubeconfig: PathBuf,
    points: Arc<Points<Calls>>,
    counters: Counters,
    _stop: DropGuard,
    _folder: tempfile::TempDir,
}

impl ApiProxy {
    /// Starts a proxy that forwards with the credentials of `kubeconfig`.
    ///
    /// # Panics
    /// If the kubeconfig is invalid, or there is no free port.
    pub async fn start(kubeconfig: &Path) -> Self {
        let client = client(kubeconfig).unwrap_or_else(|error| panic!("proxy for the API server: {error}"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port is free");
        let server = format!("http://{}", listener.local_addr().expect("the listener has an address"));
        let (folder, path) = write_kubeconfig(&server, client.default_namespace());
        let (faults, points, stop) =
            (Faults::for_proxy(), Arc::new(Points::default()), CancellationToken::new());
        let counters = Counters::default();
        tokio::spawn({
            let (faults, points, shutdown) = (faults.clone(), points.clone(), stop.clone());
            let counters = counters.clone();
            async move {
                let upstream = move |call, request| {
                    pass(client.clone(), points.clone(), counters.clone(), call, request)
                };
                fault_proxy::serve(&faults, upstream, listener, shutdown).await.expect("the proxy runs");
            }
        });
        Self { faults, kubeconfig: path, points, counters, _stop: stop.drop_guard(), _folder: folder }
    }

    /// The calls and the bytes of watches since the start.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.counters.read()
    }

    /// Holds the `nth` of these calls from now on, before it is forwarded.
    #[must_use]
    pub fn hold_before(&self, calls: Calls, nth: u32) -> Breakpoint {
        self.points.set(Side::Before, calls, nth)
    }

    /// Holds the answer of the `nth` of these calls: the call is done, but the caller does not
    /// know.
    #[must_use]
    pub fn hold_after(&self, calls: Calls, nth: u32) -> Breakpoint {
        self.points.set(Side::After, calls, nth)
    }
}

/// Forwards one request. If the caller disconnects while the request is held, it is dropped.
async fn pass(
    client: Client,
    points: Arc<Points<Calls>>,
    counters: Counters,
    call: Option<Call>,
    request: Request,
) -> io::Result<Response> {
    let hit = |side| points.hit(side, |calls| call.as_ref().is_some_and(|call| calls.matches(call)));
    let (mut parts, body) = request.into_parts();
    // Reads the whole body first: a truncated request must not be forwarded.
    let body = to_bytes(body, BODY_LIMIT).await.map_err(io::Error::other)?;
    for point in hit(Side::Before) {
        point.hold().await?;
    }
    for header in ["host", "authorization", "connection", "transfer-encoding"] {
        parts.headers.remove(header);
    }
    let request = http::Request::from_parts(parts, body.into());
    let is_watch = counters.count(request.method(), request.uri());
    let mut answer = client.send(request).await.map_err(io::Error::other)?.map(Body::new);
    for header in ["connection", "transfer-encoding"] {
        answer.headers_mut().remove(header);
    }
    if is_watch {
        answer = answer.map(|body| counters.count_watch(body));
    }
    *answer.version_mut() = http::Version::HTTP_11;
    for point in hit(Side::After) {
        point.hold().await?;
    }
    Ok(answer)
}

/// A client without deadlines and retries; those are up to the caller.
fn client(kubeconfig: &Path) -> Result<Client, String> {
    let mut config = ready::config(kubeconfig)?;
    config.default_retry = false;
    config.read_timeout = None;
    Client::try_from(config).map_err(|error| format!("{}: {error}", kubeconfig.display()))
}

fn write_kubeconfig(server: &str, namespace: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = paths::temp_dir("api-proxy").unwrap_or_else(|error| panic!("{error}"));
    let path = folder.path().join("proxy.kubeconfig");
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
        "clusters": [{"name": "proxy", "cluster": {"server": server}}],
        "users": [{"name": "proxy", "user": {}}],
        "contexts": [{"name": "proxy",
                      "context": {"cluster": "proxy", "user": "proxy", "namespace": namespace}}],
    });
    std::fs::write(&path, kubeconfig.to_string())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    (folder, path)
}
