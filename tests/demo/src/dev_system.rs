//! Runs `dispatcher dev` as a child process: NATS, a local cluster and the dispatcher.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::batch::v1::Job;
use kube::config::{KubeConfigOptions, Kubeconfig};
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

/// Shortens the backoff between attempts, and delays the restart of the dispatcher so that the
/// downtime is visible.
const FLAGS: [&str; 5] =
    ["dev", "--temporary", "--time-scale=0.02", "--restart-delay=3", "--sleep-seconds=1"];
/// How long the start and the stop may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A running `dispatcher dev`. Clones share the process.
#[derive(Clone)]
pub(crate) struct DevSystem {
    pub(crate) nats_url: String,
    jobs: Api<Job>,
    dispatcher: watch::Receiver<Dispatcher>,
    running: Arc<Mutex<Option<Running>>>,
}

/// The dispatcher and its cluster, by the output of `dispatcher dev`.
#[derive(Clone, Debug, Default)]
struct Dispatcher {
    kubeconfig: Option<PathBuf>,
    pid: Option<i32>,
    starts: usize,
}

/// The process, and the resources that it needs.
struct Running {
    child: Child,
    reading: JoinSet<()>,
    _guard: Guard,
    _folder: TempDir,
}

impl DevSystem {
    pub(crate) async fn start(screen: &Screen) -> Result<Self, String> {
        let begin = Instant::now();
        let (nats, api) = free_ports().map_err(|error| format!("cannot find free ports: {error}"))?;
        let mut command = Command::new(sibling_program("dispatcher")?);
        command.args(FLAGS).arg(format!("--nats-port={nats}")).arg(format!("--api-port={api}"));
        command.arg("--templates").arg(workspace().join("deploy/templates"));
        // In its own process group, so that Ctrl-C reaches only the demo, which stops it.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let folder =
            tempfile::tempdir().map_err(|error| format!("cannot create a temporary folder: {error}"))?;
        let guard =
            Guard::start(folder.path()).map_err(|error| format!("cannot start the guard: {error}"))?;
        let mut child = command.spawn().map_err(|error| format!("cannot start dispatcher dev: {error}"))?;
        if let Some(pid) = pid_of(&child) {
            guard.watch(pid);
        }
        let (sender, mut dispatcher) = watch::channel(Dispatcher::default());
        let mut reading = JoinSet::new();
        if let Some(stdout) = child.stdout.take() {
            reading.spawn(read_output(stdout, sender));
        }
        let running = Running { child, reading, _guard: guard, _folder: folder };
        let running = Arc::new(Mutex::new(Some(running)));
        match timeout(TIMEOUT, dispatcher.wait_for(|dispatcher| dispatcher.pid.is_some())).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err("`dispatcher dev` exited; the reason is above".to_owned()),
            Err(_) => return Err(format!("`dispatcher dev` is not ready after {} s", TIMEOUT.as_secs())),
        }
        screen.note(&format!(
            "`dispatcher dev` is ready after {:.1} s: NATS, a local cluster and the dispatcher",
            begin.elapsed().as_secs_f64()
        ));
        let kubeconfig = dispatcher.borrow().kubeconfig.clone();
        let client = client(kubeconfig.as_deref().ok_or("the output has no kubeconfig")?).await?;
        let jobs = Api::namespaced(client, "jobs");
        Ok(Self { nats_url: format!("nats://127.0.0.1:{nats}"), jobs, dispatcher, running })
    }

    /// The Jobs in the local cluster.
    pub(crate) fn jobs(&self) -> &Api<Job> {
        &self.jobs
    }

    /// Kills the dispatcher with SIGKILL and returns its process id.
    pub(crate) fn kill_dispatcher(&self) -> Result<i32, String> {
        let pid = self.dispatcher.borrow().pid.ok_or("the dispatcher has no process id")?;
        let process = Pid::from_raw(pid).ok_or("the dispatcher has no process id")?;
        kill_process(process, Signal::KILL).map_err(|error| format!("kill -9 {pid}: {error}"))?;
        Ok(pid)
    }

    /// The number of starts of the dispatcher.
    pub(crate) fn dispatcher_starts(&self) -> usize {
        self.dispatcher.borrow().starts
    }

    /// Waits for the next start of the dispatcher. The deadline of the demo limits the wait.
    pub(crate) async fn until_restarted(&self, starts: usize) {
        // Fails if `dispatcher dev` has exited; the summary then shows what is missing.
        let _ = self.dispatcher.clone().wait_for(|dispatcher| dispatcher.starts > starts).await;
    }

    /// Stops all processes.
    pub(crate) async fn stop(&self) {
        let Some(mut running) = self.running.lock().await.take() else { return };
        if let Some(pid) = pid_of(&running.child) {
            let _ = kill_process(pid, Signal::TERM);
        }
        // Dropping the child kills it if it has not exited in time.
        let _ = timeout(TIMEOUT, running.child.wait()).await;
        running.reading.abort_all();
    }
}

fn pid_of(child: &Child) -> Option<Pid> {
    child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
}

/// A client with the credentials of a kubeconfig.
async fn client(kubeconfig: &Path) -> Result<Client, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", kubeconfig.display());
    let parsed = Kubeconfig::read_from(kubeconfig).map_err(|error| failed(&error))?;
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(parsed, &options).await.map_err(|error| failed(&error))?;
    Client::try_from(config).map_err(|error| failed(&error))
}

/// Reads the output of `dispatcher dev`, which has the path of the kubeconfig, and the process id of
/// the dispatcher after each start.
async fn read_output(stdout: ChildStdout, sender: watch::Sender<Dispatcher>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(path) = line.strip_prefix("Kubeconfig: ") {
            sender.send_modify(|dispatcher| dispatcher.kubeconfig = Some(path.into()));
        }
        if let Some(pid) = dispatcher_pid(&line) {
            sender.send_modify(|dispatcher| {
                dispatcher.pid = Some(pid);
                dispatcher.starts += 1;
            });
        }
    }
}

/// The process id in a line with `kill -9 4711`.
fn dispatcher_pid(line: &str) -> Option<i32> {
    let (before, rest) = line.split_once("kill -9 ")?;
    if before.contains("nats-server") {
        return None;
    }
    let end = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
    rest.get(..end)?.parse().ok()
}

/// Two ports that are currently unused.
fn free_ports() -> std::io::Result<(u16, u16)> {
    let (a, b) = (TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?, TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?);
    Ok((a.local_addr()?.port(), b.local_addr()?.port()))
}

/// The path of a program in the folder of this one.
fn sibling_program(name: &str) -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| format!("cannot get the path of the demo: {error}"))?;
    let path = own.with_file_name(name);
    path.is_file()
        .then_some(path)
        .ok_or_else(|| format!("program `{name}` is missing; build it with `make demo`"))
}

/// The root of the repository.
fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).map_or_else(PathBuf::new, Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::dispatcher_pid;

    #[test]
    fn dispatcher_pid_is_read_from_the_kill_command() {
        assert_eq!(dispatcher_pid("  kill -9 4711     # the dispatcher"), Some(4711));
        assert_eq!(dispatcher_pid("── restarted the dispatcher (kill -9 8)"), Some(8));
        assert_eq!(dispatcher_pid("── restarted nats-server (kill -9 8)"), None);
        assert_eq!(dispatcher_pid("kill -9 x"), None);
    }
}
