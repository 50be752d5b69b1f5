//! An in-process subset of the Kubernetes API: Jobs, pods and the resources that belong to them.
//!
//! ```text
//! kube::Client ──┐                                ┌─ rules: defaults, validation, names   (pure)
//!                ├─▶ http: path, verb, body ─▶ api ┤
//! loopback HTTPS ┘        ▲      ▲                 └─ store: objects, versions, history ──▶ watches
//!                      faults  logs
//! ```
//!
//! It covers the needs of the dispatcher, its tests and a few `kubectl` commands, and answers other
//! requests with 404, 405 or 415. Supported calls return the codes, reasons and events of
//! Kubernetes, in the same order. State is kept in memory. There is one user with every permission.

mod api;
mod call;
pub mod controller;
mod credentials;
mod error;
pub mod fault_proxy;
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

use std::sync::Arc;

use kube::Client;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use credentials::Credentials;
pub use faults::Faults;
pub use http::Options;
pub use logs::{LogError, LogRequest, LogStream, Logs};

/// A cluster in this process. Clones share the same cluster; dropping the last one discards it.
#[derive(Clone)]
pub struct LocalCluster {
    state: Arc<http::State>,
}

impl LocalCluster {
    /// Creates a cluster that holds only the namespaces of `options`.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self { state: Arc::new(http::State::new(options)) }
    }

    /// A client that calls this cluster in-process. It must be created and used in a Tokio runtime.
    #[must_use]
    pub fn client(&self, namespace: &str) -> Client {
        Client::new(http::service(self.state.clone()), namespace)
    }

    /// A client that faults do not affect, for the cluster's own controller and kubelet.
    #[must_use]
    pub fn internal_client(&self, namespace: &str) -> Client {
        Client::new(http::service(Arc::new(self.state.without_faults())), namespace)
    }

    /// Serves HTTPS until `shutdown`, then closes every connection, including watches.
    ///
    /// Every request needs the token of `credentials`. Requests of web pages and for other host
    /// names are refused.
    ///
    /// # Errors
    /// The listener has no address. A failed `accept` is logged and retried.
    pub async fn serve(
        &self,
        listener: TcpListener,
        credentials: &Credentials,
        shutdown: CancellationToken,
    ) -> std::io::Result<()> {
        let state = self.state.clone();
        let respond = move |request| http::respond(state.clone(), request);
        http::serve(&self.state.faults, Some(credentials), respond, listener, shutdown).await
    }

    /// The faults of this cluster.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.state.faults.clone()
    }

    /// Registers the source of container logs. Without one, `pods/log` answers with 400.
    pub fn register_logs(&self, logs: Arc<dyn Logs>) {
        self.state.logs.register(logs);
    }
}
