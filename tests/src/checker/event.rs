//! Parses messages of `JOB_STATUS` as status events.

use std::fmt;

use super::history::{JobRecord, StatusMessage};

/// A status event with its required fields.
#[derive(Debug, Clone, Copy)]
pub(super) struct Event<'a> {
    pub(super) message: &'a StatusMessage,
    pub(super) type_: &'a str,
    pub(super) template: &'a str,
    pub(super) name: &'a str,
    pub(super) uid: &'a str,
    pub(super) request_id: &'a str,
    pub(super) request_seq: u64,
    pub(super) version: u64,
}

impl<'a> Event<'a> {
    /// Parses a message; the error names the missing or invalid field.
    pub(super) fn read(message: &'a StatusMessage) -> Result<Self, String> {
        let text = |key: &str| match message.event[key].as_str() {
            Some(text) if !text.is_empty() => Ok(text),
            _ => Err(format!("`{key}` is missing")),
        };
        let version = text("resourceVersion")?;
        let event = Self {
            message,
            type_: text("type")?,
            template: text("template")?,
            name: text("name")?,
            uid: text("uid")?,
            request_id: text("requestId")?,
            request_seq: message.event["requestSeq"].as_u64().ok_or("`requestSeq` is missing")?,
            version: version.parse().map_err(|_| format!("`resourceVersion` {version} is not a number"))?,
        };
        event.content().map(|()| event)
    }

    /// Checks the field that is specific to the type.
    fn content(&self) -> Result<(), String> {
        let body = &self.message.event;
        let needed = [
            ("OUTCOME", "outcome", &body["outcome"]["result"]),
            ("ATTEMPT", "attempt", &body["attempt"]["pod"]),
            ("STALLED", "stall", &body["stall"]["reason"]),
        ];
        for (type_, key, field) in needed {
            match (self.type_ == type_, field.as_str().is_some_and(|text| !text.is_empty())) {
                (true, false) => return Err(format!("type {type_} without `{key}`")),
                (false, _) if !body[key].is_null() => {
                    return Err(format!("type {} with `{key}`", self.type_));
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn is_outcome(&self) -> bool {
        self.type_ == "OUTCOME"
    }

    /// Whether it is about the state of the Job, not about a pod.
    pub(super) fn is_state(&self) -> bool {
        matches!(self.type_, "ADDED" | "MODIFIED" | "DELETED")
    }

    /// Whether it is about pods.
    pub(super) fn is_of_pods(&self) -> bool {
        matches!(self.type_, "ATTEMPT" | "STALLED")
    }

    pub(super) fn result(&self) -> Option<&'a str> {
        self.message.event["outcome"]["result"].as_str()
    }
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StatusMessage { stream_seq, subject, .. } = self.message;
        let Self { type_, uid, version, request_seq, .. } = self;
        write!(
            formatter,
            "message {stream_seq} on {subject} ({type_} of uid {uid} at {version}, request {request_seq})"
        )
    }
}

impl fmt::Display for JobRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { template, name, uid, request_id, request_seq, finish, .. } = self;
        let deleted = if self.deleted { ", deleted" } else { "" };
        let watched = if self.watched { "" } else { ", known only from its events" };
        write!(
            formatter,
            "Job {template}/{name} (uid {uid}, request {request_seq} {request_id:?}, finish: {finish:?}{deleted}{watched})"
        )
    }
}
