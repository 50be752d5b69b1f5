//! What happened, as plain data.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use serde_json::Value;

/// The headers of a message, each once.
pub type Headers = BTreeMap<String, String>;

/// A whole run.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Every publish of a request, in no order.
    pub requests: Vec<Request>,
    /// Whether nobody else published requests, so that every Job and rejection must be of one of these.
    pub requests_complete: bool,
    /// Every Job that the cluster had.
    pub jobs: Vec<JobSeen>,
    /// `JOB_STATUS`, in order.
    pub status: Vec<StatusMessage>,
    /// `JOB_REJECTED`, in order.
    pub rejected: Vec<DeadLetter>,
    /// What a plain subscriber saw, where there was one.
    pub live: Option<Live>,
    /// Messages in `JOBS` at the end.
    pub jobs_stream_left: u64,
    /// Whether the dispatcher was given the time to finish: what is missing then is missing for good.
    pub at_rest: bool,
    /// The TTL of each template's template; a template that is not here has some TTL.
    pub ttls: BTreeMap<String, Option<i32>>,
    /// When it happened; nothing is judged by it.
    pub times: Times,
}

/// When things happened, as far as that was seen; for [`super::delays`].
#[derive(Debug, Clone, Default)]
pub struct Times {
    /// When a request's `PubAck` came, by its sequence.
    pub acknowledged: BTreeMap<u64, SystemTime>,
    /// When a message of `JOB_STATUS` was stored, by its sequence.
    pub said: BTreeMap<u64, SystemTime>,
    /// When a message of `JOB_REJECTED` was stored, by its sequence.
    pub rejected: BTreeMap<u64, SystemTime>,
    /// When a Job was first seen with its final condition, or gone, by its uid.
    pub ended: BTreeMap<String, SystemTime>,
}

/// One publish of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The sequence in the `PubAck`; `None` where there was no answer: it may be stored or not.
    pub seq: Option<u64>,
    /// Whether the `PubAck` said that it is a duplicate; `seq` then is that of the message that is stored.
    pub duplicate: bool,
    /// The second token of its subject.
    pub template: String,
    /// The header `Nats-Msg-Id`.
    pub msg_id: Option<String>,
    /// The payload.
    pub payload: Vec<u8>,
    /// What is to become of it.
    pub expect: Expect,
}

/// What is to become of a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Expect {
    /// A Job or a rejection.
    #[default]
    Either,
    /// A Job, of this name where one is given.
    Job(Option<String>),
    /// A rejection, with this `Job-Error` where one is given.
    Rejection(Option<String>),
}

/// How a Job's conditions say that it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ended {
    /// `Complete` is `True`.
    Complete,
    /// `Failed` is `True`.
    Failed,
    /// Neither, for sure: its last state was seen.
    #[default]
    Not,
    /// Its last state was not seen.
    Unknown,
}

/// A Job that the cluster had, in its last state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobSeen {
    /// Its name.
    pub name: String,
    /// Its template: the label `natsjobs.dev/template`, or `app.kubernetes.io/name`.
    pub template: String,
    /// Its uid.
    pub uid: String,
    /// Whether it carries, or carried, the dispatcher's annotations.
    pub ours: bool,
    /// The annotation `natsjobs.dev/request-id`.
    pub request_id: String,
    /// The annotation `natsjobs.dev/request-seq`.
    pub request_seq: u64,
    /// How it ended.
    pub ended: Ended,
    /// Whether it is gone.
    pub deleted: bool,
    /// Whether the watch saw it; else only the stream tells of it.
    pub watched: bool,
    /// Whether it has the label `natsjobs.dev/outcome`.
    pub settled: bool,
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
    /// Its payload; `Null` where that is no JSON.
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

/// What a plain subscriber of `jobs.*.status.*` saw.
#[derive(Debug, Clone, Default)]
pub struct Live {
    /// The last sequence of `JOB_STATUS` when it subscribed.
    pub after: u64,
    /// Whether its connection held all the time: only then must it have seen everything.
    pub unbroken: bool,
    /// The messages, in order.
    pub messages: Vec<LiveMessage>,
}

/// A message that a plain subscriber saw.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveMessage {
    /// Its subject.
    pub subject: String,
    /// The header `Nats-Sequence`, which the stream sets on what it republishes.
    pub sequence: Option<u64>,
    /// Its payload; `Null` where that is no JSON.
    pub event: Value,
}

impl Request {
    /// Whether the other asks for the same: the same template and JSON, whatever the order of keys and the white space.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let json = |payload: &[u8]| serde_json::from_slice::<Value>(payload).ok();
        let alike = || json(&self.payload).is_some_and(|value| Some(value) == json(&other.payload));
        self.template == other.template && (self.payload == other.payload || alike())
    }
}

impl Ended {
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

impl DeadLetter {
    /// The header `Job-Request-Seq`.
    #[must_use]
    pub fn request_seq(&self) -> Option<u64> {
        self.headers.get("Job-Request-Seq")?.parse().ok()
    }

    /// A header's value; empty where it is absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The template, from the subject.
    #[must_use]
    pub fn template(&self) -> &str {
        self.subject.split('.').nth(1).unwrap_or_default()
    }
}

impl History {
    /// The Jobs of the watch, and those that only the stream tells of: gone before the watch saw them.
    #[must_use]
    pub fn all_jobs(&self) -> Vec<JobSeen> {
        let mut jobs = self.jobs.clone();
        let mut uids: BTreeSet<String> = jobs.iter().map(|job| job.uid.clone()).collect();
        for StatusMessage { event, .. } in &self.status {
            let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            let uid = text("uid");
            if uid.is_empty() || !uids.insert(uid.clone()) {
                continue;
            }
            jobs.push(JobSeen {
                name: text("name"),
                template: text("template"),
                uid,
                ours: true,
                request_id: text("requestId"),
                request_seq: event["requestSeq"].as_u64().unwrap_or_default(),
                ended: Ended::Unknown,
                deleted: true,
                ..JobSeen::default()
            });
        }
        jobs
    }

    /// Whether `JOB_STATUS` still has every message that it ever had.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.status.iter().zip(1..).all(|(message, seq)| message.stream_seq == seq)
    }

    /// How much there is of everything, on one line.
    #[must_use]
    pub fn summary(&self) -> String {
        format!(
            "{} publishes, {} Jobs, {} status messages, {} rejections",
            self.requests.len(),
            self.all_jobs().len(),
            self.status.len(),
            self.rejected.len()
        )
    }
}
