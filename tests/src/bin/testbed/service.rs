//! A process that can be killed, stopped and started again, and a set of such.

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use dispatcher_tests::helper::Program;
use dispatcher_tests::paths;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How long `wait` waits.
const WAIT: Duration = Duration::from_secs(180);
/// How many lines of a log a failure shows.
const TAIL: usize = 20;

/// One process, running or not, with its output in a log.
pub(crate) struct Service {
    program: Program,
    child: Option<Child>,
    ended: Option<ExitStatus>,
    killed: bool,
    revivals: u32,
}

impl Service {
    pub(crate) fn new(program: Program) -> Self {
        Self { program, child: None, ended: None, killed: false, revivals: 0 }
    }

    /// The same, started again up to so many times when it ends by itself: as a kubelet does with the controllers, which
    /// give up where the API server is not healthy for a while.
    pub(crate) fn with_revivals(self, revivals: u32) -> Self {
        Self { revivals, ..self }
    }

    /// Starts it again where it has ended by itself and may be revived; else says that it has ended.
    pub(crate) fn revive(&mut self) -> Option<String> {
        let failed = self.has_failed()?;
        match self.revivals.checked_sub(1) {
            Some(left) => {
                self.revivals = left;
                self.start().err()
            }
            None => Some(failed),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.program.name
    }

    pub(crate) fn start(&mut self) -> Result<(), String> {
        if self.child.is_some() && self.has_ended().is_none() {
            return Err(format!("{} runs already", self.program.name));
        }
        let failed = |error: std::io::Error| format!("{}: {error}", self.program.name);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.program.log);
        let log = log.map_err(failed)?;
        let mut command = Command::new(&self.program.path);
        command.args(&self.program.args).envs(self.program.env.iter().cloned());
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(failed)?).stderr(log);
        self.child = Some(command.process_group(0).kill_on_drop(true).spawn().map_err(failed)?);
        self.ended = None;
        self.killed = false;
        Ok(())
    }

    /// How it ended, if it has.
    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        if let Some(Ok(Some(status))) = self.child.as_mut().map(Child::try_wait) {
            self.ended = Some(status);
        }
        self.ended
    }

    /// That it has ended, though nobody told it to, with the end of its log.
    pub(crate) fn has_failed(&mut self) -> Option<String> {
        let status = self.has_ended().filter(|_| !self.killed)?;
        Some(format!("{} ended ({status}):\n{}", self.name(), self.tail()))
    }

    /// [`Service::has_failed`] as an error.
    pub(crate) fn check(&mut self) -> Result<(), String> {
        self.has_failed().map_or(Ok(()), Err)
    }

    pub(crate) fn tail(&self) -> String {
        paths::tail(&self.program.log, TAIL)
    }

    fn pid(&self) -> Result<Pid, String> {
        let id = self.child.as_ref().and_then(Child::id).and_then(|id| i32::try_from(id).ok());
        id.and_then(Pid::from_raw).ok_or_else(|| format!("{} does not run", self.program.name))
    }

    fn signal(&self, signal: Signal) -> Result<(), String> {
        kill_process(self.pid()?, signal).map_err(|error| format!("{}: {error}", self.program.name))
    }

    async fn wait(&mut self) -> Result<ExitStatus, String> {
        if let Some(status) = self.ended {
            return Ok(status);
        }
        let child = self.child.as_mut().ok_or_else(|| format!("{} was never started", self.program.name))?;
        match timeout(WAIT, child.wait()).await {
            Ok(Ok(status)) => Ok(*self.ended.insert(status)),
            Ok(Err(error)) => Err(format!("{}: {error}", self.program.name)),
            Err(_) => Err(format!("{} has not ended within {WAIT:?}", self.program.name)),
        }
    }

    /// Kills it and its process group, and waits for its end.
    pub(crate) async fn kill(&mut self) -> Result<ExitStatus, String> {
        self.killed = true;
        if let Ok(pid) = self.pid() {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        self.wait().await
    }

    pub(crate) async fn obey(&mut self, verb: &str) -> Result<Value, String> {
        match verb {
            "start" => self.start().map(|()| json!({"pid": self.child.as_ref().and_then(Child::id)})),
            "kill" => self.kill().await.map(ending),
            "wait" => self.wait().await.map(ending),
            "pid" => self.pid().map(|pid| json!({"pid": pid.as_raw_nonzero().get()})),
            "term" => self.signal(Signal::TERM).map(|()| json!({})),
            "int" => self.signal(Signal::INT).map(|()| json!({})),
            "stop" => self.signal(Signal::STOP).map(|()| json!({})),
            "cont" => self.signal(Signal::CONT).map(|()| json!({})),
            "ended" => Ok(self.has_ended().map_or(json!({}), ending)),
            _ => Err(format!("no command {verb:?}")),
        }
    }
}

fn ending(status: ExitStatus) -> Value {
    json!({"code": status.code(), "signal": status.signal()})
}
