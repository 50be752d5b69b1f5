//! Runs the local cluster in this process, with a port, a Job controller and a kubelet.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use local_cluster::kubelet::{self, Kubelet, Program};
use local_cluster::{Credentials, Faults, LocalCluster, controller};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::paths;

/// Shortens the backoff between the attempts of a Job: 10 s become 0.1 s.
const TIME_SCALE: f64 = 0.01;

/// A running local cluster; it ends when this is dropped.
#[derive(Debug)]
pub struct Local {
    cluster: Handle,
    access: Access,
    kubeconfig: PathBuf,
    shutdown: CancellationToken,
    thread: Option<JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

/// The port of the API and the credentials of its only user. `Debug` hides them.
struct Access {
    port: u16,
    credentials: Credentials,
}

impl Access {
    fn write_kubeconfig(&self, path: &Path, namespace: &str) -> Result<(), String> {
        let written = self.credentials.write_kubeconfig(path, self.port, namespace);
        written.map_err(|error| format!("{}: {error}", path.display()))
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Access").field("port", &self.port).finish_non_exhaustive()
    }
}

/// `LocalCluster` does not implement `Debug`.
struct Handle(LocalCluster);

impl std::fmt::Debug for Handle {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("LocalCluster")
    }
}

impl Local {
    /// Starts one, with a node or without.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(node: bool) -> Result<Self, String> {
        let cluster = LocalCluster::new(local_cluster::Options::default());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        let port = listener.local_addr().map_err(|error| error.to_string())?.port();
        listener.set_nonblocking(true).map_err(|error| error.to_string())?;
        let credentials = Credentials::generate().map_err(|error| error.to_string())?;
        let access = Access { port, credentials: credentials.clone() };
        let folder = paths::temp_dir("local-cluster")?;
        let kubeconfig = folder.path().join("kubeconfig");
        access.write_kubeconfig(&kubeconfig, "default")?;
        let shutdown = CancellationToken::new();
        let images = if node { Some(images()?) } else { None };
        // A separate runtime, because tests with different runtimes share it.
        let thread = thread::spawn({
            let (cluster, shutdown) = (cluster.clone(), shutdown.clone());
            move || {
                let runtime =
                    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
                runtime.expect("a runtime").block_on(run(cluster, listener, credentials, images, shutdown));
            }
        });
        let cluster = Handle(cluster);
        Ok(Self { cluster, access, kubeconfig, shutdown, thread: Some(thread), _folder: folder })
    }

    /// The kubeconfig of its only user.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Writes a kubeconfig of its only user, with this default namespace.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_kubeconfig(&self, path: &Path, namespace: &str) -> Result<(), String> {
        self.access.write_kubeconfig(path, namespace)
    }

    /// Injects faults.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.cluster.0.faults()
    }

    /// The cluster itself.
    #[must_use]
    pub fn cluster(&self) -> &LocalCluster {
        &self.cluster.0
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.shutdown.cancel();
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn images() -> Result<BTreeMap<String, Program>, String> {
    let program = Program::new(paths::built("simple-job")?);
    Ok(BTreeMap::from([(concat!("simple-job:", env!("CARGO_PKG_VERSION")).to_owned(), program)]))
}

async fn run(
    cluster: LocalCluster,
    listener: std::net::TcpListener,
    credentials: Credentials,
    images: Option<BTreeMap<String, Program>>,
    shutdown: CancellationToken,
) {
    let listener = TcpListener::from_std(listener).expect("the listener is non-blocking");
    let client = cluster.internal_client("default");
    let options = controller::Options { time_scale: TIME_SCALE };
    let mut parts = JoinSet::new();
    parts.spawn(controller::run(client.clone(), options, shutdown.clone()));
    if let Some(images) = images {
        let options = kubelet::Options { images, time_scale: TIME_SCALE, ..kubelet::Options::default() };
        let kubelet = Kubelet::new(client, options).expect("a kubelet");
        cluster.register_logs(kubelet.logs());
        parts.spawn(kubelet.run(shutdown.clone()));
    }
    parts.spawn(async move {
        cluster.serve(listener, &credentials, shutdown).await.expect("the API server runs");
    });
    parts.join_all().await;
}
