//! The rules of the dispatcher, as pure functions: no client, no runtime, no clock, no randomness.
//!
//! `template` and `request` turn a message into a Job. `status` turns observed Jobs and pods into
//! status events. `election` decides which replica leads. `contract` defines what other programs
//! see. `console` keeps the board of Jobs. `doctor` judges a set-up. Callers pass in the time and random numbers; `clippy.toml`
//! refuses everything else.

pub mod console;
pub mod contract;
pub mod doctor;
pub mod election;
#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the fuzzer reads seeds and writes artifacts")]
mod fuzz;
pub mod request;
pub mod status;
pub mod template;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod versions;
