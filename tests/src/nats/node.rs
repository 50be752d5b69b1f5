//! One NATS server of a test: alone, or one of a cluster.

use rustix::process::{Pid, Signal};

use crate::helper::{Helper, Program};
use crate::paths;
use crate::wait::TIMEOUT;

/// A server; it ends when this is dropped.
#[derive(Debug)]
pub struct Node {
    /// Its name in a cluster.
    pub name: String,
    /// Its own URL, the same after a restart.
    pub url: String,
    /// Where its monitoring is, if it has any: `127.0.0.1:PORT`.
    pub(super) monitor: Option<String>,
    pub(super) helper: Helper,
    /// Of a plain process.
    pub(super) folder: Option<tempfile::TempDir>,
}

impl Node {
    /// A plain process with its store and its log in `folder`; does not wait until it answers.
    pub(super) async fn process(
        name: &str,
        port: u16,
        monitor: Option<u16>,
        folder: tempfile::TempDir,
        (args, env): (Vec<String>, Vec<(String, String)>),
    ) -> Result<Self, String> {
        let store = folder.path().join("store").display().to_string();
        let port_text = port.to_string();
        let own = ["--jetstream", "--store_dir", &store, "--addr", "127.0.0.1", "--port", &port_text];
        let program = Program {
            name: "nats".to_owned(),
            path: paths::nats_server()?,
            args: own.iter().map(ToString::to_string).chain(args).collect(),
            env,
            log: folder.path().join("nats.log"),
            folder: Some(folder.path().to_owned()),
        };
        let program = serde_json::to_string(&program).expect("plain data");
        let (helper, _) = Helper::start(&["run", &program], &[], TIMEOUT).await?;
        let (name, url) = (name.to_owned(), format!("nats://127.0.0.1:{port}"));
        let monitor = monitor.map(|port| format!("127.0.0.1:{port}"));
        Ok(Self { name, url, monitor, helper, folder: Some(folder) })
    }

    /// What a plain process has logged.
    #[must_use]
    pub fn log(&self) -> String {
        let path = self.folder.as_ref().map(|folder| folder.path().join("nats.log")).unwrap_or_default();
        String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
    }

    /// Kills it (SIGKILL). What it had not written yet is lost only with the machine, not with the process.
    pub async fn kill(&self) {
        self.helper.must("kill nats").await;
    }

    /// Asks it to end (SIGTERM), and waits for its end: what it does at an orderly restart.
    pub async fn terminate(&self) {
        self.helper.must("term nats").await;
        self.ended().await;
    }

    /// Lets a plain process go into lame duck mode (SIGUSR2): it sends its clients away, hands over what it leads, and ends.
    pub async fn lame_duck(&self) {
        self.signal(Signal::USR2).await;
    }

    /// Waits for its end.
    pub async fn ended(&self) {
        self.helper.must("wait nats").await;
    }

    /// Starts it again after its end: the same port, the same store; does not wait until it answers.
    pub async fn start(&self) {
        self.helper.must("start nats").await;
    }

    /// Loses the disk of a plain process that does not run.
    pub fn lose_store(&self) {
        let folder = self.folder.as_ref().expect("a plain process").path().join("store");
        std::fs::remove_dir_all(folder).expect("its store is there");
    }

    /// Freezes it (SIGSTOP): connections stay open and nothing answers.
    pub async fn stop(&self) {
        self.helper.must("stop nats").await;
    }

    /// Lets a frozen one go on.
    pub async fn cont(&self) {
        self.helper.must("cont nats").await;
    }

    /// Lets a plain process read its configuration anew (SIGHUP).
    pub async fn reload(&self) {
        self.signal(Signal::HUP).await;
    }

    async fn signal(&self, signal: Signal) {
        let pid = self.helper.must("pid").await["pid"].as_i64();
        let pid = pid.and_then(|pid| Pid::from_raw(pid.try_into().ok()?)).expect("a pid");
        rustix::process::kill_process(pid, signal).expect("it runs");
    }
}
