//! The wall clock, as text.

use time::{OffsetDateTime, macros::format_description};

/// The current time in UTC: RFC 3339 with milliseconds.
pub(crate) fn now() -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    OffsetDateTime::now_utc().format(format).unwrap_or_default()
}
