//! The dispatcher's rules, as pure functions: no client, no runtime, no clock, no randomness.
//!
//! `template` and `request` turn a message into a Job; `status` turns observed Jobs and pods into
//! status events; `election` decides who leads; `contract` holds what other programs see.

pub mod contract;
pub mod election;
#[cfg(test)]
mod fuzz;
pub mod request;
pub mod status;
pub mod template;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
