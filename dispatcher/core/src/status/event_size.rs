//! Shortens a status event to the size of a message. Pure and deterministic.
//!
//! Free text goes first, then fields of the `status` from the largest on. Counts, times and the
//! standard conditions stay. A shortened `status` is marked, because it is not verbatim any more.

use std::{cmp::Reverse, io};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    contract::{
        event::{Attempt, Outcome, Stall, StatusEvent},
        text::{json_len, text_size},
    },
    status::event_body::cut_attempts,
};

/// Every event fits into this size, in bytes of JSON.
pub const MIN_EVENT_BYTES: usize = 8 * 1024;
/// The size up to which the texts of a condition are cut.
const CONDITION_TEXT: usize = 256;
/// The largest size of a short field, such as a reason.
const SHORT_TEXT: usize = 256;
/// The largest size of a time.
const TIME_TEXT: usize = 64;

/// The fields that consumers need. They are not dropped as a whole.
const KEPT_FIELDS: [&str; 8] =
    ["active", "ready", "succeeded", "failed", "terminating", "startTime", "completionTime", "conditions"];
/// The conditions that the Job controller sets.
const STANDARD_CONDITIONS: [&str; 5] =
    ["Complete", "Failed", "FailureTarget", "SuccessCriteriaMet", "Suspended"];

/// An event that fits into a message, and its JSON.
#[derive(Debug)]
pub struct EncodedEvent {
    /// The event.
    pub event: StatusEvent,
    /// Its JSON.
    pub json: Vec<u8>,
}

/// Encodes an event, shortened to at most `limit` bytes of JSON as [`fit`] does. Almost every event
/// fits, and is serialized once.
///
/// # Errors
/// If the event cannot be serialized.
pub fn encode(event: StatusEvent, limit: usize) -> Result<EncodedEvent, serde_json::Error> {
    let json = serde_json::to_vec(&event)?;
    if json.len() <= limit {
        return Ok(EncodedEvent { event, json });
    }
    let event = shorten(event, limit);
    Ok(EncodedEvent { json: serde_json::to_vec(&event)?, event })
}

/// Shortens an event to at most `limit` bytes of JSON, if `limit` is at least [`MIN_EVENT_BYTES`].
/// An event that fits is unchanged.
#[must_use]
pub fn fit(event: StatusEvent, limit: usize) -> StatusEvent {
    if json_size(&event) <= limit { event } else { shorten(event, limit) }
}

fn shorten(mut event: StatusEvent, limit: usize) -> StatusEvent {
    event.outcome.iter_mut().for_each(|outcome| shorten_outcome(outcome, limit));
    event.attempt.iter_mut().for_each(|attempt| shorten_attempt(attempt, limit));
    event.stall.iter_mut().for_each(|stall| shorten_stall(stall, limit));
    let status = event.status.take();
    let budget = limit.saturating_sub(json_size(&event)).saturating_sub(r#","statusTruncated":true"#.len());
    let (status, truncated) = shorten_status(status, budget);
    event.status = status;
    event.status_truncated |= truncated;
    event
}

fn shorten_outcome(outcome: &mut Outcome, limit: usize) {
    cut_attempts(outcome, limit);
    cut_head(&mut outcome.message, limit / 16);
    cut_head(&mut outcome.reason, SHORT_TEXT);
    for time in [&mut outcome.start_time, &mut outcome.finish_time] {
        time.take_if(|time| text_size(time) > TIME_TEXT);
    }
    outcome.stall.iter_mut().for_each(|stall| shorten_stall(stall, limit));
}

fn shorten_attempt(attempt: &mut Attempt, limit: usize) {
    if let Some(tail) = &mut attempt.log_tail {
        *tail = end(tail, limit / 4).to_owned();
    }
    cut_head(&mut attempt.message, limit / 8);
    cut_head(&mut attempt.reason, SHORT_TEXT);
}

fn shorten_stall(stall: &mut Stall, limit: usize) {
    stall.message = head(&stall.message, limit / 16);
    stall.reason = head(&stall.reason, SHORT_TEXT);
}

/// Shortens a status to `budget` bytes of JSON. Returns whether it was too large.
fn shorten_status(mut status: Value, budget: usize) -> (Value, bool) {
    let size = json_size(&status);
    if size <= budget {
        return (status, false);
    }
    let Some(fields) = status.as_object_mut() else { return (Value::Object(Map::new()), true) };
    let mut excess = size - budget;
    for (saved, cut) in cuts(fields) {
        if excess == 0 {
            break;
        }
        excess = excess.saturating_sub(saved);
        cut.apply(fields);
    }
    if excess > 0 {
        *fields = essential(fields);
    }
    (status, true)
}

/// One way to make a status smaller.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cut {
    /// Drops a field. Part of a list of indexes or pods would be misread as the whole list.
    Field(String),
    /// Cuts a text of the condition at this index.
    ConditionText(usize, &'static str),
}

impl Cut {
    fn apply(&self, fields: &mut Map<String, Value>) {
        match self {
            Self::Field(name) => drop(fields.remove(name)),
            Self::ConditionText(index, name) => {
                let condition = fields.get_mut("conditions").and_then(|all| all.get_mut(index));
                if let Some(Value::String(text)) = condition.and_then(|condition| condition.get_mut(*name)) {
                    *text = head(text, CONDITION_TEXT);
                }
            }
        }
    }
}

/// All cuts with the bytes that each saves, the largest first.
fn cuts(fields: &Map<String, Value>) -> Vec<(usize, Cut)> {
    let dropped = fields.iter().filter(|(name, _)| !KEPT_FIELDS.contains(&name.as_str()));
    let mut cuts: Vec<_> =
        dropped.map(|(name, value)| (json_size(value), Cut::Field(name.clone()))).collect();
    let conditions = fields.get("conditions").and_then(Value::as_array);
    for (index, condition) in conditions.into_iter().flatten().enumerate() {
        for name in ["message", "reason"] {
            let text = condition.get(name).and_then(Value::as_str).unwrap_or_default();
            let saved = json_size(&text).saturating_sub(json_size(&head(text, CONDITION_TEXT)));
            if saved > 0 {
                cuts.push((saved, Cut::ConditionText(index, name)));
            }
        }
    }
    cuts.sort_by(|(a, one), (b, other)| Reverse(a).cmp(&Reverse(b)).then_with(|| one.cmp(other)));
    cuts
}

/// What remains of a status at least: counts, times, and the standard conditions that are `True`.
fn essential(fields: &Map<String, Value>) -> Map<String, Value> {
    let is_short = |value: &Value| match value {
        Value::Number(_) => true,
        Value::String(time) => text_size(time) <= TIME_TEXT,
        _ => false,
    };
    let kept = fields.iter().filter(|(name, value)| KEPT_FIELDS.contains(&name.as_str()) && is_short(value));
    let mut essential: Map<_, _> = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
    let mut standard: Vec<Value> = Vec::new();
    for condition in fields.get("conditions").and_then(Value::as_array).into_iter().flatten() {
        let is_standard = STANDARD_CONDITIONS.iter().any(|type_| condition["type"] == *type_);
        let is_new = standard.iter().all(|kept| kept["type"] != condition["type"]);
        if is_standard && is_new && condition["status"] == "True" {
            standard.push(essential_condition(condition));
        }
    }
    if !standard.is_empty() {
        essential.insert("conditions".to_owned(), Value::Array(standard));
    }
    essential
}

fn essential_condition(condition: &Value) -> Value {
    let fields = [
        ("type", SHORT_TEXT),
        ("status", SHORT_TEXT),
        ("reason", TIME_TEXT),
        ("message", CONDITION_TEXT),
        ("lastTransitionTime", TIME_TEXT),
    ];
    let text = |(name, max): (&str, usize)| {
        let text = condition.get(name)?.as_str()?;
        Some((name.to_owned(), head(text, max).into()))
    };
    Value::Object(fields.into_iter().filter_map(text).collect())
}

fn cut_head(text: &mut Option<String>, max: usize) {
    text.iter_mut().for_each(|text| *text = head(text, max));
}

/// The start of a text with an ellipsis, at most `max` bytes of JSON; the whole text if it fits.
fn head(text: &str, max: usize) -> String {
    if text_size(text) <= max {
        return text.to_owned();
    }
    let mut size = '…'.len_utf8();
    let fits = |c: &char| {
        size += json_len(*c);
        size <= max
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

/// The end of a text, at most `max` bytes of JSON.
fn end(text: &str, max: usize) -> &str {
    let mut size = 0;
    let fits = |(_, c): &(usize, char)| {
        size += json_len(*c);
        size <= max
    };
    let start = text.char_indices().rev().take_while(fits).last().map_or(text.len(), |(at, _)| at);
    text.get(start..).unwrap_or_default()
}

/// The bytes of a value as JSON.
fn json_size(value: &impl Serialize) -> usize {
    let mut counter = Counter(0);
    // Neither the counter nor the types of events fail.
    let _ = serde_json::to_writer(&mut counter, value);
    counter.0
}

struct Counter(usize);

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
