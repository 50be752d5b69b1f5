//! The rules of the console: the board of Jobs, and who may call it.
//!
//! In: status events as they are stored, and the headers of HTTP requests. Out: rows and changes for
//! the viewers, and refusals. Every state is bounded, in number and bytes.

mod board;
mod guard;
mod row;

pub use board::{Board, Delta, MAX_ROWS, Page};
pub use guard::{Caller, Guard, bearer};
pub use row::{Row, RowState};
