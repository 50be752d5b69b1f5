//! A message becomes a [`Request`] and then a Job, or a rejection. How a delivery of it can end.

pub mod admission;
pub mod breaker;
pub mod canary;
pub mod cancellation;
pub mod concurrency;
mod delivery;
pub mod error;
#[cfg(test)]
mod fuzz;
pub mod job;
mod message;
pub mod poison;

pub use delivery::{ACK_WAIT, Disposition, HANDLE_DEADLINE, redelivery_delay};
pub use message::{Envelope, Identity, Request};
