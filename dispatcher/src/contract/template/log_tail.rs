//! How much of a pod's log is told with its attempt. Logs can hold secrets, and every reader of the status sees the
//! tail: a template bounds it, or turns it off.

use serde::Deserialize;

use super::Problem;

/// The most lines that a template may ask for.
const MAX_LINES: u16 = 1000;
/// The most bytes: several attempts stand in one event, which has to fit into a NATS message (1 MiB by default).
const MAX_BYTES: u32 = 16 * 1024;

/// The end of a log: at most so many lines, and of those at most so many bytes, the last ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogTail {
    /// 1 to 1,000.
    pub lines: u16,
    /// 1 to 16,384.
    pub bytes: u32,
}

impl Default for LogTail {
    fn default() -> Self {
        Self { lines: 20, bytes: 4096 }
    }
}

/// What the file says: `false`, or bounds.
#[derive(Deserialize)]
#[serde(untagged, expecting = "logTail: allowed is `false`, or `lines` and `bytes`")]
pub(super) enum Setting {
    Switch(bool),
    Bounds(Bounds),
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bounds {
    lines: Option<u16>,
    bytes: Option<u32>,
}

impl Default for Setting {
    fn default() -> Self {
        Self::Bounds(Bounds::default())
    }
}

impl Setting {
    /// The bounds, or `None` for no log at all.
    pub(super) fn checked(&self) -> Result<Option<LogTail>, Problem> {
        let default = LogTail::default();
        let Bounds { lines, bytes } = match self {
            Self::Switch(false) => return Ok(None),
            Self::Switch(true) => return Ok(Some(default)),
            Self::Bounds(bounds) => bounds,
        };
        let tail = LogTail { lines: lines.unwrap_or(default.lines), bytes: bytes.unwrap_or(default.bytes) };
        if !(1..=MAX_LINES).contains(&tail.lines) {
            let message =
                format!("found {}, allowed are 1 to {MAX_LINES}; `logTail: false` for none", tail.lines);
            return Err(Problem::at("logTail.lines", message));
        }
        if !(1..=MAX_BYTES).contains(&tail.bytes) {
            let message =
                format!("found {}, allowed are 1 to {MAX_BYTES}; `logTail: false` for none", tail.bytes);
            return Err(Problem::at("logTail.bytes", message));
        }
        Ok(Some(tail))
    }
}
