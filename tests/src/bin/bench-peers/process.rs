//! The processes of a side.

use std::path::PathBuf;

use dispatcher_tests::helper::{Helper, Program};
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{Dispatcher, paths};

/// One process; it ends when this is dropped.
#[derive(Debug)]
pub(crate) enum Process {
    Dispatcher(Dispatcher),
    Peer { helper: Helper, log: PathBuf },
}

impl Process {
    /// Starts a program of a peer.
    pub(crate) async fn start(program: &Program) -> Result<Self, String> {
        let text = serde_json::to_string(program).map_err(|error| error.to_string())?;
        let (helper, _) = Helper::start(&["run", &text], &[], TIMEOUT).await?;
        Ok(Self::Peer { helper, log: program.log.clone() })
    }

    pub(crate) async fn pid(&self) -> Result<u32, String> {
        match self {
            Self::Dispatcher(dispatcher) => Ok(dispatcher.pid().await),
            Self::Peer { helper, log } => {
                let pid = helper.call("pid").await?.get("pid").and_then(serde_json::Value::as_u64);
                let ended = || format!("a process has ended:\n{}", paths::tail(log, 20));
                pid.and_then(|pid| u32::try_from(pid).ok()).ok_or_else(ended)
            }
        }
    }

    /// Kills it (SIGKILL).
    pub(crate) async fn kill(&self) -> Result<(), String> {
        match self {
            Self::Dispatcher(dispatcher) => {
                dispatcher.kill().await;
                Ok(())
            }
            Self::Peer { helper, .. } => helper.call("kill").await.map(drop),
        }
    }

    /// Starts it again with the same settings.
    pub(crate) async fn restart(&self) -> Result<(), String> {
        match self {
            Self::Dispatcher(dispatcher) => {
                dispatcher.restart().await;
                Ok(())
            }
            Self::Peer { helper, .. } => helper.call("start").await.map(drop),
        }
    }

    /// The end of its log, for an error.
    pub(crate) fn log(&self) -> String {
        match self {
            Self::Dispatcher(dispatcher) => dispatcher.log_end(),
            Self::Peer { log, .. } => paths::tail(log, 20),
        }
    }
}

/// The ids of processes.
pub(crate) async fn pids(processes: &[Process]) -> Result<Vec<u32>, String> {
    let mut pids = Vec::new();
    for process in processes {
        pids.push(process.pid().await?);
    }
    Ok(pids)
}
