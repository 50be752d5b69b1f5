//! Why a request could not become a Job: one word for programs, one sentence for people.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::contract::names::{JobName, TemplateName};

/// The word of a rejection: the header `Job-Error`, the notice's `reason`, the metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Reason {
    /// The payload is not JSON in UTF-8, or is nested too deeply.
    InvalidJson,
    /// JSON, but not a request of this template: a field is missing, unknown, of the wrong type or too long.
    InvalidRequest,
    /// The name that was given or derived is no RFC 1123 label.
    InvalidName,
    /// The headers are no text, or not as NATS has them: no client could read the message.
    InvalidHeaders,
    /// `Nats-Msg-Id` is no valid identity.
    InvalidRequestId,
    /// This identity was used before, with another request.
    RequestIdReused,
    /// A Job of that name, made by another request or by someone else, is there.
    NameTaken,
    /// Somebody cancelled it while it was in the queue.
    Cancelled,
    /// The Kubernetes API refused this very Job (invalid, or against a policy).
    Refused,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::InvalidJson,
        Self::InvalidRequest,
        Self::InvalidName,
        Self::InvalidHeaders,
        Self::InvalidRequestId,
        Self::RequestIdReused,
        Self::NameTaken,
        Self::Cancelled,
        Self::Refused,
    ];

    /// The word itself, as it stands on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJson => "InvalidJson",
            Self::InvalidRequest => "InvalidRequest",
            Self::InvalidName => "InvalidName",
            Self::InvalidHeaders => "InvalidHeaders",
            Self::InvalidRequestId => "InvalidRequestId",
            Self::RequestIdReused => "RequestIdReused",
            Self::NameTaken => "NameTaken",
            Self::Cancelled => "Cancelled",
            Self::Refused => "Refused",
        }
    }
}

impl Reason {
    /// Whether the reason was found by looking at what is there under that name, so that nothing is left to look up.
    pub fn is_from_lookup(self) -> bool {
        matches!(self, Self::RequestIdReused | Self::NameTaken)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A request's end without a Job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct Rejection {
    /// The word.
    pub reason: Reason,
    /// For the reader: which field, what was found, what is allowed.
    pub message: String,
    /// The Job's name, where it is valid.
    pub name: Option<JobName>,
}

impl Rejection {
    /// A rejection that concerns no valid name.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), name: None }
    }

    /// The same rejection of a request whose name is known.
    pub fn of(self, name: &JobName) -> Self {
        Self { name: Some(name.clone()), ..self }
    }
}

/// The notice on `jobs.<template>.status._rejected`, in the form of a status event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RejectedNotice {
    /// Always `REJECTED`.
    #[serde(rename = "type")]
    pub event: RejectedType,
    /// The template that was asked for.
    pub template: TemplateName,
    /// The Job's name, where it is valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<JobName>,
    /// The request's identity.
    pub request_id: String,
    /// The request's sequence in `JOBS`.
    pub request_seq: u64,
    /// When it was rejected, RFC 3339 in UTC.
    pub time: String,
    /// The word.
    pub reason: Reason,
    /// The sentence.
    pub message: String,
}

/// The only value of a notice's `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RejectedType {
    /// A request could not become a Job.
    #[serde(rename = "REJECTED")]
    Rejected,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_on_the_wire_is_the_variant() {
        for reason in Reason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }
}
