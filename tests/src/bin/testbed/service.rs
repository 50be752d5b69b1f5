//! A process that can be killed, frozen and restarted.

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use dispatcher_tests::helper::Program;
use dispatcher_tests::paths;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// The timeout of `wait`.
const WAIT: Duration = Duration::from_secs(180);
/// The number of log lines in an error.
const TAIL: usize = 20;

/// A process, running or not; its output goes to a log.
pub(crate) struct Service {
    program: Program,
    child: Option<Child>,
    ended: Option<ExitStatus>,
    killed: bool,
    restarts: u32,
}

impl Service {
    pub(crate) fn new(program: Program) -> Self {
        Self { program, child: None, ended: None, killed: false, restarts: 0 }
    }

    /// Allows this many restarts if it exits by itself. Like a kubelet, this restarts controllers
    /// that exit while the API server is unhealthy.
    pub(crate) fn with_restarts(self, restarts: u32) -> Self {
        Self { restarts, ..self }
    }

    /// Restarts it if it has exited and may be restarted; otherwise returns the error.
    pub(crate) fn restart_if_exited(&mut self) -> Option<String> {
        let failed = self.has_failed()?;
        match self.restarts.checked_sub(1) {
            Some(left) => {
                self.restarts = left;
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
            return Err(format!("{} is already running", self.program.name));
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

    /// The exit status, if it has exited.
    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        if let Some(Ok(Some(status))) = self.child.as_mut().map(Child::try_wait) {
            self.ended = Some(status);
        }
        self.ended
    }

    /// An error with the end of its log, if it has exited without being killed.
    pub(crate) fn has_failed(&mut self) -> Option<String> {
        let status = self.has_ended().filter(|_| !self.killed)?;
        Some(format!("{} exited ({status}):\n{}", self.name(), self.tail()))
    }

    /// [`Service::has_failed`] as a `Result`.
    pub(crate) fn check(&mut self) -> Result<(), String> {
        self.has_failed().map_or(Ok(()), Err)
    }

    pub(crate) fn tail(&self) -> String {
        paths::tail(&self.program.log, TAIL)
    }

    fn pid(&self) -> Result<Pid, String> {
        let id = self.child.as_ref().and_then(Child::id).and_then(|id| i32::try_from(id).ok());
        id.and_then(Pid::from_raw).ok_or_else(|| format!("{} is not running", self.program.name))
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
            Err(_) => Err(format!("{} has not exited within {WAIT:?}", self.program.name)),
        }
    }

    /// Kills its process group and waits for the exit.
    pub(crate) async fn kill(&mut self) -> Result<ExitStatus, String> {
        self.killed = true;
        if let Ok(pid) = self.pid() {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        self.wait().await
    }

    pub(crate) async fn execute(&mut self, verb: &str) -> Result<Value, String> {
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
            _ => Err(format!("unknown command {verb:?}")),
        }
    }
}

fn ending(status: ExitStatus) -> Value {
    json!({"code": status.code(), "signal": status.signal()})
}
