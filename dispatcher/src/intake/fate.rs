//! The three fates of a request that did not become a Job: later, never, or not before somebody mends something.

use crate::{contract::rejection::Rejection, kubernetes::CallError};

/// What happens to a request that has no Job yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Delivered again after a while.
    Retry(String),
    /// Copied to the dead letters and ended.
    Reject(Rejection),
    /// Kept; the kind's intake says why it is not ready.
    NotReady(String),
}

impl Fate {
    /// The fate of a request whose Job could not be looked at.
    pub fn of_read(error: &CallError) -> Self {
        match error.code() {
            Some(401 | 403) => Self::NotReady(error.to_string()),
            _ => Self::Retry(error.to_string()),
        }
    }
}

/// What a failed create means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateFailure {
    /// A Job of that name is there.
    Exists,
    /// It may succeed later, or it is not known whether it did.
    Retry,
    /// Nothing can be created until somebody mends something.
    NotReady,
    /// This very Job is refused.
    Refused,
    /// A policy's refusal or a missing right: an access review tells.
    Forbidden,
}

impl CreateFailure {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Exists, Self::Retry, Self::NotReady, Self::Refused, Self::Forbidden];

    /// The metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exists => "exists",
            Self::Retry => "retry",
            Self::NotReady => "not_ready",
            Self::Refused => "refused",
            Self::Forbidden => "forbidden",
        }
    }
}

/// Reads the error of a create (Kubernetes API conventions, "Response Status Kind").
pub fn classify(error: &CallError) -> CreateFailure {
    let CallError::Status(status) = error else { return CreateFailure::Retry };
    let cause = |word: &str| status.details.iter().flat_map(|d| &d.causes).any(|cause| cause.reason == word);
    match (status.code, status.reason.as_str()) {
        (409, "AlreadyExists") => CreateFailure::Exists,
        // Quota admission answers with 403 when it is exceeded, with 409 when two requests met.
        (409 | 429, _) | (500.., _) => CreateFailure::Retry,
        (403, _) if status.message.contains("exceeded quota") => CreateFailure::Retry,
        (403, _) if cause("NamespaceTerminating") => CreateFailure::NotReady,
        (403, _) => CreateFailure::Forbidden,
        (401 | 404, _) => CreateFailure::NotReady,
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
    fn each_error_has_its_fate() {
        use CreateFailure::{Exists, Forbidden, NotReady, Refused, Retry};
        for (error, expected) in [
            (status(409, "AlreadyExists", "jobs.batch \"a\" already exists"), Exists),
            (status(409, "Conflict", "Operation cannot be fulfilled on resourcequotas \"q\""), Retry),
            (
                status(
                    403,
                    "Forbidden",
                    "jobs.batch \"a\" is forbidden: exceeded quota: q, requested: count/jobs.batch=1",
                ),
                Retry,
            ),
            (status(429, "TooManyRequests", "slow down"), Retry),
            (status(500, "InternalError", "etcdserver: request timed out"), Retry),
            (status(503, "ServiceUnavailable", "x"), Retry),
            (status(504, "Timeout", "x"), Retry),
            (CallError::Late, Retry),
            (CallError::Transport("connection refused".into()), Retry),
            (status(401, "Unauthorized", "Unauthorized"), NotReady),
            (status(404, "NotFound", "namespaces \"jobs\" not found"), NotReady),
            (status(403, "NamespaceTerminating", "being terminated"), NotReady),
            (status(403, "Forbidden", "User cannot create resource"), Forbidden),
            (status(422, "Invalid", "Job.batch \"a\" is invalid"), Refused),
            (status(400, "BadRequest", "admission webhook denied the request"), Refused),
            (status(413, "RequestEntityTooLarge", "x"), Refused),
        ] {
            assert_eq!(classify(&error), expected, "{error}");
        }
    }
}
