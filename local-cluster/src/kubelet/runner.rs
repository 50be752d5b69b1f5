//! One container: its runs, one after the other, to the last.

use std::{io, path::Path, sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    Shared,
    command::{ContainerCommand, StartFailure},
    process::Process,
    status::{ContainerView, State, Termination},
    worker::{Stop, stop_requested},
};

/// What a container that could not be started has as its exit code, as with the common container runtimes.
const START_ERROR_EXIT_CODE: i32 = 128;
/// The wait before the first restart; each further one doubles it.
const FIRST_BACKOFF: Duration = Duration::from_secs(10);
const MAX_BACKOFF: Duration = Duration::from_mins(5);

/// See the module.
pub(super) struct Runner<'a> {
    pub(super) shared: &'a Shared,
    pub(super) uid: &'a str,
    pub(super) name: &'a str,
    pub(super) command: &'a ContainerCommand,
    /// The pod's restart policy.
    pub(super) restarts: &'a str,
    pub(super) folder: &'a Path,
    /// Which of the views is its own.
    pub(super) index: usize,
    pub(super) views: Arc<watch::Sender<Vec<ContainerView>>>,
    pub(super) stop: Stop,
}

impl Runner<'_> {
    /// Runs the container until it need not run again, or the pod is to end.
    pub(super) async fn run(mut self) {
        for run in 0_u32.. {
            if self.stop.borrow().is_some() {
                return;
            }
            let id = format!("local://{}/{}/{run}", self.uid, self.name);
            let end = self.run_once(id).await;
            let again = match self.restarts {
                "Never" => false,
                "OnFailure" => end.exit_code != 0,
                _ => true,
            };
            let over = !again || self.stop.borrow().is_some();
            self.change(|view| view.state = State::Terminated(end.clone()));
            if over || !self.back_off(run, end).await {
                return;
            }
        }
    }

    /// One run.
    async fn run_once(&mut self, id: String) -> Termination {
        let log = self.shared.logs.begin(self.uid, self.name, self.shared.options.log_limit);
        let started = Timestamp::now();
        let process = match Process::start(self.command, self.folder, log.clone(), self.shared.guard.clone())
        {
            Ok(process) => process,
            Err(error) => {
                log.end();
                return self.start_error(&error, id);
            }
        };
        self.change(|view| {
            view.state = State::Running(started);
            view.id.clone_from(&id);
        });
        let (exit_code, reason) = self.wait_for_exit(process).await;
        Termination {
            exit_code,
            reason,
            message: None,
            started: Some(started),
            finished: Timestamp::now(),
            id,
        }
    }

    /// Waits for the end of a process, or brings it about; says its exit code and the reason that Kubernetes gives.
    async fn wait_for_exit(&mut self, mut process: Process) -> (i32, &'static str) {
        let memory = self.command.memory.map(|limit| self.shared.memory.limit(process.group(), limit));
        let exit_code = tokio::select! {
            exit_code = process.wait() => exit_code,
            _ = stop_requested(&mut self.stop) => self.terminate(&mut process).await,
        };
        let reason = match exit_code {
            _ if memory.is_some_and(|memory| memory.was_exceeded()) => "OOMKilled",
            0 => "Completed",
            _ => "Error",
        };
        (exit_code, reason)
    }

    /// Asks the process to end, and kills it when its grace is over. The grace may be made shorter meanwhile.
    async fn terminate(&mut self, process: &mut Process) -> i32 {
        process.terminate();
        let begun = tokio::time::Instant::now();
        loop {
            let grace = (*self.stop.borrow_and_update()).unwrap_or_default();
            let left = grace.saturating_sub(begun.elapsed());
            tokio::select! {
                ended = timeout(left, process.wait()) => {
                    if let Ok(exit_code) = ended {
                        return exit_code;
                    }
                    process.kill();
                    return process.wait().await;
                }
                Ok(()) = self.stop.changed() => {}
            }
        }
    }

    fn start_error(&self, error: &io::Error, id: String) -> Termination {
        Termination {
            exit_code: START_ERROR_EXIT_CODE,
            reason: "StartError",
            message: Some(format!("cannot run {}: {error}", self.command.program.display())),
            started: None,
            finished: Timestamp::now(),
            id,
        }
    }

    /// Waits before the next run; says whether there is to be one.
    async fn back_off(&mut self, run: u32, end: Termination) -> bool {
        let wait = FIRST_BACKOFF.saturating_mul(1 << run.min(10)).min(MAX_BACKOFF);
        let message = format!("back-off {}s restarting failed container={}", wait.as_secs(), self.name);
        self.change(|view| {
            view.state = State::Waiting(StartFailure { reason: "CrashLoopBackOff", message });
            view.last = Some(end);
        });
        let scaled = wait.as_secs_f64() * self.shared.options.time_scale;
        tokio::select! {
            () = sleep(Duration::try_from_secs_f64(scaled).unwrap_or(wait)) => {}
            _ = stop_requested(&mut self.stop) => return false,
        }
        self.change(|view| view.restarts = view.restarts.saturating_add(1));
        true
    }

    fn change(&self, change: impl FnOnce(&mut ContainerView)) {
        self.views.send_modify(|views| {
            if let Some(view) = views.get_mut(self.index) {
                change(view);
            }
        });
    }
}
