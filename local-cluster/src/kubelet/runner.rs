//! Runs one container, including its restarts.

use std::{io, path::Path, sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    command::{ContainerCommand, StartFailure},
    context::{Context, StopSignal, stop_requested},
    process::Process,
    status::{ContainerView, State, Termination},
};

/// The exit code of a container that could not start, as in common container runtimes.
const START_ERROR_EXIT_CODE: i32 = 128;
/// The back-off before the first restart. It doubles with each further restart.
const FIRST_BACKOFF: Duration = Duration::from_secs(10);
const MAX_BACKOFF: Duration = Duration::from_mins(5);

/// The runs of one container.
pub(super) struct Runner<'a> {
    pub(super) context: &'a Context,
    pub(super) uid: &'a str,
    pub(super) name: &'a str,
    pub(super) command: &'a ContainerCommand,
    pub(super) restart_policy: &'a str,
    pub(super) folder: &'a Path,
    /// The index of this container in `views`.
    pub(super) index: usize,
    pub(super) views: Arc<watch::Sender<Vec<ContainerView>>>,
    pub(super) stop: StopSignal,
}

impl Runner<'_> {
    /// Runs the container until the restart policy or a stop request ends it.
    pub(super) async fn run(mut self) {
        for run in 0_u32.. {
            if self.stop.borrow().is_some() {
                return;
            }
            let id = format!("local://{}/{}/{run}", self.uid, self.name);
            let termination = self.run_once(id).await;
            let restart = match self.restart_policy {
                "Never" => false,
                "OnFailure" => termination.exit_code != 0,
                _ => true,
            };
            let is_last = !restart || self.stop.borrow().is_some();
            self.change(|view| view.state = State::Terminated(termination.clone()));
            if is_last || !self.back_off(run, termination).await {
                return;
            }
        }
    }

    /// Runs the container once.
    async fn run_once(&mut self, id: String) -> Termination {
        let log = self.context.logs.begin(self.uid, self.name, self.context.options.log_limit);
        let started = Timestamp::now();
        let process = match Process::start(self.command, self.folder, log.clone(), self.context.guard.clone())
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

    /// Waits until the process ends, or ends it on a stop request.
    ///
    /// Returns the exit code and Kubernetes' reason.
    async fn wait_for_exit(&mut self, mut process: Process) -> (i32, &'static str) {
        let memory = self.command.memory_limit.map(|limit| self.context.memory.limit(process.group(), limit));
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

    /// Terminates the process, and kills it after the grace period, which may shorten meanwhile.
    async fn terminate(&mut self, process: &mut Process) -> i32 {
        process.terminate();
        let start = tokio::time::Instant::now();
        loop {
            let grace = (*self.stop.borrow_and_update()).unwrap_or_default();
            let left = grace.saturating_sub(start.elapsed());
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
            message: Some(format!("failed to start {}: {error}", self.command.program.display())),
            started: None,
            finished: Timestamp::now(),
            id,
        }
    }

    /// Waits before the next run. Returns false if a stop request arrives.
    async fn back_off(&mut self, run: u32, last: Termination) -> bool {
        let wait = FIRST_BACKOFF.saturating_mul(1 << run.min(10)).min(MAX_BACKOFF);
        let message = format!("back-off {}s restarting failed container={}", wait.as_secs(), self.name);
        self.change(|view| {
            view.state = State::Waiting(StartFailure { reason: "CrashLoopBackOff", message });
            view.last = Some(last);
        });
        let scaled = wait.as_secs_f64() * self.context.options.time_scale;
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
