//! One NATS server of a test: alone or in a cluster.

use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal};

use crate::helper::{Helper, Program};
use crate::wait::TIMEOUT;

/// A server; it ends when this is dropped.
#[derive(Debug)]
pub struct Node {
    /// Its name in a cluster.
    pub name: String,
    /// Its URL, the same after a restart.
    pub url: String,
    /// The address of its monitoring endpoint, if it has one: `127.0.0.1:PORT`.
    pub(super) monitor: Option<String>,
    pub(super) helper: Helper,
    /// The folder of a process.
    pub(super) folder: Option<tempfile::TempDir>,
}

impl Node {
    /// Starts a process with its store and log in `folder`; does not wait until it answers.
    pub(super) async fn process(
        name: &str,
        port: u16,
        monitor: Option<u16>,
        folder: tempfile::TempDir,
        (path, args, env): (PathBuf, Vec<String>, Vec<(String, String)>),
    ) -> Result<Self, String> {
        let store = folder.path().join("store").display().to_string();
        let port_text = port.to_string();
        let args = with_store_limit(folder.path(), args)?;
        let own = ["--jetstream", "--store_dir", &store, "--addr", "127.0.0.1", "--port", &port_text];
        let program = Program {
            name: "nats".to_owned(),
            path,
            args: own.iter().map(ToString::to_string).chain(args).collect(),
            env,
            log: folder.path().join("nats.log"),
            folder: Some(folder.path().to_owned()),
        };
        let program = serde_json::to_string(&program).expect("the program serializes");
        let (helper, _) = Helper::start(&["run", &program], &[], TIMEOUT).await?;
        let (name, url) = (name.to_owned(), format!("nats://127.0.0.1:{port}"));
        let monitor = monitor.map(|port| format!("127.0.0.1:{port}"));
        Ok(Self { name, url, monitor, helper, folder: Some(folder) })
    }

    /// The log of a process.
    #[must_use]
    pub fn log(&self) -> String {
        let path = self.folder.as_ref().map(|folder| folder.path().join("nats.log")).unwrap_or_default();
        String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
    }

    /// Kills it (SIGKILL). Writes that are not synced survive, since the machine stays up.
    pub async fn kill(&self) {
        self.helper.must("kill nats").await;
    }

    /// Sends SIGTERM and waits for the exit, as an orderly restart does.
    pub async fn terminate(&self) {
        self.helper.must("term nats").await;
        self.ended().await;
    }

    /// Starts lame duck mode (SIGUSR2): it disconnects its clients, transfers its leaderships and
    /// exits.
    pub async fn lame_duck(&self) {
        self.signal(Signal::USR2).await;
    }

    /// Waits for the exit.
    pub async fn ended(&self) {
        self.helper.must("wait nats").await;
    }

    /// Restarts it with the same port and store; does not wait until it answers.
    pub async fn start(&self) {
        self.helper.must("start nats").await;
    }

    /// Deletes the store of a process that has exited.
    pub fn lose_store(&self) {
        let folder = self.folder.as_ref().expect("the server is a process").path().join("store");
        std::fs::remove_dir_all(folder).expect("the store exists");
    }

    /// Freezes it (SIGSTOP): connections stay open, but nothing answers.
    pub async fn freeze(&self) {
        self.helper.must("stop nats").await;
    }

    /// Resumes it after a freeze (SIGCONT).
    pub async fn resume(&self) {
        self.helper.must("cont nats").await;
    }

    /// Makes a process reload its configuration (SIGHUP).
    pub async fn reload(&self) {
        self.signal(Signal::HUP).await;
    }

    /// The process id.
    ///
    /// # Panics
    /// If the server does not run as a process.
    pub async fn pid(&self) -> u32 {
        let pid = self.helper.must("pid").await["pid"].as_u64();
        pid.and_then(|pid| pid.try_into().ok()).expect("a pid")
    }

    async fn signal(&self, signal: Signal) {
        let pid = self.pid().await.try_into().ok().and_then(Pid::from_raw).expect("a pid");
        rustix::process::kill_process(pid, signal).expect("the server runs");
    }
}

/// The store of a server, in its configuration. By default, it is three quarters of the free disk,
/// which may be less than the streams reserve.
pub const STORE_LIMIT: &str = "jetstream {max_file_store: 8GB}\n";

/// Limits the store in a configuration that includes the one in `args`.
fn with_store_limit(folder: &Path, args: Vec<String>) -> Result<Vec<String>, String> {
    let (mut own, mut rest) = (STORE_LIMIT.to_owned(), vec![]);
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        if arg == "--config" {
            // The server resolves paths relative to the including file.
            let up = "../".repeat(folder.components().count().saturating_sub(1));
            let included = args.next().unwrap_or_default();
            own.push_str(&format!("include \"{up}{}\"\n", included.trim_start_matches('/')));
        } else {
            rest.push(arg);
        }
    }
    let config = folder.join("store.conf");
    std::fs::write(&config, own).map_err(|error| format!("{}: {error}", config.display()))?;
    rest.extend(["--config".to_owned(), config.display().to_string()]);
    Ok(rest)
}
