//! The failure classes of a request, and how a failed call to Kubernetes is classified.

use std::time::Duration;

use kube_core::Status;

use crate::contract::rejection::Rejection;

/// A failed call to the API server.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The API server answered with an error.
    #[error("{} ({} {})", .0.message, .0.code, .0.reason)]
    Status(Box<Status>),
    /// No answer before the deadline. The call may have taken effect.
    #[error("no answer within {} s", .0.as_secs())]
    DeadlineExceeded(Duration),
    /// The request or its answer was lost. The call may have taken effect.
    #[error("{0}")]
    Transport(String),
}

impl CallError {
    /// The HTTP status code, if the API server answered.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Status(status) => Some(status.code),
            _ => None,
        }
    }
}

/// Why a delivery of a request ends without a Job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandleError {
    /// A later delivery may succeed.
    Transient(String),
    /// No delivery can succeed: the request becomes a dead letter.
    Permanent(Rejection),
    /// No request of this template can succeed until configuration or permissions change.
    Blocked(String),
}

impl HandleError {
    /// Classifies a failed GET of a Job.
    #[must_use]
    pub fn of_read(error: &CallError) -> Self {
        match error.code() {
            Some(401 | 403) => Self::Blocked(error.to_string()),
            _ => Self::Transient(error.to_string()),
        }
    }
}

/// The class of a failed create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateFailure {
    /// A Job of that name exists.
    Exists,
    /// A retry may succeed, or the Job may have been created.
    Transient,
    /// No Job can be created until configuration or permissions change.
    Blocked,
    /// The API server refuses this Job.
    Refused,
    /// A policy refuses this Job, or a permission is missing: an access review decides.
    Forbidden,
}

impl CreateFailure {
    /// Every class.
    pub const ALL: [Self; 5] = [Self::Exists, Self::Transient, Self::Blocked, Self::Refused, Self::Forbidden];

    /// The value of the metric's label `result`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Exists => "exists",
            Self::Transient => "transient",
            Self::Blocked => "blocked",
            Self::Refused => "refused",
            Self::Forbidden => "forbidden",
        }
    }
}

/// Classifies a failed create (Kubernetes API conventions, "Response Status Kind").
#[must_use]
pub fn classify(error: &CallError) -> CreateFailure {
    let CallError::Status(status) = error else { return CreateFailure::Transient };
    let has_cause =
        |reason: &str| status.details.iter().flat_map(|d| &d.causes).any(|cause| cause.reason == reason);
    match (status.code, status.reason.as_str()) {
        (409, "AlreadyExists") => CreateFailure::Exists,
        // Quota admission answers 403 when the quota is exceeded, 409 when two requests conflict.
        (409 | 429 | 500.., _) => CreateFailure::Transient,
        (403, _) if status.message.contains("exceeded quota") => CreateFailure::Transient,
        (403, _) if has_cause("NamespaceTerminating") => CreateFailure::Blocked,
        (403, _) => CreateFailure::Forbidden,
        (401 | 404, _) => CreateFailure::Blocked,
        _ => CreateFailure::Refused,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(code: u16, reason: &str, message: &str) -> CallError {
        let status = json!({"status": "Failure", "code": code, "reason": reason, "message": message,
            "details": {"causes": [{"reason": reason}]}});
        CallError::Status(serde_json::from_value(status).unwrap())
    }

    #[test]
    fn create_errors_are_classified() {
        use CreateFailure::{Blocked, Exists, Forbidden, Refused, Transient};
        for (error, expected) in [
            (status(409, "AlreadyExists", "jobs.batch \"a\" already exists"), Exists),
            (status(409, "Conflict", "Operation cannot be fulfilled on resourcequotas \"q\""), Transient),
            (
                status(
                    403,
                    "Forbidden",
                    "jobs.batch \"a\" is forbidden: exceeded quota: q, requested: count/jobs.batch=1",
                ),
                Transient,
            ),
            (status(429, "TooManyRequests", "slow down"), Transient),
            (status(500, "InternalError", "etcdserver: request timed out"), Transient),
            (status(503, "ServiceUnavailable", "x"), Transient),
            (status(504, "Timeout", "x"), Transient),
            (CallError::DeadlineExceeded(Duration::from_secs(10)), Transient),
            (CallError::Transport("connection refused".into()), Transient),
            (status(401, "Unauthorized", "Unauthorized"), Blocked),
            (status(404, "NotFound", "namespaces \"jobs\" not found"), Blocked),
            (status(403, "NamespaceTerminating", "being terminated"), Blocked),
            (status(403, "Forbidden", "User cannot create resource"), Forbidden),
            (status(422, "Invalid", "Job.batch \"a\" is invalid"), Refused),
            (status(400, "BadRequest", "admission webhook denied the request"), Refused),
            (status(413, "RequestEntityTooLarge", "x"), Refused),
        ] {
            assert_eq!(classify(&error), expected, "{error}");
        }
    }
}
