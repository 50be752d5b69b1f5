//! The NATS service `dispatcher` (ADR-32): `jobs.<template>.submit`, `.cancel` and `.get`.
//!
//! ```text
//! call ─▶ handler ─▶ api (parse) ─┬─▶ submit: publish ─▶ stored ─▶ wait (optional) ─▶ answer
//!                                 ├─▶ cancel: record, then delete or reject
//!                                 └─▶ lookup: the last event, or a search of the queue
//! status events, rejections ─▶ waiters ─▶ submit
//! ```
//! Replicas share the endpoints through a queue group and keep no state between calls.

pub(crate) mod cancel;
pub(crate) mod handler;
pub(crate) mod history;
pub(crate) mod lookup;
pub(crate) mod places;
pub(crate) mod submit;

mod answer;
pub(crate) mod api;
pub(crate) mod call;
mod discovery;
mod endpoint;
pub(crate) mod error;
pub(crate) mod waiters;
