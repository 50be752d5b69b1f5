//! The Kubernetes of the tests: one that `testbed kubernetes` runs, the one of `TEST_KUBECONFIG`,
//! or the local cluster (`TEST_CLUSTER=local`).

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
use crate::wait::TIMEOUT;
use crate::{paths, process};
pub use local::Local;
pub use namespace::Namespace;

/// The components of a Kubernetes of the testbed.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Options {
    /// Whether it has a node (containerd and a kubelet), so that pods run. Needs root.
    pub node: bool,
    /// Whether controllers get the rate limits that hundreds of concurrent Jobs need.
    pub raised_limits: bool,
    /// Further arguments of the API server.
    pub apiserver_args: Vec<String>,
    /// Further arguments of the controller manager.
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
    backend: Backend,
}

/// What runs the cluster.
#[derive(Debug)]
enum Backend {
    /// The cluster of `TEST_KUBECONFIG`, which tests must not break.
    External,
    Testbed {
        helper: Helper,
        folder: PathBuf,
        etcd: String,
    },
    Local(Local),
}

/// Whether the tests run on the local cluster: `TEST_CLUSTER` is `local` (default: `kubernetes`).
///
/// # Panics
/// At any other value.
#[must_use]
pub fn is_local() -> bool {
    match std::env::var("TEST_CLUSTER").as_deref() {
        Ok("local") => true,
        Ok("kubernetes" | "") | Err(_) => false,
        Ok(other) => panic!("TEST_CLUSTER={other}: allowed are `local` and `kubernetes`"),
    }
}

impl Kubernetes {
    /// The shared cluster of this test process, with a node. The first call starts it.
    ///
    /// # Errors
    /// If this machine cannot run it; names the missing program.
    ///
    /// # Panics
    /// If this machine can run it, but it does not start.
    pub async fn shared() -> Result<&'static Self, String> {
        static SHARED: OnceCell<Result<Kubernetes, String>> = OnceCell::const_new();
        if let Some(path) = std::env::var_os("TEST_KUBECONFIG").filter(|path| !path.is_empty()) {
            let given = || async { Ok(Self { kubeconfig: path.into(), backend: Backend::External }) };
            return SHARED.get_or_init(given).await.as_ref().map_err(Clone::clone);
        }
        let options = Options { node: true, ..Options::default() };
        if !is_local() {
            can_run(&options)?;
        }
        let shared = SHARED.get_or_init(|| Self::start(&options)).await;
        Ok(shared.as_ref().unwrap_or_else(|error| panic!("Kubernetes: {error}")))
    }

    /// A control plane for one test, without a node. Its components can be killed, frozen and
    /// restarted.
    ///
    /// # Errors
    /// If this machine cannot run it; names the missing program.
    ///
    /// # Panics
    /// If this machine can run it, but it does not start.
    pub async fn control_plane(options: Options) -> Result<Self, String> {
        let options = Options { node: false, ..options };
        if !is_local() {
            can_run(&options)?;
        }
        Ok(Self::start(&options).await.unwrap_or_else(|error| panic!("control plane: {error}")))
    }

    /// A cluster with a node for one test, which can freeze the kubelet and cordon the node.
    ///
    /// # Errors
    /// If this machine cannot run it; names the missing program.
    ///
    /// # Panics
    /// If this machine can run it, but it does not start.
    pub async fn with_node() -> Result<Self, String> {
        let options = Options { node: true, ..Options::default() };
        if !is_local() {
            can_run(&options)?;
        }
        Ok(Self::start(&options).await.unwrap_or_else(|error| panic!("cluster: {error}")))
    }

    async fn start(options: &Options) -> Result<Self, String> {
        if is_local() {
            let local = Local::start(options.node)?;
            return Ok(Self { kubeconfig: local.kubeconfig().to_owned(), backend: Backend::Local(local) });
        }
        let options = serde_json::to_string(options).expect("the options serialize");
        let (helper, ready) = Helper::start(&["kubernetes", &options], &[], TIMEOUT).await?;
        let text = |key: &str| ready[key].as_str().map(PathBuf::from).ok_or(format!("no {key} in {ready}"));
        Ok(Self {
            kubeconfig: text("kubeconfig")?,
            backend: Backend::Testbed {
                helper,
                folder: text("folder")?,
                etcd: ready["etcd"].as_str().unwrap_or_default().to_owned(),
            },
        })
    }

    /// The kubeconfig of an administrator.
    #[must_use]
    pub fn kubeconfig_path(&self) -> &Path {
        &self.kubeconfig
    }

    /// The folder with the components' logs, if the testbed started them.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        match &self.backend {
            Backend::Testbed { folder, .. } => Some(folder),
            Backend::External | Backend::Local(_) => None,
        }
    }

    /// A new client of an administrator, for the runtime of the caller. Faults of the local cluster
    /// do not affect it.
    #[must_use]
    pub fn client(&self) -> Client {
        if let Some(local) = self.local() {
            return local.cluster().internal_client("default");
        }
        ready::client(&self.kubeconfig).expect("a valid kubeconfig")
    }

    /// Runs `kubectl` as an administrator and returns its output.
    ///
    /// # Errors
    /// If it fails, with its stderr.
    pub async fn kubectl<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<String, String> {
        let mut command = kubectl(&self.kubeconfig);
        command.args(args);
        let output =
            tokio::task::spawn_blocking(move || command.output()).await.expect("kubectl does not panic");
        let output = output.map_err(|error| format!("kubectl: {error}"))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// Applies CRDs from a file or a folder and waits until they are established.
    pub async fn create_crds(&self, path: &Path) -> Result<(), String> {
        let path = path.display().to_string();
        self.kubectl(&["apply", "--server-side", "-f", &path]).await?;
        self.kubectl(&["wait", "--for=condition=Established", "--timeout=120s", "-f", &path]).await.map(drop)
    }

    /// Deletes the objects of an overlay and waits until they are gone. It keeps the CRDs: other
    /// tests of the cluster use them.
    pub async fn delete_overlay(&self, overlay: &Path) -> Result<(), String> {
        let mut objects = crate::manifests::kustomize(overlay).await?;
        objects.retain(|object| object["kind"] != "CustomResourceDefinition");
        let folder = self.temp_dir()?;
        let file = folder.path().join("objects.json");
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
        std::fs::write(&file, list.to_string()).map_err(|error| format!("{}: {error}", file.display()))?;
        let file = file.display().to_string();
        self.kubectl(&["delete", "--timeout=120s", "--ignore-not-found", "-f", &file]).await.map(drop)
    }

    /// Creates a namespace with the `ServiceAccounts` and Roles of `deploy/`.
    pub async fn namespace(&self) -> Namespace {
        Namespace::create(self).await.unwrap_or_else(|error| panic!("create a namespace: {error}"))
    }

    /// The local cluster, if it is one.
    #[must_use]
    pub fn local(&self) -> Option<&Local> {
        match &self.backend {
            Backend::Local(local) => Some(local),
            Backend::External | Backend::Testbed { .. } => None,
        }
    }

    /// Kills the API server (SIGKILL). The local cluster breaks and refuses all connections.
    pub async fn kill_apiserver(&self) {
        match self.local() {
            Some(local) => local.faults().refuse_connections(true),
            None => drop(self.helper().must("kill apiserver").await),
        }
    }

    /// Restarts the API server on the same port and waits until it is ready.
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

    /// Restarts etcd with its data and waits until the API server is ready.
    pub async fn start_etcd(&self) {
        self.helper().must("start etcd").await;
    }

    /// Freezes `apiserver`, `etcd`, `controller-manager`, `scheduler` or `kubelet` (SIGSTOP).
    pub async fn freeze(&self, component: &str) {
        self.helper().must(&format!("stop {component}")).await;
    }

    /// Resumes a frozen component (SIGCONT).
    pub async fn resume(&self, component: &str) {
        self.helper().must(&format!("cont {component}")).await;
    }

    /// The process id of a component of the testbed, such as `apiserver`.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn pid(&self, component: &str) -> Result<u32, String> {
        let answer = self.helper().call(&format!("pid {component}")).await?;
        // The components have a namespace of their own.
        let inner = answer["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        let pid = inner.and_then(|inner| process::outer_pid(self.helper().id(), inner));
        pid.ok_or_else(|| format!("no process of {component}: {answer}"))
    }

    /// The URL of the testbed's etcd.
    #[must_use]
    pub fn etcd(&self) -> Option<&str> {
        match &self.backend {
            Backend::Testbed { etcd, .. } => Some(etcd),
            Backend::External | Backend::Local(_) => None,
        }
    }

    /// Compacts etcd: a watch from an older resourceVersion gets 410 `Gone`, once the API server
    /// has restarted and lost its watch cache. The local cluster drops its history.
    pub async fn compact_etcd(&self) {
        match self.local() {
            Some(local) => local.faults().forget_history(),
            None => drop(self.helper().must("compact").await),
        }
    }

    /// Imports an image of `tests/images/build` into the testbed's node.
    pub async fn import_image(&self, image: &str) {
        self.helper().must(&format!("import {image}")).await;
    }

    /// A new folder; the testbed deletes it even if this process is killed.
    fn temp_dir(&self) -> Result<tempfile::TempDir, String> {
        match self.folder() {
            Some(folder) => {
                tempfile::tempdir_in(folder).map_err(|error| format!("{}: {error}", folder.display()))
            }
            None => paths::temp_dir("namespace"),
        }
    }

    fn helper(&self) -> &Helper {
        match &self.backend {
            Backend::Testbed { helper, .. } => helper,
            Backend::External | Backend::Local(_) => {
                panic!("only a Kubernetes of the testbed has this component")
            }
        }
    }

    /// Whether the cluster outlives this process, so that its objects must be deleted.
    fn outlives_us(&self) -> bool {
        matches!(self.backend, Backend::External)
    }
}

/// The `kubectl` of the testbed's binary, or else that of the machine.
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

/// Checks that this machine can run the cluster.
fn can_run(options: &Options) -> Result<(), String> {
    paths::kubernetes()?;
    paths::etcd()?;
    paths::program("openssl")?;
    if !options.node {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        return Err("containers need root".to_owned());
    }
    for program in ["containerd", "ctr", "runc", "unshare"] {
        paths::program(program)?;
    }
    for image in ["pause", "simple-job"] {
        paths::image(image)?;
    }
    Ok(())
}
