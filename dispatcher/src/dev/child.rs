//! A program in a process of its own, kept running: started again when it dies, but not for ever.

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

/// So many deaths in a row are too many.
const DEATHS: u32 = 6;
/// One that has lived so long is well: its death is the first in a row.
const WELL: Duration = Duration::from_secs(5);
/// How long its output may stay open after its end.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Its exit code where a setting is wrong: to start it again would not help.
const WRONG_SETTING: i32 = 2;

/// What becomes of it.
#[derive(Debug, PartialEq)]
pub(super) enum Change {
    /// It runs; `again` after a death.
    Started { pid: i32, again: bool },
    /// It wrote a line, to stdout or stderr.
    Line(String),
    /// It has died; the next start comes after `delay`.
    Died { how: String, delay: Duration },
}

/// How a program is to be run.
pub(super) struct Supervised<Tell> {
    /// The program. It gets a process group of its own: a Ctrl-C at the terminal is not for it.
    pub(super) command: Command,
    /// The wait after its first death; twice as long after each further one in a row.
    pub(super) restart_delay: Duration,
    /// How long it may take to end when asked to, before it is killed.
    pub(super) grace: Duration,
    /// Ends it where this process is killed.
    pub(super) guard: Guard,
    /// Hears what becomes of it.
    pub(super) tell: Tell,
}

impl<Tell: FnMut(Change)> Supervised<Tell> {
    /// Runs it until `stop`, then asks it to end (SIGTERM).
    ///
    /// # Errors
    /// Where it cannot be started, or has died too often.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Result<(), String> {
        let mut deaths = 0;
        loop {
            let begin = Instant::now();
            let mut run = Run::start(&mut self.command, &self.guard).map_err(|error| error.to_string())?;
            (self.tell)(Change::Started { pid: run.pid.as_raw_pid(), again: deaths > 0 });
            let status = tokio::select! {
                status = run.wait(&mut self.tell) => status,
                () = stop.cancelled() => {
                    run.end(self.grace, &mut self.tell).await;
                    return Ok(());
                }
            };
            let how = how(&status);
            // A first start tells whether the settings are right.
            let is_hopeless =
                deaths == 0 && status.ok().and_then(|status| status.code()) == Some(WRONG_SETTING);
            deaths = if begin.elapsed() >= WELL { 1 } else { deaths + 1 };
            if is_hopeless || deaths >= DEATHS {
                return Err(how);
            }
            let delay = delay(self.restart_delay, deaths);
            (self.tell)(Change::Died { how, delay });
            if stop.run_until_cancelled(sleep(delay)).await.is_none() {
                return Ok(());
            }
        }
    }
}

/// The wait after so many deaths in a row.
fn delay(first: Duration, deaths: u32) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(deaths.saturating_sub(1)))
}

/// One life of it. Dropping it kills it.
struct Run {
    child: Child,
    pid: Pid,
    guard: Guard,
    stdout: Option<Lines<BufReader<ChildStdout>>>,
    stderr: Option<Lines<BufReader<ChildStderr>>>,
}

impl Run {
    fn start(command: &mut Command, guard: &Guard) -> io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.process_group(0).kill_on_drop(true).spawn()?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("the process has no id"))?;
        guard.watch(pid);
        let (stdout, stderr) = (lines(child.stdout.take()), lines(child.stderr.take()));
        Ok(Self { child, pid, guard: guard.clone(), stdout, stderr })
    }

    /// PodState what it writes until it has ended. May be given up and called again.
    async fn wait(&mut self, tell: &mut impl FnMut(Change)) -> io::Result<ExitStatus> {
        let status = loop {
            tokio::select! {
                status = self.child.wait() => break status,
                line = next(&mut self.stdout) => take(line, &mut self.stdout, tell),
                line = next(&mut self.stderr) => take(line, &mut self.stderr, tell),
            }
        };
        self.guard.forget(self.pid);
        let rest = async {
            while self.stdout.is_some() || self.stderr.is_some() {
                tokio::select! {
                    line = next(&mut self.stdout) => take(line, &mut self.stdout, tell),
                    line = next(&mut self.stderr) => take(line, &mut self.stderr, tell),
                }
            }
        };
        let _ = timeout(LAST_WORDS, rest).await;
        status
    }

    /// Asks it to end, and kills it when it does not in time.
    async fn end(&mut self, grace: Duration, tell: &mut impl FnMut(Change)) {
        // Without an id it has been waited for.
        if self.child.id().is_some() {
            let _ = kill_process(self.pid, Signal::TERM);
        }
        if timeout(grace, self.wait(tell)).await.is_err() {
            let _ = self.child.start_kill();
            let _ = self.wait(tell).await;
        }
    }
}

fn how(status: &io::Result<ExitStatus>) -> String {
    match status {
        Err(error) => error.to_string(),
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("has ended with exit code {code}"),
            (None, Some(signal)) => format!("was killed by signal {signal}"),
            (None, None) => "has ended".to_owned(),
        },
    }
}

fn lines<Output: AsyncRead + Unpin>(output: Option<Output>) -> Option<Lines<BufReader<Output>>> {
    output.map(|output| BufReader::new(output).lines())
}

/// The next line; never comes where the output has ended.
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
    tell: &mut impl FnMut(Change),
) {
    match line {
        Ok(Some(line)) => tell(Change::Line(line)),
        // The end of the output, or a line that is no text.
        Ok(None) => *output = None,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
        Err(_) => *output = None,
    }
}

#[cfg(test)]
mod tests;
