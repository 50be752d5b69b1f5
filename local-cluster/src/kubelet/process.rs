//! A container's process, in its own process group. The whole group ends with it.

use std::{io, path::Path, process::Stdio, sync::Arc, time::Duration};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::{
    process::{Child, Command},
    task::JoinSet,
    time::timeout,
};

use super::{command::ContainerCommand, guard::Guard, log_buffer::LogBuffer};

/// The time that a process outside the group may keep the output open after the main process.
const OUTPUT_DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// The exit code of a process that signal `n` ended is this value plus `n`.
const SIGNAL_EXIT_BASE: i32 = 128;

/// A running process with its descendants. Dropping it kills the process group.
pub(super) struct Process {
    child: Child,
    group: Pid,
    /// The tasks that copy the output to the log.
    output: JoinSet<()>,
    log: Arc<LogBuffer>,
    guard: Guard,
    /// The group has ended, and the kernel may reuse its id.
    ended: bool,
}

impl Process {
    /// Starts `command` and copies its output to `log`. `folder` is the default working directory.
    pub(super) fn start(
        command: &ContainerCommand,
        folder: &Path,
        log: Arc<LogBuffer>,
        guard: Guard,
    ) -> io::Result<Self> {
        let mut child = Command::new(&command.program)
            .args(&command.arguments)
            .env_clear()
            .envs(&command.environment)
            .current_dir(command.folder.as_deref().unwrap_or(folder))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let group = group.ok_or_else(|| io::Error::other("the process has no id"))?;
        guard.watch(group);
        let mut output = JoinSet::new();
        if let Some(stdout) = child.stdout.take() {
            let log = log.clone();
            output.spawn(async move { log.fill(stdout).await });
        }
        if let Some(stderr) = child.stderr.take() {
            let log = log.clone();
            output.spawn(async move { log.fill(stderr).await });
        }
        Ok(Self { child, group, output, log, guard, ended: false })
    }

    /// The process group.
    pub(super) fn group(&self) -> Pid {
        self.group
    }

    /// Sends SIGTERM to the main process only, as a container runtime does.
    pub(super) fn terminate(&self) {
        // A process that was reaped has no id. A process that has just ended ignores the signal.
        if self.child.id().is_some() {
            let _ = kill_process(self.group, Signal::TERM);
        }
    }

    /// Sends SIGKILL to the group.
    pub(super) fn kill(&self) {
        if !self.ended {
            kill(self.group);
        }
    }

    /// Waits for the main process and its output, kills the rest of the group, and returns the exit
    /// code.
    ///
    /// After a signal the exit code is 128 plus the signal number. The method is cancel safe.
    pub(super) async fn wait(&mut self) -> i32 {
        let status = self.child.wait().await;
        self.kill();
        self.ended = true;
        let drained = async { while self.output.join_next().await.is_some() {} };
        if timeout(OUTPUT_DRAIN_TIMEOUT, drained).await.is_err() {
            self.output.abort_all();
        }
        self.log.end();
        match status {
            Ok(status) => exit_code(status),
            Err(error) => {
                tracing::error!(%error, "exit status unknown");
                SIGNAL_EXIT_BASE + Signal::KILL.as_raw()
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        self.log.end();
        self.guard.forget(self.group);
    }
}

/// Sends SIGKILL to a process group.
pub(super) fn kill(group: Pid) {
    // The call fails if the group has already ended.
    let _ = kill_process_group(group, Signal::KILL);
}

fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .or_else(|| status.signal().map(|signal| SIGNAL_EXIT_BASE + signal))
        .unwrap_or(SIGNAL_EXIT_BASE)
}
