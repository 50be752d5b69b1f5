//! Which settings of the streams and consumers are harmless: an allow-list over the fields of the
//! server's own configuration (the JSON of `STREAM.INFO` and `CONSUMER.INFO`).
//!
//! A field that no rule names is from a newer server. It may let a message remove or add another
//! one, so any value of it that is not empty is reported.

use std::fmt;

use serde_json::{Map, Value};

use crate::contract::nats_names::NatsNames;

/// The object that a configuration belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// `JOBS`.
    Requests,
    /// `JOB_STATUS`.
    StatusEvents,
    /// `JOB_REJECTED`.
    DeadLetters,
    /// The stream of the bucket `JOB_CANCELS`.
    Cancellations,
    /// A consumer of `JOBS`.
    Consumer,
}

/// What a finding means for the dispatcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// A guarantee does not hold: refused at start, not ready while running.
    Harmful,
    /// The guarantees hold, but a client can harm another one.
    Warning,
}

/// A setting that is not known to be harmless.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Its effect.
    pub severity: Severity,
    field: String,
    found: Value,
    must: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: found {}, must be {}", self.field, self.found, self.must)
    }
}

/// Which values of a field are harmless.
enum Rule {
    /// All.
    Any,
    /// The value of the shipped definition. An absent field has its empty value.
    Shipped,
    /// Empty: absent, null, false, 0, or an empty text, list or object.
    Off,
    /// One of these texts, or empty.
    OneOf(&'static [&'static str]),
    /// At least this number. Zero, a negative number and absence mean unlimited, which is harmless.
    UnlimitedOrAtLeast(u64),
    /// As `UnlimitedOrAtLeast`, with a warning if unlimited.
    LimitOfAtLeast(u64),
    /// At most this number, else a warning.
    BetterAtMost(u64),
    /// Subjects of requests.
    RequestSubjects,
    /// Empty: no rule names the field.
    Unknown,
}

const SECOND: u64 = 1_000_000_000;
const HOUR: u64 = 3600 * SECOND;
/// The shortest deduplication window that NATS allows.
pub const SHORTEST_DUPLICATE_WINDOW: u64 = SECOND / 10;
/// The largest dead letter: the kept payload and the headers.
pub const MAX_DEAD_LETTER: u64 = 16 * 1024;
/// The largest entry in `JOB_CANCELS`.
pub const MAX_CANCELLATION: u64 = 4 * 1024;
/// The longest history of one name that a search for a request id reads.
const MAX_HISTORY: u64 = 10_000;

/// The findings in a configuration of the installation with these `names`. `shipped` is the
/// definition of the dispatcher, `max_payload` the server's largest message in bytes.
#[must_use]
pub fn findings(
    names: &NatsNames,
    owner: Owner,
    shipped: &Value,
    found: &Value,
    max_payload: u64,
) -> Vec<Finding> {
    let empty = Map::new();
    let fields = |value: &'_ Value| value.as_object().cloned().unwrap_or_default();
    let (shipped, found) = (fields(shipped), found.as_object().unwrap_or(&empty));
    // A field that the server leaves out can still differ from the shipped value.
    let absent = shipped.keys().filter(|field| !found.contains_key(*field));
    let fields = found.keys().chain(absent);
    fields.filter_map(|field| finding(names, owner, field, (&shipped, found), max_payload)).collect()
}

fn finding(
    names: &NatsNames,
    owner: Owner,
    field: &str,
    (shipped, found): (&Map<String, Value>, &Map<String, Value>),
    max_payload: u64,
) -> Option<Finding> {
    let shipped = shipped.get(field).unwrap_or(&Value::Null);
    let found = found.get(field).unwrap_or(&Value::Null);
    let rule = match owner {
        Owner::Consumer => consumer_rule(field),
        stream => stream_rule(stream, field, max_payload),
    };
    let (severity, must) = rule.unwrap_or(Rule::Unknown).problem(names, shipped, found)?;
    Some(Finding { severity, field: field.to_owned(), found: found.clone(), must })
}

impl Rule {
    /// What the value must be instead, unless it is harmless.
    fn problem(&self, names: &NatsNames, shipped: &Value, found: &Value) -> Option<(Severity, String)> {
        use Severity::{Harmful, Warning};

        let limit = found.as_u64().filter(|limit| *limit > 0);
        let (harmless, severity, must) = match self {
            Self::Any => return None,
            Self::Shipped => {
                (without_empty(found) == without_empty(shipped), Harmful, without_empty(shipped).to_string())
            }
            Self::Off => (is_empty(found), Harmful, "unset".to_owned()),
            Self::Unknown => {
                let must = "unset: this dispatcher does not know the setting";
                (is_empty(found), Harmful, must.to_owned())
            }
            Self::OneOf(values) => {
                let allowed = is_empty(found) || found.as_str().is_some_and(|text| values.contains(&text));
                (allowed, Harmful, values.join(" or "))
            }
            Self::LimitOfAtLeast(_) if limit.is_none() => {
                (false, Warning, format!("limited (shipped: {shipped})"))
            }
            Self::UnlimitedOrAtLeast(least) | Self::LimitOfAtLeast(least) => {
                let must = format!("at least {least}, or unlimited");
                (limit.is_none_or(|limit| limit >= *least), Harmful, must)
            }
            Self::BetterAtMost(most) => {
                (limit.is_some_and(|limit| limit <= *most), Warning, format!("at most {most}"))
            }
            Self::RequestSubjects => {
                let must = format!("subjects of templates, `{}`", names.call_subject("<template>", "create"));
                (request_subjects_only(names, found), Harmful, must)
            }
        };
        (!harmless).then_some((severity, must))
    }
}

/// The fields that concern only where and how a stream is stored.
const STREAM_HARMLESS: [&str; 11] = [
    "name",
    "description",
    "metadata",
    "num_replicas",
    "placement",
    "compression",
    "first_seq",
    "allow_direct",
    "mirror_direct",
    "deny_delete",
    "template_owner",
];

/// The fields that let a message, the clock or another stream add or remove messages, or that hide
/// stored messages.
const STREAM_OFF: [&str; 12] = [
    "no_ack",
    "sealed",
    "mirror",
    "sources",
    "consumer_limits",
    "allow_msg_ttl",
    "subject_delete_marker_ttl",
    "allow_msg_counter",
    "allow_msg_schedules",
    "allow_atomic",
    "allow_batched",
    "allow_rollup_hdrs",
];

const STREAM_SHIPPED: [&str; 6] =
    ["retention", "storage", "discard", "discard_new_per_subject", "subject_transform", "republish"];

fn stream_rule(stream: Owner, field: &str, max_payload: u64) -> Option<Rule> {
    use Owner::{Cancellations, DeadLetters, Requests, StatusEvents};

    Some(match (field, stream) {
        // Only the dispatcher publishes to the bucket.
        ("allow_rollup_hdrs", Cancellations)
        // Provisioning checks these subjects.
        | ("subjects", DeadLetters | StatusEvents)
        | ("max_msgs", Requests)
        | ("max_msgs_per_subject", Requests | DeadLetters | Cancellations)
        | ("duplicate_window", StatusEvents | DeadLetters | Cancellations)
        | ("deny_purge", Requests | StatusEvents | DeadLetters) => Rule::Any,
        ("subjects", Requests) => Rule::RequestSubjects,
        ("subjects", _) => Rule::Shipped,
        ("max_age", StatusEvents | DeadLetters) => Rule::UnlimitedOrAtLeast(HOUR),
        ("max_age" | "deny_purge", _) => Rule::Off,
        ("max_bytes", _) => Rule::LimitOfAtLeast(1024 * 1024),
        ("max_msgs", DeadLetters) => Rule::LimitOfAtLeast(1000),
        ("max_msgs", _) => Rule::UnlimitedOrAtLeast(1000),
        ("max_msgs_per_subject", _) => Rule::BetterAtMost(MAX_HISTORY),
        ("max_msg_size", Requests) => Rule::LimitOfAtLeast(1),
        ("max_msg_size", DeadLetters) => Rule::UnlimitedOrAtLeast(MAX_DEAD_LETTER),
        ("max_msg_size", Cancellations) => Rule::UnlimitedOrAtLeast(MAX_CANCELLATION),
        ("max_msg_size", _) => Rule::UnlimitedOrAtLeast(max_payload),
        // Each scan needs a consumer for a moment.
        ("max_consumers", _) => Rule::UnlimitedOrAtLeast(100),
        ("duplicate_window", _) => Rule::BetterAtMost(SHORTEST_DUPLICATE_WINDOW),
        ("persist_mode", _) => Rule::OneOf(&["default"]),
        (field, _) if STREAM_SHIPPED.contains(&field) => Rule::Shipped,
        (field, _) if STREAM_OFF.contains(&field) => Rule::Off,
        (field, _) if STREAM_HARMLESS.contains(&field) => Rule::Any,
        _ => return None,
    })
}

fn consumer_rule(field: &str) -> Option<Rule> {
    Some(match field {
        "ack_policy" | "deliver_policy" | "filter_subject" | "max_deliver" | "replay_policy" => Rule::Shipped,
        // Redeliveries by `backoff` come before `ack_wait`, while the request is being handled.
        "headers_only" | "backoff" | "filter_subjects" | "opt_start_seq" | "opt_start_time"
        | "mem_storage" | "rate_limit_bps" | "deliver_subject" | "deliver_group" | "flow_control"
        | "idle_heartbeat" | "direct" | "priority_groups" | "priority_timeout" => Rule::Off,
        "priority_policy" => Rule::OneOf(&["none"]),
        // Each replica keeps one pull waiting, and a few old ones after a reconnect.
        "max_waiting" => Rule::UnlimitedOrAtLeast(16),
        "max_ack_pending" => Rule::UnlimitedOrAtLeast(100),
        // The dispatcher recreates its consumer, but not while it is idle between two pulls.
        "inactive_threshold" => Rule::UnlimitedOrAtLeast(60 * SECOND),
        // `ack_wait` is compared with the handling of requests and the TTLs of templates. The pull
        // limits are obeyed.
        "ack_wait" | "max_batch" | "max_expires" | "max_bytes" | "name" | "durable_name" | "description"
        | "metadata" | "num_replicas" | "sample_freq" | "pause_until" => Rule::Any,
        _ => return None,
    })
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
    }
}

/// The value without empty fields, so that an absent one equals an empty one.
fn without_empty(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let set = fields.iter().filter(|(_, value)| !is_empty(value));
            let set: Map<_, _> = set.map(|(field, value)| (field.clone(), without_empty(value))).collect();
            if set.is_empty() { Value::Null } else { set.into() }
        }
        empty if is_empty(empty) => Value::Null,
        other => other.clone(),
    }
}

/// A subject with a wildcard stores requests of templates that do not exist, and no
/// dispatcher handles them.
fn request_subjects_only(names: &NatsNames, subjects: &Value) -> bool {
    let is_of_a_template = |subject: &str| {
        subject == names.no_template_subject() || names.parse_create_subject(subject).is_some()
    };
    subjects
        .as_array()
        .is_some_and(|subjects| subjects.iter().all(|subject| subject.as_str().is_some_and(is_of_a_template)))
}

#[cfg(test)]
mod tests;
