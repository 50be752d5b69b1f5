//! `dispatcher dev`: all that a Job needs, on this machine, in one command.
//!
//! ```text
//! settings ─▶ place: ports, folders, programs ─▶ run ─┬─ nats-server                    (child)
//!             (all checked before anything starts)    ├─ local cluster: API, controller, pods
//!                                                     ├─ listener: a line per event
//!                                                     └─ dispatcher run ...             (child)
//! ```
//!
//! The dispatcher is the same program as everywhere, in a process of its own, so that it can be killed. What runs is a list
//! of parts, stopped in the opposite order. The children are out of reach of a Ctrl-C at the terminal, and a guard ends
//! them where this process is killed.

mod banner;
mod child;
mod cluster;
mod lines;
mod listener;
mod place;
mod programs;
mod ready;
mod run;
mod screen;
mod settings;
mod signals;
mod supervisor;

pub use run::run;
pub use settings::{Image, Settings};

/// The namespace of the Jobs.
const NAMESPACE: &str = "jobs";

/// Why `dispatcher dev` ended otherwise than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// It cannot start as it is told to: one line for each reason.
    #[error("{}", .0.join("\ndispatcher: "))]
    Settings(Vec<String>),
    /// A part of it has ended.
    #[error("{0}")]
    Ended(String),
    /// It was told to stop twice, and has not waited.
    #[error("stopped at once; what was under way is told after the next start")]
    Hurried,
}

impl DevError {
    fn setting(line: impl Into<String>) -> Self {
        Self::Settings(vec![line.into()])
    }
}
