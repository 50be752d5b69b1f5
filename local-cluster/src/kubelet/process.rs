//! A container's process: started in a group of its own, ended with all of that group.

use std::{io, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::{
    process::{Child, Command},
    task::JoinSet,
    time::timeout,
};

use super::{command::ContainerCommand, guard::Guard, log_buffer::LogBuffer};

/// How long a process outside the group may keep the output open after the main process has ended.
const OUTPUT_DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// What a process that ended by signal `n` has as its exit code, less `n`.
const SIGNAL_EXIT_BASE: i32 = 128;

/// A running process and what it starts. Dropping it kills them all.
pub(super) struct Process {
    child: Child,
    group: Pid,
    /// Fill the log; dropping them stops them.
    output: JoinSet<()>,
    log: std::sync::Arc<LogBuffer>,
    guard: Guard,
    /// Whether all of the group has been killed: its number may be another's by now.
    ended: bool,
}

impl Process {
    /// Starts `command` in `folder`, unless it names another, with its output going to `log`.
    pub(super) fn start(
        command: &ContainerCommand,
        folder: &std::path::Path,
        log: std::sync::Arc<LogBuffer>,
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

    /// The group of the process and of those that it starts.
    pub(super) fn group(&self) -> Pid {
        self.group
    }

    /// Asks the main process to end; as in a container, its children hear of it only by its doing.
    pub(super) fn terminate(&self) {
        // Without an id it has been waited for. One that has just ended needs no signal.
        if self.child.id().is_some() {
            let _ = kill_process(self.group, Signal::TERM);
        }
    }

    /// Ends all of the group at once.
    pub(super) fn kill(&self) {
        if !self.ended {
            kill(self.group);
        }
    }

    /// Waits for the end of the main process and of its output: the exit code, 128 and the signal's number where one
    /// ended it. Its children end with it. Safe to call again after it was given up.
    pub(super) async fn wait(&mut self) -> i32 {
        let status = self.child.wait().await;
        self.kill();
        self.ended = true;
        let read_to_its_end = async { while self.output.join_next().await.is_some() {} };
        if timeout(OUTPUT_DRAIN_TIMEOUT, read_to_its_end).await.is_err() {
            self.output.abort_all();
        }
        self.log.end();
        match status {
            Ok(status) => exit_code(status),
            Err(error) => {
                tracing::error!(%error, "the end of a process is not known");
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

/// Ends all of a group at once.
pub(super) fn kill(group: Pid) {
    // It fails where the group is gone already, which is what is wanted.
    let _ = kill_process_group(group, Signal::KILL);
}

fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .or_else(|| status.signal().map(|signal| SIGNAL_EXIT_BASE + signal))
        .unwrap_or(SIGNAL_EXIT_BASE)
}
