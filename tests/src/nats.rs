//! A NATS with `JetStream` for one test: a container if there is an engine, otherwise a process; or a
//! cluster of three processes.

mod cluster;
mod node;
mod raw;

use std::io::Write;
use std::sync::Once;
use std::time::Duration;

use async_nats::{ConnectOptions, jetstream};
use futures::future::join_all;

pub use self::node::{Node, STORE_LIMIT};
pub use self::raw::RawClient;
use crate::docker::Docker;
use crate::helper::Helper;
use crate::kubernetes::is_local;
use crate::wait::{TIMEOUT, try_until};
use crate::{paths, ports};

/// How long a test's client waits before it reconnects.
const RECONNECT_DELAY: Duration = Duration::from_millis(100);

/// One server or a cluster; it ends when this is dropped.
#[derive(Debug)]
pub struct Nats {
    /// The URLs of all servers, separated by commas. They stay the same after a restart.
    pub url: String,
    /// The servers.
    pub nodes: Vec<Node>,
    in_container: bool,
    options: ConnectOptions,
}

/// How to start a server as a process, and how to connect to it.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Further arguments of `nats-server`.
    pub args: Vec<String>,
    /// Additional environment variables.
    pub env: Vec<(String, String)>,
    /// The version of the server; the newest by default.
    pub version: Option<&'static str>,
    /// The options of [`Nats::client`]; its user needs permission for `JetStream`.
    pub options: ConnectOptions,
}

impl Nats {
    /// Starts a server, in a container if possible; otherwise prints a warning once.
    ///
    /// # Panics
    /// With `CI=true`, instead of the warning.
    pub async fn start() -> Self {
        static WARNED: Once = Once::new();
        if is_local() {
            return Self::process().await;
        }
        let reason = match Docker::shared().await {
            Ok(docker) => match Self::container(docker).await {
                Ok(nats) => return nats,
                Err(error) => error,
            },
            Err(error) => error,
        };
        assert!(std::env::var("CI").as_deref() != Ok("true"), "NATS in a container: {reason}");
        WARNED.call_once(|| {
            // The test harness captures `eprintln!`.
            let _ = writeln!(
                std::io::stderr(),
                "\nWARNING: NATS runs as a process, not in a container: {reason}\n"
            );
        });
        Self::process().await
    }

    /// Starts a server as a process, which is faster than a container.
    pub async fn process() -> Self {
        Self::process_with(&[]).await
    }

    /// Starts a process with further arguments of `nats-server`.
    pub async fn process_with(args: &[&str]) -> Self {
        let args = args.iter().map(ToString::to_string).collect();
        Self::process_of(Setup { args, ..Setup::default() }).await
    }

    /// Starts a process of this version, one of [`paths::NATS_VERSIONS`].
    pub async fn process_of_version(version: &'static str) -> Self {
        Self::process_of(Setup { version: Some(version), ..Setup::default() }).await
    }

    /// Starts a process with a short lame duck period.
    pub async fn lame_duck() -> Self {
        Self::process_configured(cluster::LAME_DUCK).await
    }

    /// Starts a process with a configuration that [`Nats::configure`] can change.
    pub async fn process_configured(config: &str) -> Self {
        let start = async {
            let folder = paths::temp_dir("nats")?;
            let file = folder.path().join("nats.conf");
            std::fs::write(&file, config).map_err(|error| format!("{}: {error}", file.display()))?;
            let args = vec!["--config".to_owned(), file.display().to_string()];
            Self::in_folder(folder, Setup { args, ..Setup::default() }).await
        };
        start.await.unwrap_or_else(|error: String| panic!("a NATS server: {error}"))
    }

    /// Starts a process with this setup.
    pub async fn process_of(setup: Setup) -> Self {
        let start = async { Self::in_folder(paths::temp_dir("nats")?, setup).await };
        start.await.unwrap_or_else(|error: String| panic!("a NATS server: {error}"))
    }

    async fn in_folder(folder: tempfile::TempDir, setup: Setup) -> Result<Self, String> {
        let program = paths::nats_server_of(setup.version.unwrap_or(paths::NATS_VERSION))?;
        let setting = (program, setup.args, setup.env);
        let node = Node::process("nats", ports::free(), None, folder, setting).await?;
        Self::ready(node, false, setup.options).await
    }

    async fn container(docker: &Docker) -> Result<Self, String> {
        let port = ports::free();
        let mut env = vec![("DOCKER_HOST", docker.host.as_str())];
        if docker.own {
            env.push(("TESTBED_OWN_ENGINE", "1"));
        }
        let (helper, _) = Helper::start(&["nats", &port.to_string()], &env, TIMEOUT).await?;
        let (name, url) = ("nats".to_owned(), format!("nats://127.0.0.1:{port}"));
        let node = Node { name, url, monitor: None, helper, folder: None };
        Self::ready(node, true, ConnectOptions::default()).await
    }

    async fn ready(node: Node, in_container: bool, options: ConnectOptions) -> Result<Self, String> {
        let nats = Self { url: node.url.clone(), nodes: vec![node], in_container, options };
        nats.until_ready().await.map(|()| nats)
    }

    /// Waits until `JetStream` answers.
    pub async fn until_ready(&self) -> Result<(), String> {
        try_until("JetStream to answer", TIMEOUT, || async {
            let client = self.try_client().await?;
            let account = jetstream::new(client).query_account().await;
            account.map(drop).map_err(|error| error.to_string())
        })
        .await
    }

    /// Connects a new client, which knows all servers.
    pub async fn client(&self) -> async_nats::Client {
        self.try_client().await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Like [`Nats::client`], with an error instead of a panic.
    pub async fn try_client(&self) -> Result<async_nats::Client, String> {
        let urls: Vec<&str> = self.url.split(',').collect();
        // Fast reconnects, so that tests do not measure the delay of their own client.
        let options = self.options.clone().reconnect_delay_callback(|_| RECONNECT_DELAY);
        options.connect(urls).await.map_err(|error| format!("{}: {error}", self.url))
    }

    /// Whether it runs in a container.
    #[must_use]
    pub fn in_container(&self) -> bool {
        self.in_container
    }

    /// The logs of all processes.
    #[must_use]
    pub fn log(&self) -> String {
        self.nodes.iter().map(Node::log).collect()
    }

    /// Makes all processes reload their configuration (SIGHUP).
    pub async fn reload(&self) {
        join_all(self.nodes.iter().map(Node::reload)).await;
    }

    /// Replaces the configuration of a [`Nats::process_configured`] and reloads it.
    pub async fn configure(&self, config: &str) {
        let folder = self.nodes[0].folder.as_ref().expect("the server is a process").path();
        std::fs::write(folder.join("nats.conf"), config).expect("the configuration is written");
        self.reload().await;
    }

    /// Kills all servers (SIGKILL). Writes that are not synced survive, since the machine stays up.
    pub async fn kill(&self) {
        join_all(self.nodes.iter().map(Node::kill)).await;
    }

    /// Restarts all servers with the same ports and stores, and waits until `JetStream` answers.
    pub async fn restart(&self) {
        join_all(self.nodes.iter().map(Node::start)).await;
        self.until_ready().await.unwrap_or_else(|error| panic!("after a restart: {error}"));
    }

    /// Freezes all servers: connections stay open, but nothing answers.
    pub async fn pause(&self) {
        join_all(self.nodes.iter().map(Node::freeze)).await;
    }

    /// Resumes frozen servers.
    pub async fn unpause(&self) {
        join_all(self.nodes.iter().map(Node::resume)).await;
    }
}
