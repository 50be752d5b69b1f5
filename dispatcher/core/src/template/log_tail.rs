//! How much of a pod's log is told with its attempt. Logs can hold secrets, and every reader of the status sees the
//! tail: a template bounds it, or turns it off.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

/// The most lines that a template may ask for.
const MAX_LINES: u16 = 1000;
/// The most bytes: several attempts stand in one event, which has to fit into a NATS message (1 MiB by default).
const MAX_BYTES: u32 = 16 * 1024;

/// The end of a log: at most so many lines, and of those at most so many bytes, the last ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
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

/// What the file says: whether, or bounds. The schema has checked the numbers.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Setting {
    Switch(bool),
    Bounds(LogTail),
}

impl Default for Setting {
    fn default() -> Self {
        Self::Switch(true)
    }
}

impl Setting {
    /// The bounds, or `None` for no log at all.
    pub(super) fn bounds(&self) -> Option<LogTail> {
        match self {
            Self::Switch(on) => on.then(LogTail::default),
            Self::Bounds(bounds) => Some(*bounds),
        }
    }
}

/// NackOutput out, so that a wrong number is told as such and not as "none of the two forms".
impl JsonSchema for Setting {
    fn schema_name() -> Cow<'static, str> {
        "LogTail".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let LogTail { lines, bytes } = LogTail::default();
        json_schema!({
            "type": ["boolean", "object"],
            "properties": {
                "lines": {"type": "integer", "minimum": 1, "maximum": MAX_LINES, "default": lines},
                "bytes": {"type": "integer", "minimum": 1, "maximum": MAX_BYTES, "default": bytes},
            },
            "additionalProperties": false,
        })
    }
}
