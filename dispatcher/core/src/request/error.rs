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

/// What failed: decides whether a canary can tell an outage from a failing request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The create of the Job. A dry-run create of another Job fails too, if no Job can be created.
    Create,
    /// Anything else: a lookup, a stream, an ack, the deadline of the whole request.
    Other,
}

/// Why a delivery of a request ends without a Job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandleError {
    /// A later delivery may succeed. The cause may be this request alone.
    Transient(Stage, String),
    /// A later delivery may succeed. The cause concerns every request: a quota, a rate limit.
    Throttled(String),
    /// No delivery can succeed: the request becomes a dead letter.
    Permanent(Rejection),
    /// No request of this template can succeed until configuration or permissions change.
    Blocked(Stage, String),
}

impl HandleError {
    /// A failure outside the create.
    #[must_use]
    pub fn other(error: impl ToString) -> Self {
        Self::Transient(Stage::Other, error.to_string())
    }

    /// Classifies a failed call other than the create.
    #[must_use]
    pub fn of_call(error: &CallError) -> Self {
        match error.code() {
            Some(401 | 403) => Self::Blocked(Stage::Other, error.to_string()),
            _ => Self::other(error),
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
    /// No Job can be created until a quota or a rate limit permits it.
    Throttled,
    /// No Job can be created until configuration or permissions change.
    Blocked,
    /// The API server refuses this Job.
    Refused,
    /// A permission is missing, or an unknown part refuses this Job: an access review decides.
    Forbidden,
}

impl CreateFailure {
    /// Every class.
    pub const ALL: [Self; 6] =
        [Self::Exists, Self::Transient, Self::Throttled, Self::Blocked, Self::Refused, Self::Forbidden];

    /// The value of the metric's label `result`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Exists => "exists",
            Self::Transient => "transient",
            Self::Throttled => "throttled",
            Self::Blocked => "blocked",
            Self::Refused => "refused",
            Self::Forbidden => "forbidden",
        }
    }
}

/// How the API server starts the message of a denial by admission control, with any code.
///
/// Webhooks choose code, reason and details, and quote the Job. The start is the API server's own
/// (`webhook/errors.ToStatusErr`, `policy/validating`, `policy/generic.PolicyError`).
const DENIALS: [&str; 4] = ["admission webhook \"", "ValidatingAdmissionPolicy '", "policy '", "policy \""];

/// How a quota starts its message. It counts all Jobs of the namespace alike.
const QUOTAS: [&str; 2] = ["exceeded quota: ", "insufficient quota to consume: "];

/// Messages of admission plugins that have not read their objects yet: after a start of the API
/// server, or right after a quota was created.
const NOT_READY: [&str; 2] = ["not yet ready to handle request", "status unknown for quota: "];

/// Classifies a failed create of the Job `name`, by the structure of the answer.
///
/// Clients choose parts of messages, and webhooks choose codes. So a message is compared at its
/// start only, behind the prefix that the API server writes.
#[must_use]
pub fn classify(error: &CallError, name: &str) -> CreateFailure {
    let CallError::Status(status) = error else { return CreateFailure::Transient };
    let own_prefix = format!("jobs.batch \"{name}\" is forbidden: ");
    let by_admission = status.message.strip_prefix(&own_prefix);
    let text = by_admission.unwrap_or(&status.message);
    let starts = |all: &[&str]| all.iter().any(|start| text.starts_with(start));
    if starts(&DENIALS) {
        return CreateFailure::Refused;
    }
    let details = status.details.as_ref();
    let has_cause = |reason: &str| details.iter().flat_map(|d| &d.causes).any(|cause| cause.reason == reason);
    match (status.code, status.reason.as_str()) {
        (409, "AlreadyExists") if details.is_some_and(|d| d.kind == "jobs" && d.name == name) => {
            CreateFailure::Exists
        }
        (429, _) => CreateFailure::Throttled,
        // Quota admission answers 409 when two requests conflict.
        (409 | 500.., _) => CreateFailure::Transient,
        (403, _) if has_cause("NamespaceTerminating") => CreateFailure::Blocked,
        (403, _) if by_admission.is_none() => CreateFailure::Forbidden,
        (403, _) if starts(&QUOTAS) => CreateFailure::Throttled,
        (403, _) if starts(&NOT_READY) => CreateFailure::Transient,
        (401 | 404, _) => CreateFailure::Blocked,
        _ => CreateFailure::Refused,
    }
}

/// What a dry-run create of another Job says about the failures of other requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CanaryResult {
    /// Jobs can be created.
    Passed,
    /// No Job can be created, for this reason.
    Failed(String),
    /// The answer concerns the canary itself, or no canary is known.
    Unknown,
}

impl CanaryResult {
    /// Interprets the answer to a dry-run create of the Job `name`.
    #[must_use]
    pub fn of<T>(answer: Result<T, CallError>, name: &str) -> Self {
        let Err(error) = answer else { return Self::Passed };
        match classify(&error, name) {
            // The API server checks the name last, also in a dry run.
            CreateFailure::Exists => Self::Passed,
            // A policy has changed, or a webhook does not support dry runs.
            CreateFailure::Refused => Self::Unknown,
            CreateFailure::Transient
            | CreateFailure::Throttled
            | CreateFailure::Blocked
            | CreateFailure::Forbidden => Self::Failed(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
