//! Runs a program as a child process, and restarts it after a crash, up to a limit.

use std::{
    io,
    os::unix::process::ExitStatusExt,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use local_cluster::kubelet::Guard;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdout, Command},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// How many consecutive crashes end the supervision.
const MAX_CRASHES: u32 = 6;
/// A program that ran this long has recovered: its next crash is the first one again.
const RECOVERED: Duration = Duration::from_secs(5);
/// How long the output may stay open after the program's end.
const LAST_OUTPUT: Duration = Duration::from_secs(1);
/// The exit code for a wrong setting: a restart would not help.
const WRONG_SETTING: i32 = 2;

/// A change of the program.
#[derive(Debug, PartialEq)]
pub(super) enum Change {
    /// The program runs; `restarted` after a crash.
    Started { pid: i32, restarted: bool },
    /// The program wrote a line to stdout or stderr.
    Line(String),
    /// The program crashed, and will be restarted after `delay`.
    Crashed { reason: String, delay: Duration },
}

/// A program and the way to run it.
pub(super) struct Supervised<Notify> {
    /// The program. Its new process group keeps a Ctrl-C at the terminal from it.
    pub(super) command: Command,
    /// The delay after the first crash; it doubles with each consecutive one.
    pub(super) restart_delay: Duration,
    /// How long the program may take to end after SIGTERM, before it is killed.
    pub(super) grace: Duration,
    /// Ends the program if this process is killed.
    pub(super) guard: Guard,
    /// Is called for each change.
    pub(super) notify: Notify,
}

impl<Notify: FnMut(Change)> Supervised<Notify> {
    /// Runs the program until `stop` is cancelled, then sends SIGTERM.
    ///
    /// # Errors
    /// The program cannot be started, or crashed too often.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Result<(), String> {
        let mut crashes = 0;
        loop {
            let begin = Instant::now();
            let mut process =
                Process::start(&mut self.command, &self.guard).map_err(|error| error.to_string())?;
            let (pid, restarted) = (process.pid.as_raw_pid(), crashes > 0);
            (self.notify)(Change::Started { pid, restarted });
            let status = tokio::select! {
                status = process.wait(&mut self.notify) => status,
                () = stop.cancelled() => {
                    process.stop(self.grace, &mut self.notify).await;
                    return Ok(());
                }
            };
            let reason = exit_reason(&status);
            // Only the first start shows whether the settings are right.
            let is_wrong_setting =
                crashes == 0 && status.ok().and_then(|status| status.code()) == Some(WRONG_SETTING);
            crashes = if begin.elapsed() >= RECOVERED { 1 } else { crashes + 1 };
            if is_wrong_setting || crashes >= MAX_CRASHES {
                return Err(reason);
            }
            let delay = restart_delay(self.restart_delay, crashes);
            (self.notify)(Change::Crashed { reason, delay });
            if stop.run_until_cancelled(sleep(delay)).await.is_none() {
                return Ok(());
            }
        }
    }
}

/// The delay after this number of consecutive crashes.
fn restart_delay(first: Duration, crashes: u32) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(crashes.saturating_sub(1)))
}

/// One process of the program. Dropping it kills the process.
struct Process {
    child: Child,
    pid: Pid,
    guard: Guard,
    stdout: Option<Lines<BufReader<ChildStdout>>>,
    stderr: Option<Lines<BufReader<ChildStderr>>>,
}

impl Process {
    fn start(command: &mut Command, guard: &Guard) -> io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.process_group(0).kill_on_drop(true).spawn()?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("the process has no id"))?;
        guard.watch(pid);
        let (stdout, stderr) = (lines(child.stdout.take()), lines(child.stderr.take()));
        Ok(Self { child, pid, guard: guard.clone(), stdout, stderr })
    }

    /// Passes the output on until the process has ended. Cancel safe.
    async fn wait(&mut self, notify: &mut impl FnMut(Change)) -> io::Result<ExitStatus> {
        let status = loop {
            tokio::select! {
                status = self.child.wait() => break status,
                line = next(&mut self.stdout) => take(line, &mut self.stdout, notify),
                line = next(&mut self.stderr) => take(line, &mut self.stderr, notify),
            }
        };
        self.guard.forget(self.pid);
        let rest = async {
            while self.stdout.is_some() || self.stderr.is_some() {
                tokio::select! {
                    line = next(&mut self.stdout) => take(line, &mut self.stdout, notify),
                    line = next(&mut self.stderr) => take(line, &mut self.stderr, notify),
                }
            }
        };
        let _ = timeout(LAST_OUTPUT, rest).await;
        status
    }

    /// Sends SIGTERM, and SIGKILL after `grace`.
    async fn stop(&mut self, grace: Duration, notify: &mut impl FnMut(Change)) {
        // A child without an id has ended, and its process id may belong to another process.
        if self.child.id().is_some() {
            let _ = kill_process(self.pid, Signal::TERM);
        }
        if timeout(grace, self.wait(notify)).await.is_err() {
            let _ = self.child.start_kill();
            let _ = self.wait(notify).await;
        }
    }
}

fn exit_reason(status: &io::Result<ExitStatus>) -> String {
    match status {
        Err(error) => error.to_string(),
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("exited with code {code}"),
            (None, Some(signal)) => format!("was killed by signal {signal}"),
            (None, None) => "exited".to_owned(),
        },
    }
}

fn lines<Output: AsyncRead + Unpin>(output: Option<Output>) -> Option<Lines<BufReader<Output>>> {
    output.map(|output| BufReader::new(output).lines())
}

/// The next line; pending after the end of the output.
async fn next<Output: AsyncRead + Unpin>(
    lines: &mut Option<Lines<BufReader<Output>>>,
) -> io::Result<Option<String>> {
    match lines {
        Some(lines) => lines.next_line().await,
        None => std::future::pending().await,
    }
}

fn take<Output>(
    line: io::Result<Option<String>>,
    output: &mut Option<Output>,
    notify: &mut impl FnMut(Change),
) {
    match line {
        Ok(Some(line)) => notify(Change::Line(line)),
        // A line that is not UTF-8 is skipped.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
        Ok(None) | Err(_) => *output = None,
    }
}

#[cfg(test)]
mod tests;
