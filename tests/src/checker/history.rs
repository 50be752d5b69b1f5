//! The record of a run, as plain data.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use serde_json::Value;
use sha2::{Digest, Sha256};

/// The headers of a message; the first value of each.
pub type Headers = BTreeMap<String, String>;

/// A whole run.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Every publish of a request, in any order.
    pub requests: Vec<Request>,
    /// Whether these are all requests, so that every Job and dead letter belongs to one of them.
    pub requests_complete: bool,
    /// Every Job that existed.
    pub jobs: Vec<JobRecord>,
    /// `JOB_STATUS`, in order.
    pub status: Vec<StatusMessage>,
    /// `JOB_REJECTED`, in order.
    pub rejected: Vec<DeadLetter>,
    /// What a plain subscriber received, if there was one.
    pub live: Option<Subscriber>,
    /// The number of messages in `JOBS` at the end.
    pub queued_requests: u64,
    /// Whether the dispatcher had time to finish, so that anything missing is a violation.
    pub complete: bool,
    /// The TTL of each template; a template that is absent may have any TTL.
    pub ttls: BTreeMap<String, Option<i32>>,
    /// When it happened; not part of the check.
    pub times: Times,
}

/// The times of a run, for [`super::delays`].
#[derive(Debug, Clone, Default)]
pub struct Times {
    /// When the `PubAck` of a request arrived, by its sequence.
    pub acknowledged: BTreeMap<u64, SystemTime>,
    /// When a message of `JOB_STATUS` was stored, by its sequence.
    pub published: BTreeMap<u64, SystemTime>,
    /// When a message of `JOB_REJECTED` was stored, by its sequence.
    pub rejected: BTreeMap<u64, SystemTime>,
    /// When a Job was first observed as finished or deleted, by its uid.
    pub finished: BTreeMap<String, SystemTime>,
}

/// One publish of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The sequence in the `PubAck`; `None` without an ack: the request may be stored or not.
    pub seq: Option<u64>,
    /// Whether the `PubAck` marks it as a duplicate; `seq` is then that of the stored message.
    pub duplicate: bool,
    /// The second token of its subject.
    pub template: String,
    /// The header `Nats-Msg-Id`.
    pub msg_id: Option<String>,
    /// The payload.
    pub payload: Vec<u8>,
    /// The expected result.
    pub expect: Expect,
}

/// The expected result of a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Expect {
    /// A Job or a rejection.
    #[default]
    Either,
    /// A Job, with this name if one is given.
    Job(Option<String>),
    /// A rejection, with this `Job-Error` if one is given.
    Rejection(Option<String>),
}

/// How a Job finished, by its conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Finish {
    /// `Complete` is `True`.
    Complete,
    /// `Failed` is `True`.
    Failed,
    /// Neither: its last state was observed.
    #[default]
    Not,
    /// Its last state was not observed.
    Unknown,
}

/// A Job in its last observed state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobRecord {
    /// Its name.
    pub name: String,
    /// Its template: the label `natsjobs.dev/template`, or `app.kubernetes.io/name`.
    pub template: String,
    /// Its uid.
    pub uid: String,
    /// Whether it has or had the dispatcher's annotations.
    pub managed: bool,
    /// The annotation `natsjobs.dev/request-id`.
    pub request_id: String,
    /// The annotation `natsjobs.dev/request-seq`.
    pub request_seq: u64,
    /// How it finished.
    pub finish: Finish,
    /// Whether it is deleted.
    pub deleted: bool,
    /// Whether the watch observed it; otherwise it is known only from its events.
    pub watched: bool,
    /// Whether it has the label `natsjobs.dev/outcome`.
    pub retired: bool,
    /// `ttlSecondsAfterFinished`.
    pub ttl: Option<i32>,
}

/// A message of `JOB_STATUS`.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusMessage {
    /// Its sequence.
    pub stream_seq: u64,
    /// Its subject.
    pub subject: String,
    /// Its headers.
    pub headers: Headers,
    /// Its payload; `Null` if it is not JSON.
    pub event: Value,
}

/// A message of `JOB_REJECTED`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its sequence.
    pub stream_seq: u64,
    /// Its subject.
    pub subject: String,
    /// Its headers.
    pub headers: Headers,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// What a plain subscriber of `jobs.*.status.*` received.
#[derive(Debug, Clone, Default)]
pub struct Subscriber {
    /// The last sequence of `JOB_STATUS` when it subscribed.
    pub after: u64,
    /// Whether it stayed connected: only then it must have received everything.
    pub stayed_connected: bool,
    /// The messages, in order.
    pub messages: Vec<ReceivedMessage>,
}

/// A message that a plain subscriber received.
#[derive(Debug, Clone, PartialEq)]
pub struct ReceivedMessage {
    /// Its subject.
    pub subject: String,
    /// The header `Nats-Sequence`, which the stream sets on republished messages.
    pub sequence: Option<u64>,
    /// Its payload; `Null` if it is not JSON.
    pub event: Value,
}

impl Request {
    /// Whether both have the same template and equal JSON, regardless of whitespace and order of
    /// keys.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let json = |payload: &[u8]| serde_json::from_slice::<Value>(payload).ok();
        let alike = || json(&self.payload).is_some_and(|value| Some(value) == json(&other.payload));
        self.template == other.template && (self.payload == other.payload || alike())
    }
}

impl Finish {
    /// Reads the conditions of a `JobStatus`.
    #[must_use]
    pub fn of(status: &Value) -> Self {
        let conditions = status["conditions"].as_array().into_iter().flatten();
        conditions
            .filter(|condition| condition["status"] == "True")
            .find_map(|condition| match condition["type"].as_str() {
                Some("Complete") => Some(Self::Complete),
                Some("Failed") => Some(Self::Failed),
                _ => None,
            })
            .unwrap_or(Self::Not)
    }

    /// Whether there is a final condition.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Complete | Self::Failed)
    }
}

/// Whether a dead letter with the payload `found` keeps `payload`: a cut can be up to three bytes
/// before the limit, at the beginning of a character.
#[must_use]
pub fn kept(found: &[u8], payload: &[u8]) -> bool {
    const LIMIT: usize = 8 * 1024;
    let long_enough = found.len() == payload.len() || (LIMIT - 3..=LIMIT).contains(&found.len());
    payload.starts_with(found) && long_enough
}

/// SHA-256 in hex.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

impl DeadLetter {
    /// The header `Job-Request-Seq`.
    #[must_use]
    pub fn request_seq(&self) -> Option<u64> {
        self.headers.get("Job-Request-Seq")?.parse().ok()
    }

    /// The value of a header; empty if it is absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Whether it keeps this payload: the whole of it or the first 8 KiB, and its hash.
    #[must_use]
    pub fn keeps(&self, payload: &[u8]) -> bool {
        kept(&self.payload, payload) && self.header("Job-Payload-Sha256") == sha256(payload)
    }

    /// The template in the subject.
    #[must_use]
    pub fn template(&self) -> &str {
        self.subject.split('.').nth(1).unwrap_or_default()
    }
}

impl History {
    /// The observed Jobs, and those that are known only from their events.
    #[must_use]
    pub fn all_jobs(&self) -> Vec<JobRecord> {
        let mut jobs = self.jobs.clone();
        let mut uids: BTreeSet<String> = jobs.iter().map(|job| job.uid.clone()).collect();
        for StatusMessage { event, .. } in &self.status {
            let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            let uid = text("uid");
            if uid.is_empty() || !uids.insert(uid.clone()) {
                continue;
            }
            jobs.push(JobRecord {
                name: text("name"),
                template: text("template"),
                uid,
                managed: true,
                request_id: text("requestId"),
                request_seq: event["requestSeq"].as_u64().unwrap_or_default(),
                finish: Finish::Unknown,
                deleted: true,
                ..JobRecord::default()
            });
        }
        jobs
    }

    /// Whether `JOB_STATUS` still holds every message that it ever stored.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.status.iter().zip(1..).all(|(message, seq)| message.stream_seq == seq)
    }

    /// The number of each kind of record, in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        format!(
            "{} publishes, {} Jobs, {} status events, {} dead letters",
            self.requests.len(),
            self.all_jobs().len(),
            self.status.len(),
            self.rejected.len()
        )
    }
}
