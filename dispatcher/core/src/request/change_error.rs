//! Classifies a failed patch or delete of one existing Job.
//!
//! A refusal concerns this Job only: other Jobs can be changed, so the service stays ready. The
//! structure of the API server's answer decides, never words inside a message, which a client or a
//! webhook can choose.

use std::time::Duration;

use crate::request::error::CallError;

/// The class of a failed change of a Job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeFailure {
    /// The API server is not reachable, fails, or does not permit any such change.
    Unavailable,
    /// Admission control or validation refuses this change of this Job.
    Refused,
}

/// How the admission plugins of the API server begin a denial.
const DENIALS: [&str; 3] =
    ["admission webhook \"", "ValidatingAdmissionPolicy '", "MutatingAdmissionPolicy '"];
/// How the API server begins its answer if RBAC or another authorizer does not permit the call.
const UNAUTHORIZED: &str = "User \"";

/// Classifies a failed change of the Job with this name.
#[must_use]
pub fn classify_change(error: &CallError, name: &str) -> ChangeFailure {
    let CallError::Status(status) = error else { return ChangeFailure::Unavailable };
    if is_denial(error, name) {
        return ChangeFailure::Refused;
    }
    let answer = reason(&status.message, name);
    match status.code {
        403 if answer.starts_with(UNAUTHORIZED) => ChangeFailure::Unavailable,
        401 | 408 | 409 | 429 | 500.. => ChangeFailure::Unavailable,
        _ => ChangeFailure::Refused,
    }
}

/// Whether admission control denied the change. A webhook chooses any code for its denial, also 404
/// and 409.
#[must_use]
pub fn is_denial(error: &CallError, name: &str) -> bool {
    let CallError::Status(status) = error else { return false };
    let answer = reason(&status.message, name);
    DENIALS.iter().any(|denial| answer.starts_with(denial))
}

/// The message without the object that the API server names first.
fn reason<'a>(message: &'a str, name: &str) -> &'a str {
    message.strip_prefix(&format!("jobs.batch \"{name}\" is forbidden: ")).unwrap_or(message)
}

const MIN_DELAY: Duration = Duration::from_secs(1);
const MAX_DELAY: Duration = Duration::from_secs(300);

/// The delay before a change is tried again that was refused `refusals` times: 1 s doubling to 5 min.
#[must_use]
pub fn refusal_delay(refusals: u32) -> Duration {
    let doublings = refusals.saturating_sub(1).min(16);
    MIN_DELAY.saturating_mul(1 << doublings).min(MAX_DELAY)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(code: u16, message: &str) -> CallError {
        let status = json!({"status": "Failure", "code": code, "reason": "x", "message": message});
        CallError::Status(serde_json::from_value(status).unwrap())
    }

    #[test]
    fn denial_of_a_policy_or_webhook_is_a_refusal_whatever_its_code() {
        for code in [400, 401, 403, 404, 409, 422, 429, 500, 503] {
            for message in [
                "admission webhook \"a.example.org\" denied the request: no",
                "jobs.batch \"a\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no",
            ] {
                assert_eq!(classify_change(&status(code, message), "a"), ChangeFailure::Refused, "{code}");
                assert!(is_denial(&status(code, message), "a"), "{code}");
            }
        }
    }

    #[test]
    fn other_answers_are_classified_by_their_code() {
        use ChangeFailure::{Refused, Unavailable};
        let rbac = "jobs.batch \"a\" is forbidden: User \"system:serviceaccount:d:d\" cannot patch resource";
        for (error, expected) in [
            (status(403, rbac), Unavailable),
            (status(403, "jobs.batch \"a\" is forbidden: exceeded quota: q"), Refused),
            (status(422, "Job.batch \"a\" is invalid"), Refused),
            (status(400, "bad"), Refused),
            (status(401, "Unauthorized"), Unavailable),
            (status(409, "Operation cannot be fulfilled"), Unavailable),
            (status(429, "slow down"), Unavailable),
            (status(500, "Internal error occurred: failed calling webhook \"a\""), Unavailable),
            (status(503, "x"), Unavailable),
            (CallError::Transport("connection refused".into()), Unavailable),
            (CallError::DeadlineExceeded(Duration::from_secs(10)), Unavailable),
        ] {
            assert_eq!(classify_change(&error, "a"), expected, "{error}");
        }
    }

    /// The Job of a cancellation can be deleted or changed by another replica at the same moment.
    #[test]
    fn missing_or_changed_job_is_no_denial() {
        for (code, message) in [
            (404, "jobs.batch \"a\" not found"),
            (409, "Operation cannot be fulfilled on jobs.batch \"a\": the object has been modified"),
            (403, "jobs.batch \"a\" is forbidden: exceeded quota: q"),
        ] {
            assert!(!is_denial(&status(code, message), "a"), "{code}");
        }
    }

    #[test]
    fn quoted_text_of_a_client_does_not_decide() {
        // The name of another object, or a denial inside of a message.
        let message = "etcdserver: admission webhook \"x\" denied the request";
        assert_eq!(classify_change(&status(500, message), "a"), ChangeFailure::Unavailable);
        let policy =
            "jobs.batch \"a\" is forbidden: ValidatingAdmissionPolicy 'p' denied request: User \"x\" cannot";
        assert_eq!(classify_change(&status(403, policy), "a"), ChangeFailure::Refused);
    }

    #[test]
    fn delay_doubles_up_to_five_minutes() {
        let delays: Vec<_> = [1, 2, 3, 9, 10, u32::MAX].map(|n| refusal_delay(n).as_secs()).into();
        assert_eq!(delays, [1, 2, 4, 256, 300, 300]);
    }
}
