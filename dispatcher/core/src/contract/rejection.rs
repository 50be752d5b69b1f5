//! Why a request is rejected: a reason for programs and a message for people.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::contract::{
    names::{JobName, TemplateName},
    text,
};

/// The reason of a rejection: the header `Job-Error`, the notice's `reason`, the metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Reason {
    /// The payload is not JSON in UTF-8, or is nested too deeply.
    InvalidJson,
    /// The payload is JSON but not a request of this template: a field is missing, unknown, of the
    /// wrong type or too long.
    InvalidRequest,
    /// The given or derived name is not an RFC 1123 label.
    InvalidName,
    /// The headers are not text, or not in the format of NATS: clients cannot decode the message.
    InvalidHeaders,
    /// `Nats-Msg-Id` is not a valid request id.
    InvalidRequestId,
    /// Another request has the same request id.
    RequestIdReused,
    /// Another request or another program created a Job of that name.
    NameTaken,
    /// The request was cancelled while it was in the queue.
    Cancelled,
    /// The Kubernetes API refused this Job (invalid, or against a policy).
    Refused,
    /// The request failed repeatedly, while others of its template succeeded, and too many
    /// requests of the template fail.
    RetriesExhausted,
    /// The template was deleted, and its deletion policy is `Reject`.
    TemplateDeleted,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 11] = [
        Self::InvalidJson,
        Self::InvalidRequest,
        Self::InvalidName,
        Self::InvalidHeaders,
        Self::InvalidRequestId,
        Self::RequestIdReused,
        Self::NameTaken,
        Self::Cancelled,
        Self::Refused,
        Self::RetriesExhausted,
        Self::TemplateDeleted,
    ];

    /// The value on the wire.
    #[must_use]
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
            Self::RetriesExhausted => "RetriesExhausted",
            Self::TemplateDeleted => "TemplateDeleted",
        }
    }

    /// Whether a lookup of the Job of that name gave this reason, so that no other lookup is needed.
    #[must_use]
    pub fn is_from_lookup(self) -> bool {
        matches!(self, Self::RequestIdReused | Self::NameTaken)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The request cannot become a Job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct Rejection {
    /// The reason.
    pub reason: Reason,
    /// The message: the field, the expected value, the actual one.
    pub message: String,
    /// The Job's name, if it is valid.
    pub name: Option<JobName>,
}

impl Rejection {
    /// A rejection of a request without a valid name. The message can quote a client, so it is
    /// escaped and bounded.
    #[must_use]
    pub fn new(reason: Reason, message: impl AsRef<str>) -> Self {
        Self { reason, message: text::message(Some(message.as_ref())).unwrap_or_default(), name: None }
    }

    /// The same rejection, with the Job's name.
    #[must_use]
    pub fn with_name(self, name: &JobName) -> Self {
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
    /// The requested template.
    pub template: TemplateName,
    /// The Job's name, if it is valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<JobName>,
    /// The request id.
    pub request_id: String,
    /// The request's sequence in `JOBS`.
    pub request_seq: u64,
    /// The time of the rejection, RFC 3339 in UTC.
    pub time: String,
    /// The reason.
    pub reason: Reason,
    /// The message.
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
    fn quoted_text_of_a_client_is_escaped_and_bounded() {
        let value = format!("\u{202e}gnp.exe\u{1b}[2J{}", "x".repeat(10_000));
        let rejection = Rejection::new(Reason::InvalidRequest, format!("`foo`: found {value}"));
        assert!(rejection.message.starts_with("`foo`: found \\u202egnp.exe\\x1b[2Jxxx"), "{rejection}");
        assert!(rejection.message.len() <= text::MAX_MESSAGE, "{}", rejection.message.len());
    }

    #[test]
    fn reason_serializes_as_its_name() {
        for reason in Reason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }
}
