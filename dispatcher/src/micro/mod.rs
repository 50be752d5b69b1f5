//! The NATS micro service `dispatcher` (ADR-32): `jobs.<template>.submit`, `.cancel` and `.get`, for whoever wants an answer.
//!
//! ```text
//! request ─▶ serve: a place, or 503 ─▶ query (pure) ─┬─▶ submit: publish ─▶ stored ─▶ wait? ─▶ answer
//!                                                    ├─▶ cancel: written down, then done
//!                                                    └─▶ get: the last event, or a look through the queue
//! status subjects, _rejected ─▶ listen ─▶ waiting (pure: who waits for which request) ─▶ submit
//! ```
//!
//! Replicas share the endpoints by their queue group. Nothing is remembered between requests: what an answer says stands
//! in the streams.

pub mod cancel;
pub mod error;
pub mod get;
pub mod handler;
pub mod history;
pub mod listen;
pub mod original;
pub mod query;
pub mod queue;
pub mod schema;
pub mod submit;
pub mod waiting;
