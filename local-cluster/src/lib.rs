//! An in-process subset of the Kubernetes API: Jobs, pods and what belongs to them.
//!
//! ```text
//! kube::Client ──┐                                ┌─ rules: defaults, validation, names   (pure)
//!                ├─▶ http: path, verb, body ─▶ api ┤
//! loopback HTTP ─┘        ▲      ▲                 └─ store: objects, versions, history ──▶ watches
//!                      faults  logs
//! ```
//!
//! It is no second Kubernetes: it has what the dispatcher, its tests and a few `kubectl` commands need, answers the
//! rest with 404, 405 or 415, keeps nothing on disk, and knows neither users nor rights. Where it does answer, it answers as
//! Kubernetes does: the same codes, reasons, events and their order.

mod api;
pub mod controller;
mod error;
pub mod faults;
mod http;
pub mod kubelet;
mod logs;
mod object;
mod patch;
mod resource;
mod rules;
mod selector;
mod store;

use std::{sync::Arc, time::Duration};

use kube::Client;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use faults::Faults;
pub use logs::{LogError, LogRequest, LogStream, Logs};

/// How a local cluster is set.
#[derive(Clone, Debug)]
pub struct Options {
    /// Namespaces that are there from the start.
    pub namespaces: Vec<String>,
    /// How many events of each resource are kept for watches; an older resourceVersion is answered with 410.
    pub history: usize,
    /// How often a watch that asked for bookmarks gets one.
    pub bookmark_interval: Duration,
    /// How long a watch lasts that names no `timeoutSeconds`.
    pub watch_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            namespaces: vec!["default".to_owned()],
            history: 10_000,
            bookmark_interval: Duration::from_secs(60),
            watch_timeout: Duration::from_secs(1800),
        }
    }
}

/// A cluster in this process. Clones are handles of the same one; it is gone with the last of them.
#[derive(Clone)]
pub struct LocalCluster {
    state: Arc<http::State>,
}

impl LocalCluster {
    /// An empty cluster.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self { state: Arc::new(http::State::new(options)) }
    }

    /// A client that reaches this cluster without a network. Call it within a Tokio runtime; the client belongs to it.
    #[must_use]
    pub fn client(&self, namespace: &str) -> Client {
        Client::new(http::service(self.state.clone()), namespace)
    }

    /// Like [`Self::client`], for the cluster's own parts, its controller and its kubelet: no fault strikes it.
    #[must_use]
    pub fn internal_client(&self, namespace: &str) -> Client {
        Client::new(http::service(Arc::new(self.state.without_faults())), namespace)
    }

    /// The API as an axum router, to be served or nested elsewhere. It cannot refuse connections: see [`Self::serve`].
    pub fn router(&self) -> axum::Router {
        http::router(self.state.clone())
    }

    /// Serves plain HTTP until `shutdown`, then ends every connection, running watches too.
    ///
    /// There is no authentication: listen on loopback only.
    ///
    /// # Errors
    /// When the listener fails for good.
    pub async fn serve(&self, listener: TcpListener, shutdown: CancellationToken) -> std::io::Result<()> {
        let state = self.state.clone();
        let respond = move |request| http::respond(state.clone(), request);
        http::serve(&self.state.faults, respond, listener, shutdown).await
    }

    /// What can be made to go wrong.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.state.faults.clone()
    }

    /// Says where the logs of containers come from. Without it, `pods/log` answers that there is none.
    pub fn register_logs(&self, logs: Arc<dyn Logs>) {
        self.state.logs.register(logs);
    }
}
