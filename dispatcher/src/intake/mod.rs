//! The intake: consumes requests, and turns each into a Job or a dead letter.

mod admission;
pub(crate) mod breaker;
pub(crate) mod consumer;
pub(crate) mod create;
pub(crate) mod dead_letters;
pub(crate) mod handler;
mod permits;
pub(crate) mod poison;
mod pull;
