//! The report half: watches the Jobs and tells what became of each.

pub mod leader;
pub mod lease;
pub mod settle;
pub mod watch;
