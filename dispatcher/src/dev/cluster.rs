//! The local cluster: its API, its Job controller, and the kubelet that runs the Jobs' programs.

use std::{collections::BTreeMap, net::TcpListener, time::Duration};

use local_cluster::{
    LocalCluster, Options, controller,
    kubelet::{self, Kubelet, Program},
};
use serde_json::json;

use crate::dev::{DevError, NAMESPACE, supervisor::Parts};

/// Its parts end at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// Starts it.
///
/// # Errors
/// Where the listener is none, or there can be no kubelet.
pub(super) fn start(
    parts: &mut Parts,
    listener: TcpListener,
    images: BTreeMap<String, Program>,
    time_scale: f64,
) -> Result<(), DevError> {
    let failed = |error: std::io::Error| DevError::Ended(format!("local cluster: {error}"));
    let namespaces = vec!["default".to_owned(), NAMESPACE.to_owned()];
    let cluster = LocalCluster::new(Options { namespaces, ..Options::default() });
    let client = cluster.internal_client(NAMESPACE);
    let options = kubelet::Options { images, time_scale, ..kubelet::Options::default() };
    let kubelet = Kubelet::new(client.clone(), options).map_err(failed)?;
    cluster.register_logs(kubelet.logs());
    listener.set_nonblocking(true).map_err(failed)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;

    parts.start("API of the local cluster", PATIENCE, |stop| async move {
        cluster.serve(listener, stop).await.map_err(|error| error.to_string())
    });
    parts.start("Job controller", PATIENCE, |stop| async move {
        controller::run(client, controller::Options { time_scale }, stop).await;
        Ok(())
    });
    parts.start("pods", PATIENCE, |stop| async move {
        kubelet.run(stop).await;
        Ok(())
    });
    Ok(())
}

/// A kubeconfig for the dispatcher. (JSON is YAML.)
pub(super) fn kubeconfig(url: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "local",
        "clusters": [{"name": "local", "cluster": {"server": url}}],
        "users": [{"name": "local", "user": {}}],
        "contexts": [{"name": "local", "context": {"cluster": "local", "user": "local", "namespace": NAMESPACE}}],
    })
    .to_string()
}
