//! The cluster of the tests: a real Kubernetes that `testbed kubernetes` runs, the one that `TEST_KUBECONFIG` names, or, with
//! `TEST_CLUSTER=local`, the local cluster.

pub mod local;
pub mod namespace;
pub mod ready;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use kube::Client;
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use crate::helper::Helper;
use crate::paths;
use crate::wait::TIMEOUT;
pub use local::Local;
pub use namespace::Namespace;

/// What a Kubernetes of the testbed consists of, and how its components are set.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Options {
    /// Run containerd and a kubelet, so that pods really run. Needs root.
    pub node: bool,
    /// Give the controllers the rates that hundreds of Jobs at once need; the defaults are for big, slow clusters.
    pub raised_limits: bool,
    /// More arguments of the API server.
    pub apiserver_args: Vec<String>,
    /// More arguments of the controller manager.
    pub controller_manager_args: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { node: false, raised_limits: true, apiserver_args: vec![], controller_manager_args: vec![] }
    }
}

/// A running cluster.
#[derive(Debug)]
pub struct Kubernetes {
    kubeconfig: PathBuf,
    parts: Parts,
}

/// What it is made of.
#[derive(Debug)]
enum Parts {
    /// Whatever `TEST_KUBECONFIG` leads to: not ours to kill.
    Given,
    Testbed {
        helper: Helper,
        folder: PathBuf,
    },
    Local(Local),
}

/// Whether the tests run on the local cluster: `TEST_CLUSTER` is `local`, and not `kubernetes`, which it is where it is not
/// set: what is real decides.
///
/// # Panics
/// At any other value.
#[must_use]
pub fn is_local() -> bool {
    match std::env::var("TEST_CLUSTER").as_deref() {
        Ok("local") => true,
        Ok("kubernetes" | "") | Err(_) => false,
        Ok(other) => panic!("TEST_CLUSTER: found {other:?}, allowed are `local` and `kubernetes`"),
    }
}

impl Kubernetes {
    /// The one cluster of this test process, with a node: started at the first call, ended with the process.
    ///
    /// # Errors
    /// Says what this machine lacks for it.
    ///
    /// # Panics
    /// When it has what is needed and the cluster does not start all the same.
    pub async fn shared() -> Result<&'static Self, String> {
        static SHARED: OnceCell<Result<Kubernetes, String>> = OnceCell::const_new();
        if let Some(path) = std::env::var_os("TEST_KUBECONFIG").filter(|path| !path.is_empty()) {
            let given = || async { Ok(Self { kubeconfig: path.into(), parts: Parts::Given }) };
            return SHARED.get_or_init(given).await.as_ref().map_err(Clone::clone);
        }
        let options = Options { node: true, ..Options::default() };
        if !is_local() {
            can_run(&options)?;
        }
        let shared = SHARED.get_or_init(|| Self::start(&options)).await;
        Ok(shared.as_ref().unwrap_or_else(|error| panic!("no Kubernetes: {error}")))
    }

    /// A control plane of the test's own, without a node: its components can be killed, stopped and started.
    ///
    /// # Errors
    /// Says what this machine lacks for it.
    ///
    /// # Panics
    /// When it has what is needed and the control plane does not start all the same.
    pub async fn control_plane(options: Options) -> Result<Self, String> {
        let options = Options { node: false, ..options };
        if !is_local() {
            can_run(&options)?;
        }
        Ok(Self::start(&options).await.unwrap_or_else(|error| panic!("no control plane: {error}")))
    }

    async fn start(options: &Options) -> Result<Self, String> {
        if is_local() {
            let local = Local::start(options.node)?;
            return Ok(Self { kubeconfig: local.kubeconfig().to_owned(), parts: Parts::Local(local) });
        }
        let options = serde_json::to_string(options).expect("plain data");
        let (helper, ready) = Helper::start(&["kubernetes", &options], &[], TIMEOUT).await?;
        let text = |key: &str| ready[key].as_str().map(PathBuf::from).ok_or(format!("no {key} in {ready}"));
        Ok(Self {
            kubeconfig: text("kubeconfig")?,
            parts: Parts::Testbed { helper, folder: text("folder")? },
        })
    }

    /// The kubeconfig of an administrator.
    #[must_use]
    pub fn kubeconfig_path(&self) -> &Path {
        &self.kubeconfig
    }

    /// The folder with the components' logs, where the testbed started them.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        match &self.parts {
            Parts::Testbed { folder, .. } => Some(folder),
            Parts::Given | Parts::Local(_) => None,
        }
    }

    /// A new client with an administrator's rights; it belongs to the runtime of the caller. No fault of the local cluster
    /// strikes it.
    #[must_use]
    pub fn client(&self) -> Client {
        if let Some(local) = self.local() {
            return local.cluster().internal_client("default");
        }
        ready::client(&self.kubeconfig).expect("a kubeconfig made by the testbed, or a valid TEST_KUBECONFIG")
    }

    /// Runs `kubectl` with an administrator's rights and returns its output.
    ///
    /// # Errors
    /// What it wrote to stderr, when it fails.
    pub async fn kubectl<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<String, String> {
        let mut command = kubectl(&self.kubeconfig);
        command.args(args);
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic inside");
        let output = output.map_err(|error| format!("kubectl: {error}"))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// Makes definitions of resources, from a file or a folder, and waits until the API server serves them.
    pub async fn create_crds(&self, path: &Path) -> Result<(), String> {
        let path = path.display().to_string();
        self.kubectl(&["create", "-f", &path]).await?;
        self.kubectl(&["wait", "--for=condition=Established", "--timeout=120s", "-f", &path]).await.map(drop)
    }

    /// A fresh namespace with the ServiceAccounts and Roles of `deploy/`.
    pub async fn namespace(&self) -> Namespace {
        Namespace::create(self).await.unwrap_or_else(|error| panic!("a fresh namespace: {error}"))
    }

    /// The local cluster, where it is one.
    #[must_use]
    pub fn local(&self) -> Option<&Local> {
        match &self.parts {
            Parts::Local(local) => Some(local),
            Parts::Given | Parts::Testbed { .. } => None,
        }
    }

    /// Kills the API server (SIGKILL); the local one breaks and refuses all connections.
    pub async fn kill_apiserver(&self) {
        match self.local() {
            Some(local) => local.faults().refuse_connections(true),
            None => drop(self.helper().must("kill apiserver").await),
        }
    }

    /// Starts the API server again, on the same port, and waits until it is ready.
    pub async fn start_apiserver(&self) {
        match self.local() {
            Some(local) => local.faults().refuse_connections(false),
            None => drop(self.helper().must("start apiserver").await),
        }
    }

    /// Kills etcd (SIGKILL).
    pub async fn kill_etcd(&self) {
        self.helper().must("kill etcd").await;
    }

    /// Starts etcd again, with its data, and waits until the API server is ready.
    pub async fn start_etcd(&self) {
        self.helper().must("start etcd").await;
    }

    /// Stops a component without its noticing (SIGSTOP): `apiserver`, `etcd`, `controller-manager` or `scheduler`.
    pub async fn stop(&self, component: &str) {
        self.helper().must(&format!("stop {component}")).await;
    }

    /// Lets a stopped component go on (SIGCONT).
    pub async fn cont(&self, component: &str) {
        self.helper().must(&format!("cont {component}")).await;
    }

    /// Compacts etcd to its newest revision: a watch from an older resourceVersion gets 410 `Gone`, once the API server's
    /// own memory does not hold it either (after its restart). The local one forgets its history.
    pub async fn compact_etcd(&self) {
        match self.local() {
            Some(local) => local.faults().forget_history(),
            None => drop(self.helper().must("compact").await),
        }
    }

    /// Gives the node of the testbed an image that `tests/images/build` has saved.
    pub async fn import(&self, image: &str) {
        self.helper().must(&format!("import {image}")).await;
    }

    /// A new folder; within the cluster's, which is removed even when this process is killed.
    fn temp_dir(&self) -> Result<tempfile::TempDir, String> {
        match self.folder() {
            Some(folder) => {
                tempfile::tempdir_in(folder).map_err(|error| format!("{}: {error}", folder.display()))
            }
            None => paths::temp_dir("namespace"),
        }
    }

    fn helper(&self) -> &Helper {
        match &self.parts {
            Parts::Testbed { helper, .. } => helper,
            Parts::Given | Parts::Local(_) => panic!("only a Kubernetes of the testbed has this part"),
        }
    }

    /// Whether the cluster outlives this process, so that what is created in it has to be removed.
    fn outlives_us(&self) -> bool {
        matches!(self.parts, Parts::Given)
    }
}

/// The `kubectl` that is part of the one binary, or else that of the machine.
fn kubectl(kubeconfig: &Path) -> Command {
    let mut command = match paths::kubernetes() {
        Ok(path) => {
            let mut command = Command::new(path);
            command.arg("kubectl");
            command
        }
        Err(_) => Command::new("kubectl"),
    };
    command.arg("--kubeconfig").arg(kubeconfig);
    command
}

/// Whether this machine has what it takes.
fn can_run(options: &Options) -> Result<(), String> {
    paths::kubernetes()?;
    for program in ["etcd", "openssl"] {
        paths::program(program)?;
    }
    if !options.node {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        return Err("not root, which containers need".to_owned());
    }
    for program in ["containerd", "ctr", "runc", "unshare"] {
        paths::program(program)?;
    }
    for image in ["pause", "simple-job"] {
        paths::image(image)?;
    }
    Ok(())
}
