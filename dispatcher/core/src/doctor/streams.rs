//! The streams: whether they exist, have the required settings, and have space.

use serde_json::Value;

use crate::doctor::{
    Finding, Section,
    account::{NEARLY_FULL, bytes},
    links,
};

const S: Section = Section::Streams;

/// One of the dispatcher's streams.
#[derive(Debug, Clone, PartialEq)]
pub struct Stream {
    /// Its name.
    pub name: String,
    /// What the server knows about it.
    pub found: Found,
}

/// What the server knows about a stream.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// It exists.
    Exists(Box<Details>),
    /// It does not exist.
    Missing,
    /// No answer, or an error.
    Unknown(String),
}

/// A stream that exists, compared with its definition by the code of the start.
#[derive(Debug, Clone, PartialEq)]
pub struct Details {
    /// Usage and replicas.
    pub state: State,
    /// Settings that break a guarantee.
    pub harmful: Vec<String>,
    /// Settings that let one client harm another.
    pub warnings: Vec<String>,
    /// What the start would change.
    pub update: Update,
}

/// What the start would change in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// Nothing.
    None,
    /// It would add these subjects or metadata.
    Adds(String),
    /// It would refuse the stream.
    Refuses(String),
}

/// Usage and replicas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The number of messages.
    pub messages: u64,
    /// The stored bytes.
    pub bytes: u64,
    /// The most bytes; `None` for no limit.
    pub max_bytes: Option<u64>,
    /// Whether a full stream refuses messages, instead of dropping the oldest.
    pub refuses_when_full: bool,
    /// The number of consumers.
    pub consumers: u64,
    /// The number of replicas.
    pub replicas: u64,
    /// Replicas that are offline or behind.
    pub lagging: Vec<String>,
}

impl State {
    /// The state in an answer to `STREAM.INFO.<name>`.
    #[must_use]
    pub fn of(info: &Value) -> Self {
        let number = |pointer: &str| info.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
        let replicas = info.pointer("/cluster/replicas").and_then(Value::as_array).into_iter().flatten();
        let is =
            |replica: &Value, field: &str| replica.get(field).and_then(Value::as_bool).unwrap_or_default();
        let lagging = replicas.filter(|replica| is(replica, "offline") || !is(replica, "current"));
        let name = |replica: &Value| replica.get("name").and_then(Value::as_str).map(str::to_owned);
        Self {
            messages: number("/state/messages"),
            bytes: number("/state/bytes"),
            max_bytes: info.pointer("/config/max_bytes").and_then(Value::as_u64).filter(|max| *max > 0),
            refuses_when_full: info.pointer("/config/discard").and_then(Value::as_str) == Some("new"),
            consumers: number("/state/consumer_count"),
            replicas: number("/config/num_replicas").max(1),
            lagging: lagging.filter_map(name).collect(),
        }
    }
}

/// Circumstances that decide what a finding means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// Whether the dispatcher may create and change nothing (`--no-provision`).
    pub verify_only: bool,
    /// Whether the servers form a cluster.
    pub is_clustered: bool,
}

/// The findings about one stream.
#[must_use]
pub fn findings(stream: &Stream, context: Context) -> Vec<Finding> {
    let (name, subject) = (&stream.name, format!("stream {}", stream.name));
    let details = match &stream.found {
        Found::Exists(details) => details,
        Found::Missing if context.verify_only => {
            let advice = format!(
                "create it with `dispatcher nats-config --output DIRECTORY` and `nats stream add --config \
                 DIRECTORY/{name}.json`, or run the dispatcher without --no-provision"
            );
            let message = "does not exist, and --no-provision forbids to create it";
            return vec![S.error(subject, message).advise(advice).see(links::STREAMS)];
        }
        Found::Missing => return vec![S.ok(subject, "does not exist; the start creates it")],
        Found::Unknown(error) => {
            let advice = format!("check that the stream has a leader: `nats stream info {name}`");
            return vec![S.error(subject, error).advise(advice).see(links::MISSING_STREAMS)];
        }
    };
    let mut found = settings(&subject, name, details);
    found.extend(update(&subject, name, &details.update, context.verify_only));
    found.extend(replicas(&subject, name, &details.state, context.is_clustered));
    found.extend(usage(&subject, name, &details.state));
    if found.is_empty() {
        let State { messages, bytes: stored, max_bytes, .. } = details.state;
        let limit = max_bytes.map_or(String::new(), |max| format!(" of {}", bytes(max)));
        found.push(S.ok(subject, format!("{messages} messages, {}{limit}", bytes(stored))));
    }
    found
}

fn settings(subject: &str, name: &str, details: &Details) -> Vec<Finding> {
    let harmful = details.harmful.iter().map(|setting| {
        let advice = format!(
            "take the setting back: `nats stream edit {name}`. NATS does not change all settings; a stream \
             without messages can be deleted and created again"
        );
        S.error(subject, setting).advise(advice).see(links::STREAMS)
    });
    let warnings = details.warnings.iter().map(|setting| {
        let advice = format!("change the setting: `nats stream edit {name}`");
        S.warning(subject, setting).advise(advice).see(links::STREAMS)
    });
    harmful.chain(warnings).collect()
}

fn update(subject: &str, name: &str, update: &Update, verify_only: bool) -> Option<Finding> {
    match update {
        Update::None => None,
        Update::Adds(additions) if verify_only => {
            let message = format!("lacks {additions}, and --no-provision forbids to add it");
            let advice = format!("add it with `nats stream edit {name}`, or run without --no-provision");
            Some(S.error(subject, message).advise(advice).see(links::STREAMS))
        }
        Update::Adds(additions) => Some(S.ok(subject, format!("lacks {additions}; the start adds it"))),
        Update::Refuses(reason) => {
            let advice = if reason.contains("--adopt") {
                "run each cluster's dispatcher with its own NATS account. If this dispatcher shall take the \
                 stream over, start it once with --adopt: the open Jobs of the other one become `Deleted`"
                    .to_owned()
            } else {
                format!("correct it with `nats stream edit {name}`")
            };
            Some(S.error(subject, reason).advise(advice).see(links::STREAMS))
        }
    }
}

fn replicas(subject: &str, name: &str, state: &State, is_clustered: bool) -> Vec<Finding> {
    let mut found = vec![];
    if is_clustered && state.replicas < 3 {
        let message = format!("has {} replica(s) in a cluster: it stops with one server", state.replicas);
        let advice = format!("`nats stream edit {name} --replicas 3`");
        found.push(S.warning(subject, message).advise(advice).see(links::STREAMS));
    }
    if !state.lagging.is_empty() {
        let message = format!("replicas are offline or behind: {}", state.lagging.join(", "));
        let advice = format!("check these servers: `nats stream cluster` and `nats stream info {name}`");
        found.push(S.warning(subject, message).advise(advice));
    }
    found
}

fn usage(subject: &str, name: &str, state: &State) -> Option<Finding> {
    let max = state.max_bytes?;
    let share = state.bytes as f64 / max as f64;
    if share < NEARLY_FULL {
        return None;
    }
    let message = format!("{} of {} are used", bytes(state.bytes), bytes(max));
    let raise = format!("raise max_bytes with `nats stream edit {name} --max-bytes SIZE`");
    if !state.refuses_when_full {
        let message = format!("{message}: the oldest messages are dropped");
        return Some(
            S.warning(subject, message)
                .advise(format!("if you need a longer history, {raise}"))
                .see(links::STORE),
        );
    }
    let advice = format!(
        "find out why messages are not handled (`dispatcher` logs, `nats consumer report {name}`), or {raise}"
    );
    let found = match share {
        // The next message may be larger than the rest.
        share if share > 0.99 => S.error(subject, format!("{message}: new messages are refused")),
        _ => S.warning(subject, format!("{message}; a full stream refuses messages")),
    };
    Some(found.advise(advice).see(links::WAITING_REQUESTS))
}

/// Other streams on a subject of the dispatcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    /// The subject.
    pub subject: String,
    /// The stream of the dispatcher that it concerns.
    pub stream: String,
    /// Whether that stream republishes to the subject, instead of capturing it.
    pub is_republished: bool,
    /// The other streams.
    pub others: Vec<String>,
}

/// The findings about streams that capture subjects of the dispatcher.
#[must_use]
pub fn overlaps(overlaps: &[Overlap]) -> Vec<Finding> {
    let overlap = |Overlap { subject, stream, is_republished, others }: &Overlap| {
        let finding = |other: &String| {
            if *is_republished {
                let message = format!("captures {subject} and loses events");
                let advice = format!("remove these subjects from it, and let it source {stream} instead");
                return S.warning(format!("stream {other}"), message).advise(advice).see(links::COPIES);
            }
            let message = format!("captures {subject}, which {stream} needs");
            let advice = format!(
                "remove the subject from it (`nats stream edit {other} --subjects ...`), or delete it: NATS \
                 refuses two streams on one subject"
            );
            S.error(format!("stream {other}"), message).advise(advice).see(links::STREAMS)
        };
        others.iter().map(finding).collect::<Vec<_>>()
    };
    overlaps.iter().flat_map(overlap).collect()
}

/// The finding about the number of dead letters.
#[must_use]
pub fn dead_letters(count: u64) -> Finding {
    S.ok("dead letters", format!("{count} rejected requests are kept"))
}

#[cfg(test)]
mod tests;
