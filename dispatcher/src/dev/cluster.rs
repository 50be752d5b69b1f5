//! Starts the local cluster: its API, its Job controller, and the kubelet that runs the programs.

use std::{collections::BTreeMap, io, net::TcpListener, time::Duration};

use local_cluster::{
    Credentials, LocalCluster, Options, controller,
    kubelet::{self, Kubelet, Program},
};

use crate::{
    dev::{DevError, NAMESPACE},
    supervisor::Supervisor,
};

/// How long each part may take to stop.
const STOP: Duration = Duration::from_secs(5);

/// Starts the parts as tasks.
///
/// # Errors
/// The listener cannot be used, or the kubelet cannot be created.
pub(super) fn start(
    supervisor: &mut Supervisor,
    listener: TcpListener,
    credentials: Credentials,
    images: BTreeMap<String, Program>,
    time_scale: f64,
) -> Result<(), DevError> {
    let failed = |error: io::Error| DevError::Ended(format!("local cluster: {error}"));
    let namespaces = vec!["default".to_owned(), NAMESPACE.to_owned()];
    let cluster = LocalCluster::new(Options { namespaces, ..Options::default() });
    let client = cluster.internal_client(NAMESPACE);
    let options = kubelet::Options { images, time_scale, ..kubelet::Options::default() };
    let kubelet = Kubelet::new(client.clone(), options).map_err(failed)?;
    cluster.register_logs(kubelet.logs());
    listener.set_nonblocking(true).map_err(failed)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;

    supervisor.group(STOP).spawn("local cluster API", |stop| async move {
        cluster.serve(listener, &credentials, stop).await.map_err(|error| error.to_string())
    });
    let options = controller::Options { time_scale };
    supervisor
        .group(STOP)
        .spawn("Job controller", |stop| async move { controller::run(client, options, stop).await });
    supervisor.group(STOP).spawn("kubelet", |stop| async move { kubelet.run(stop).await });
    Ok(())
}
