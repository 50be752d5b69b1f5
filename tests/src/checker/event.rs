//! A message of `JOB_STATUS`, read as a status event.

use std::fmt;

use super::history::{JobSeen, StatusMessage};

/// A status event with the fields that every one has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Event<'a> {
    pub(super) message: &'a StatusMessage,
    pub(super) word: &'a str,
    pub(super) template: &'a str,
    pub(super) name: &'a str,
    pub(super) uid: &'a str,
    pub(super) request_id: &'a str,
    pub(super) request_seq: u64,
    pub(super) version: u64,
}

impl<'a> Event<'a> {
    /// Reads a message; the error says what is missing.
    pub(super) fn read(message: &'a StatusMessage) -> Result<Self, String> {
        let text = |key: &str| match message.event[key].as_str() {
            Some(text) if !text.is_empty() => Ok(text),
            _ => Err(format!("no `{key}`")),
        };
        let version = text("resourceVersion")?;
        let event = Self {
            message,
            word: text("type")?,
            template: text("template")?,
            name: text("name")?,
            uid: text("uid")?,
            request_id: text("requestId")?,
            request_seq: message.event["requestSeq"].as_u64().ok_or("no `requestSeq`")?,
            version: version.parse().map_err(|_| format!("`resourceVersion` {version} is no number"))?,
        };
        event.content().map(|()| event)
    }

    /// What each type carries, and no other.
    fn content(&self) -> Result<(), String> {
        let body = &self.message.event;
        let needed = [
            ("OUTCOME", "outcome", &body["outcome"]["result"]),
            ("ATTEMPT", "attempt", &body["attempt"]["pod"]),
            ("STALLED", "stall", &body["stall"]["reason"]),
        ];
        for (word, key, field) in needed {
            match (self.word == word, field.as_str().is_some_and(|text| !text.is_empty())) {
                (true, false) => return Err(format!("an event {word} without its `{key}`")),
                (false, _) if !body[key].is_null() => {
                    return Err(format!("`{key}` in an event {}", self.word));
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn is_outcome(&self) -> bool {
        self.word == "OUTCOME"
    }

    /// Whether it tells a state of the Job, and not of a pod.
    pub(super) fn is_state(&self) -> bool {
        matches!(self.word, "ADDED" | "MODIFIED" | "DELETED")
    }

    /// Whether it tells of pods.
    pub(super) fn is_of_pods(&self) -> bool {
        matches!(self.word, "ATTEMPT" | "STALLED")
    }

    pub(super) fn result(&self) -> Option<&'a str> {
        self.message.event["outcome"]["result"].as_str()
    }
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StatusMessage { stream_seq, subject, .. } = self.message;
        let Self { word, uid, version, request_seq, .. } = self;
        write!(
            formatter,
            "message {stream_seq} on {subject} ({word} of uid {uid} at {version}, request {request_seq})"
        )
    }
}

impl fmt::Display for JobSeen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { template, name, uid, request_id, request_seq, ended, .. } = self;
        let deleted = if self.deleted { ", deleted" } else { "" };
        let watched = if self.watched { "" } else { ", known from its events only" };
        write!(
            formatter,
            "Job {template}/{name} (uid {uid}, request {request_seq} {request_id:?}, ended: {ended:?}{deleted}{watched})"
        )
    }
}
