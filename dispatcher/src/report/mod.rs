//! The report half.
pub mod phase;
