//! A NATS server with JetStream for one test: in a container where there is an engine, else a plain process.

use std::io::Write;
use std::sync::Once;

use async_nats::{ConnectOptions, jetstream};
use rustix::process::{Pid, Signal};

use crate::docker::Docker;
use crate::helper::{Helper, Program};
use crate::kubernetes::is_local;
use crate::wait::{PATIENCE, try_until};
use crate::{paths, ports};

/// A running server; it ends when this is dropped.
#[derive(Debug)]
pub struct Nats {
    /// The URL of the server, the same after a restart.
    pub url: String,
    helper: Helper,
    in_container: bool,
    options: ConnectOptions,
    folder: Option<tempfile::TempDir>,
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

    /// A plain process with settings of its own.
    pub async fn process_of(setup: Setup) -> Self {
        let start = async {
            let port = ports::free();
            let folder = paths::temp_dir("nats")?;
            let store = folder.path().join("store").display().to_string();
            let port_text = port.to_string();
            let own = ["--jetstream", "--store_dir", &store, "--addr", "127.0.0.1", "--port", &port_text];
            let program = Program {
                name: "nats".to_owned(),
                path: paths::nats_server()?,
                args: own.iter().map(ToString::to_string).chain(setup.args).collect(),
                env: setup.env,
                log: folder.path().join("nats.log"),
                folder: Some(folder.path().to_owned()),
            };
            let program = serde_json::to_string(&program).expect("plain data");
            let (helper, _) = Helper::start(&["run", &program], &[], PATIENCE).await?;
            Self::ready(helper, port, Some(folder), setup.options).await
        };
        start.await.unwrap_or_else(|error: String| panic!("a NATS server: {error}"))
    }

    async fn container(docker: &Docker) -> Result<Self, String> {
        let port = ports::free();
        let mut env = vec![("DOCKER_HOST", docker.host.as_str())];
        if docker.ours {
            env.push(("RIG_OWN_ENGINE", "1"));
        }
        let (helper, _) = Helper::start(&["nats", &port.to_string()], &env, PATIENCE).await?;
        Self::ready(helper, port, None, ConnectOptions::default()).await
    }

    async fn ready(
        helper: Helper,
        port: u16,
        folder: Option<tempfile::TempDir>,
        options: ConnectOptions,
    ) -> Result<Self, String> {
        let url = format!("nats://127.0.0.1:{port}");
        let nats = Self { url, helper, in_container: folder.is_none(), options, folder };
        nats.until_ready().await.map(|()| nats)
    }

    /// Waits until JetStream answers.
    async fn until_ready(&self) -> Result<(), String> {
        try_until("JetStream to answer", PATIENCE, || async {
            let client = self.options.clone().connect(&self.url).await.map_err(|error| error.to_string())?;
            let account = jetstream::new(client).query_account().await;
            account.map(drop).map_err(|error| error.to_string())
        })
        .await
    }

    /// A new client.
    pub async fn client(&self) -> async_nats::Client {
        self.options.clone().connect(&self.url).await.unwrap_or_else(|error| panic!("{}: {error}", self.url))
    }

    /// Whether it runs in a container.
    #[must_use]
    pub fn in_container(&self) -> bool {
        self.in_container
    }

    /// What a plain process has logged.
    #[must_use]
    pub fn log(&self) -> String {
        let path = self.folder.as_ref().map(|folder| folder.path().join("nats.log")).unwrap_or_default();
        String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
    }

    /// Lets a plain process read its configuration anew (SIGHUP).
    pub async fn reload(&self) {
        let pid = self.helper.must("pid").await["pid"].as_i64();
        let pid = pid.and_then(|pid| Pid::from_raw(pid.try_into().ok()?)).expect("a pid");
        rustix::process::kill_process(pid, Signal::HUP).expect("it runs");
    }

    /// Kills the server (SIGKILL). What it had not written yet is lost only with the machine, not with the process.
    pub async fn kill(&self) {
        self.helper.must("kill nats").await;
    }

    /// Starts the killed server again: the same port, the same store.
    pub async fn restart(&self) {
        self.helper.must("start nats").await;
        self.until_ready().await.unwrap_or_else(|error| panic!("after a restart: {error}"));
    }

    /// Freezes the server: connections stay open and nothing answers.
    pub async fn pause(&self) {
        self.helper.must("stop nats").await;
    }

    /// Lets a frozen server go on.
    pub async fn unpause(&self) {
        self.helper.must("cont nats").await;
    }
}
