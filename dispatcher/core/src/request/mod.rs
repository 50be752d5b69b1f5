//! A message becomes a [`Request`] and then a Job, or a rejection. How a delivery of it can end.

pub mod breaker;
pub mod cancellation;
pub mod concurrency;
mod delivery;
pub mod error;
pub mod fair_share;
#[cfg(test)]
mod fuzz;
pub mod job;
mod message;
pub mod object;
pub mod pending;
pub mod poison;
pub mod queue_index;

pub use delivery::{ACK_WAIT, Disposition, HANDLE_DEADLINE, redelivery_delay};
pub use message::{Envelope, Identity, Request};
