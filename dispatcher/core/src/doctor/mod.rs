//! The rules of `dispatcher doctor`: facts about a set-up in, findings with advice out.
//!
//! Each module has the facts of one section and the function that judges them. Gathering facts is I/O,
//! and belongs to the crate `dispatcher`.

mod finding;

pub mod account;
pub mod clock;
pub mod cluster;
pub mod configuration;
pub mod consumers;
pub mod lease;
pub mod links;
pub mod nats;
pub mod permissions;
pub mod rbac;
pub mod streams;
pub mod templates;

pub use finding::{Finding, Report, Section, Severity};
