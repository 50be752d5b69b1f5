//! A message becomes a [`Request`] and then a Job, or a rejection. How a delivery of it can end.

pub mod admission;
pub mod breaker;
pub mod canary;
pub mod cancellation;
pub mod change_error;
pub mod concurrency;
mod delivery;
pub mod error;
pub mod fair_concurrency;
pub mod fair_share;
#[cfg(test)]
mod fuzz;
pub mod job;
mod message;
pub mod object;
pub mod pending;
pub mod poison;
pub mod pull_limits;
pub mod queue_index;
mod sample;

pub use delivery::{ACK_WAIT, AckState, Disposition, HANDLE_DEADLINE, redelivery_delay};
pub use message::{Envelope, Identity, Request};
pub use sample::sample;
