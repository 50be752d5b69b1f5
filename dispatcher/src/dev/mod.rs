//! `dispatcher dev`: NATS, a local cluster and the service on this machine, in one command.
//!
//! ```text
//! settings ─▶ workspace: ports, directories ─▶ run ─┬─ nats-server                    (process)
//!                                                   ├─ local cluster: API, controller, kubelet
//!                                                   ├─ printer: one line per status event
//!                                                   └─ dispatcher run ...             (process)
//! ```
//! Everything is checked before anything starts. Tasks stop in reverse order. The processes do not
//! receive a Ctrl-C at the terminal, and a guard ends them if this process is killed.

mod banner;
mod child;
mod cluster;
mod output;
mod probes;
mod programs;
mod run;
mod workspace;

pub use run::run;

/// The namespace of the Jobs.
const NAMESPACE: &str = "jobs";

/// Why `dispatcher dev` ended without being stopped, or could not start.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// Settings are wrong: one line for each.
    #[error("{}", .0.join("\ndispatcher: "))]
    Settings(Vec<String>),
    /// A task ended or could not start.
    #[error("{0}")]
    Ended(String),
    /// A second signal interrupted the shutdown.
    #[error("interrupted the shutdown; the next start completes pending work")]
    Interrupted,
}

impl DevError {
    fn setting(line: impl Into<String>) -> Self {
        Self::Settings(vec![line.into()])
    }
}
