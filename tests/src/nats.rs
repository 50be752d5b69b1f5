//! A NATS with JetStream for one test: a server in a container where there is an engine, else a plain process; or three plain
//! processes that are one cluster.

mod cluster;
mod node;

use std::io::Write;
use std::sync::Once;
use std::time::Duration;

use async_nats::{ConnectOptions, jetstream};
use futures::future::join_all;

pub use self::node::Node;
use crate::docker::Docker;
use crate::helper::Helper;
use crate::kubernetes::is_local;
use crate::wait::{TIMEOUT, try_until};
use crate::{paths, ports};

/// Between two tries of a test's client to connect again.
const RECONNECT: Duration = Duration::from_millis(100);

/// What runs; it ends when this is dropped.
#[derive(Debug)]
pub struct Nats {
    /// The URLs of all servers, separated by commas, the same after a restart.
    pub url: String,
    /// The servers: one, or those of a cluster.
    pub nodes: Vec<Node>,
    in_container: bool,
    options: ConnectOptions,
}

/// How a server is started as a plain process, and how one logs in to it.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Further arguments of `nats-server`: a configuration, for one.
    pub args: Vec<String>,
    /// Additions to its environment.
    pub env: Vec<(String, String)>,
    /// How the clients of [`Nats::client`] connect; they must be let in, and have JetStream.
    pub options: ConnectOptions,
}

impl Nats {
    /// A server of the test's own, in a container if that can be; says so once, loudly, if it cannot.
    ///
    /// # Panics
    /// With `CI=true` in place of saying so.
    pub async fn start() -> Self {
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
        assert!(std::env::var("CI").as_deref() != Ok("true"), "NATS cannot run in a container: {reason}");
        static SAID: Once = Once::new();
        SAID.call_once(|| {
            // Not `eprintln!`: the test harness would keep it from the reader.
            let _ = writeln!(
                std::io::stderr(),
                "\n*** NATS RUNS AS A PLAIN PROCESS IN THESE TESTS, not in a container: {reason}\n"
            );
        });
        Self::process().await
    }

    /// A server as a plain process: for tests that do not mind which, and are cheaper so.
    pub async fn process() -> Self {
        Self::process_with(&[]).await
    }

    /// A plain process with further arguments of `nats-server`, a configuration for one.
    pub async fn process_with(args: &[&str]) -> Self {
        let args = args.iter().map(ToString::to_string).collect();
        Self::process_of(Setup { args, ..Setup::default() }).await
    }

    /// A plain process that leaves soon in lame duck mode.
    pub async fn lame_duck() -> Self {
        Self::process_configured(cluster::LAME_DUCK).await
    }

    /// A plain process with a configuration, which [`Nats::configure`] can change.
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

    /// A plain process with settings of its own.
    pub async fn process_of(setup: Setup) -> Self {
        let start = async { Self::in_folder(paths::temp_dir("nats")?, setup).await };
        start.await.unwrap_or_else(|error: String| panic!("a NATS server: {error}"))
    }

    async fn in_folder(folder: tempfile::TempDir, setup: Setup) -> Result<Self, String> {
        let node = Node::process("nats", ports::free(), None, folder, (setup.args, setup.env)).await?;
        Self::ready(node, false, setup.options).await
    }

    async fn container(docker: &Docker) -> Result<Self, String> {
        let port = ports::free();
        let mut env = vec![("DOCKER_HOST", docker.host.as_str())];
        if docker.ours {
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

    /// Waits until JetStream answers.
    pub async fn until_ready(&self) -> Result<(), String> {
        try_until("JetStream to answer", TIMEOUT, || async {
            let client = self.try_client().await?;
            let account = jetstream::new(client).query_account().await;
            account.map(drop).map_err(|error| error.to_string())
        })
        .await
    }

    /// A new client, which knows all servers.
    pub async fn client(&self) -> async_nats::Client {
        self.try_client().await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Like [`Nats::client`], with an error in place of a panic.
    pub async fn try_client(&self) -> Result<async_nats::Client, String> {
        let urls: Vec<&str> = self.url.split(',').collect();
        // What a test measures is not its own client's patience.
        let options = self.options.clone().reconnect_delay_callback(|_| RECONNECT);
        options.connect(urls).await.map_err(|error| format!("{}: {error}", self.url))
    }

    /// Whether it runs in a container.
    #[must_use]
    pub fn in_container(&self) -> bool {
        self.in_container
    }

    /// What plain processes have logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.nodes.iter().map(Node::log).collect()
    }

    /// Lets plain processes read their configuration anew (SIGHUP).
    pub async fn reload(&self) {
        join_all(self.nodes.iter().map(Node::reload)).await;
    }

    /// Lets the server of [`Nats::process_configured`] go by another configuration.
    pub async fn configure(&self, config: &str) {
        let folder = self.nodes[0].folder.as_ref().expect("a plain process").path();
        std::fs::write(folder.join("nats.conf"), config).expect("its folder is there");
        self.reload().await;
    }

    /// Kills all servers (SIGKILL). What they had not written yet is lost only with the machine, not with the process.
    pub async fn kill(&self) {
        join_all(self.nodes.iter().map(Node::kill)).await;
    }

    /// Starts all again after their end, and waits until JetStream answers: the same ports, the same stores.
    pub async fn restart(&self) {
        join_all(self.nodes.iter().map(Node::start)).await;
        self.until_ready().await.unwrap_or_else(|error| panic!("after a restart: {error}"));
    }

    /// Freezes all servers: connections stay open and nothing answers.
    pub async fn pause(&self) {
        join_all(self.nodes.iter().map(Node::stop)).await;
    }

    /// Lets frozen servers go on.
    pub async fn unpause(&self) {
        join_all(self.nodes.iter().map(Node::cont)).await;
    }
}
