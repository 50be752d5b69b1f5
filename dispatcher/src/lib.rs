//! The dispatcher.
pub mod contract;
pub mod intake;
pub mod report;
