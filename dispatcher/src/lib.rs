//! The dispatcher: turns NATS messages into Kubernetes Jobs, and publishes their status events.
//!
//! ```text
//! jobs.<template>.create ─▶ intake ─▶ Kubernetes ─▶ watch ─▶ status ─▶ jobs.<template>.status.<name>
//! ```
//! [`app::run`] runs the service. The rules are in the crate `dispatcher-core`. See
//! `docs/architecture.md`.

#[cfg(not(panic = "unwind"))]
compile_error!(
    "build with panic = \"unwind\": a message that async-nats cannot decode panics its connection \
     task, and must not end the process"
);

mod admin;
pub mod app;
mod cancellation;
pub mod check;
pub mod cli;
mod clock;
mod concurrency;
mod console;
#[cfg(feature = "dev")]
pub mod dev;
pub mod doctor;
mod intake;
mod kube;
mod leader;
mod leadership;
mod micro;
pub mod nats;
mod retry;
mod shares;
mod status;
mod supervisor;
mod telemetry;
pub mod templates;
mod watch;
