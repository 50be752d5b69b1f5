//! What the demo runs on: `dispatcher dev`, as anyone would start it.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::batch::v1::Job;
use kube::{Api, Client, Config};
use local_cluster::kubelet::Guard;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::screen::Screen;

/// What it is started with, beside ports: no wait for a back-off of Kubernetes, and time to see what happens while the
/// dispatcher is down.
const FLAGS: [&str; 5] =
    ["dev", "--temporary", "--time-scale=0.02", "--restart-delay=3", "--sleep-seconds=1"];
/// How long it may take to be ready, and to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// It runs; clones are handles of the same one.
#[derive(Clone)]
pub(crate) struct Stage {
    pub(crate) nats_url: String,
    jobs: Api<Job>,
    dispatcher: watch::Receiver<Dispatcher>,
    running: Arc<Mutex<Option<Running>>>,
}

/// What `dispatcher dev` has said of the dispatcher.
#[derive(Clone, Copy, Debug, Default)]
struct Dispatcher {
    pid: Option<i32>,
    starts: usize,
}

/// The process, and what is needed until its end.
struct Running {
    child: Child,
    reading: JoinSet<()>,
    _guard: Guard,
    _folder: TempDir,
}

impl Stage {
    pub(crate) async fn set(screen: &Screen) -> Result<Self, String> {
        let begin = Instant::now();
        let (nats, api) = free_ports().map_err(|error| format!("free ports: {error}"))?;
        let mut command = Command::new(beside("dispatcher")?);
        command.args(FLAGS).arg(format!("--nats-port={nats}")).arg(format!("--api-port={api}"));
        command.arg("--templates").arg(workspace().join("deploy/templates"));
        // Out of reach of a Ctrl-C at the terminal: it is stopped when the demo is.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let folder = tempfile::tempdir().map_err(|error| format!("temporary folder: {error}"))?;
        let guard = Guard::start(folder.path()).map_err(|error| format!("/bin/sh: {error}"))?;
        let mut child = command.spawn().map_err(|error| format!("dispatcher dev: {error}"))?;
        if let Some(pid) = pid_of(&child) {
            guard.watch(pid);
        }
        let (sender, mut dispatcher) = watch::channel(Dispatcher::default());
        let mut reading = JoinSet::new();
        if let Some(stdout) = child.stdout.take() {
            reading.spawn(read(stdout, sender));
        }
        let running = Running { child, reading, _guard: guard, _folder: folder };
        let running = Arc::new(Mutex::new(Some(running)));
        match timeout(PATIENCE, dispatcher.wait_for(|dispatcher| dispatcher.pid.is_some())).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err("`dispatcher dev` has ended; it says why above".to_owned()),
            Err(_) => return Err(format!("`dispatcher dev` is not ready after {} s", PATIENCE.as_secs())),
        }
        screen.note(&format!(
            "`dispatcher dev` is ready after {:.1} s: NATS, a local cluster, the dispatcher",
            begin.elapsed().as_secs_f64()
        ));
        let url = format!("http://127.0.0.1:{api}");
        let url = url.parse().map_err(|error| format!("{url}: {error}"))?;
        let client = Client::try_from(Config::new(url)).map_err(|error| format!("client: {error}"))?;
        let jobs = Api::namespaced(client, "jobs");
        Ok(Self { nats_url: format!("nats://127.0.0.1:{nats}"), jobs, dispatcher, running })
    }

    /// The Jobs in the cluster, for what is done to them by hand.
    pub(crate) fn jobs(&self) -> &Api<Job> {
        &self.jobs
    }

    /// Kills the dispatcher (SIGKILL), as a lost node would; its process id.
    pub(crate) fn kill_dispatcher(&self) -> Result<i32, String> {
        let pid = self.dispatcher.borrow().pid.ok_or("the dispatcher has no process")?;
        let process = Pid::from_raw(pid).ok_or("the dispatcher has no process")?;
        kill_process(process, Signal::KILL).map_err(|error| format!("kill -9 {pid}: {error}"))?;
        Ok(pid)
    }

    /// How often the dispatcher was started.
    pub(crate) fn starts(&self) -> usize {
        self.dispatcher.borrow().starts
    }

    /// Waits until it was started more often; the caller's deadline ends that.
    pub(crate) async fn until_started_again(&self, starts: usize) {
        // An error: `dispatcher dev` has ended, and the summary tells what is missing.
        let _ = self.dispatcher.clone().wait_for(|dispatcher| dispatcher.starts > starts).await;
    }

    /// Stops everything.
    pub(crate) async fn end(&self) {
        let Some(mut running) = self.running.lock().await.take() else { return };
        if let Some(pid) = pid_of(&running.child) {
            let _ = kill_process(pid, Signal::TERM);
        }
        // Dropped after that, and killed where it has not ended.
        let _ = timeout(PATIENCE, running.child.wait()).await;
        running.reading.abort_all();
    }
}

fn pid_of(child: &Child) -> Option<Pid> {
    child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
}

/// Reads what `dispatcher dev` says: it names the dispatcher's process when it is ready, and after each new start.
async fn read(stdout: ChildStdout, sender: watch::Sender<Dispatcher>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(pid) = process_in(&line) {
            sender.send_modify(|dispatcher| {
                *dispatcher = Dispatcher { pid: Some(pid), starts: dispatcher.starts + 1 };
            });
        }
    }
}

/// The number in `kill -9 4711`.
fn process_in(line: &str) -> Option<i32> {
    let (before, rest) = line.split_once("kill -9 ")?;
    if before.contains("nats-server") {
        return None;
    }
    let end = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
    rest.get(..end)?.parse().ok()
}

/// Two ports that nobody listens on now.
fn free_ports() -> std::io::Result<(u16, u16)> {
    let (a, b) = (TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?, TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?);
    Ok((a.local_addr()?.port(), b.local_addr()?.port()))
}

/// A program that was built with this one.
fn beside(name: &str) -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| format!("own path: {error}"))?;
    let path = own.with_file_name(name);
    path.is_file().then_some(path).ok_or_else(|| format!("no program `{name}` here; `make demo` builds it"))
}

/// The root of the repository.
fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).map_or_else(PathBuf::new, Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::process_in;

    #[test]
    fn the_process_is_read_from_what_a_person_would_type() {
        assert_eq!(process_in("  kill -9 4711     # the dispatcher"), Some(4711));
        assert_eq!(process_in("── restarted the dispatcher (kill -9 8)"), Some(8));
        assert_eq!(process_in("── restarted nats-server (kill -9 8)"), None);
        assert_eq!(process_in("kill -9 x"), None);
    }
}
