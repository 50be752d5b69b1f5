//! The intake half: requests become Jobs, or rejections.

use std::time::Duration;

pub mod delay;
pub mod fate;
#[cfg(test)]
mod fuzz;
pub mod handle;
pub mod job;
pub mod launch;
pub mod legible;
pub mod pull;
pub mod reject;
pub mod request;
pub mod salvage;

/// How long one request may be worked on; with the answer to the stream it stays below `ack_wait`
/// ([`crate::nats::definitions::ACK_WAIT`]).
pub const HANDLE_DEADLINE: Duration = Duration::from_secs(35);
