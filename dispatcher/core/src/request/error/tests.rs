//! Answers of a real API server (1.37), and what webhooks and clients can put into them.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use CreateFailure::{Blocked, Exists, Forbidden, Refused, Throttled, Transient};

const NAME: &str = "simple-job-a";

fn error(code: u16, reason: &str, message: &str, details: Value) -> CallError {
    let status =
        json!({"status": "Failure", "code": code, "reason": reason, "message": message, "details": details});
    CallError::Status(serde_json::from_value(status).unwrap())
}

fn status(code: u16, reason: &str, message: &str) -> CallError {
    error(code, reason, message, json!({}))
}

/// An answer of an admission plugin: `admission.NewForbidden`.
fn by_admission(code: u16, text: &str) -> CallError {
    let details = json!({"name": NAME, "group": "batch", "kind": "jobs"});
    error(code, "Forbidden", &format!("jobs.batch \"{NAME}\" is forbidden: {text}"), details)
}

#[test]
fn create_errors_are_classified() {
    let terminating = json!({"name": NAME, "causes": [{"reason": "NamespaceTerminating"}]});
    let existing = json!({"name": NAME, "group": "batch", "kind": "jobs"});
    let namespace = json!({"name": "jobs", "kind": "namespaces"});
    for (error, expected) in [
        (error(409, "AlreadyExists", "jobs.batch \"simple-job-a\" already exists", existing.clone()), Exists),
        // A Job that a finalizer holds.
        (
            error(409, "AlreadyExists", "object is being deleted: jobs.batch … already exists", existing),
            Exists,
        ),
        (status(409, "Conflict", "Operation cannot be fulfilled on resourcequotas \"q\""), Transient),
        (by_admission(403, "exceeded quota: q, requested: count/jobs.batch=1"), Throttled),
        (by_admission(403, "insufficient quota to consume: count/jobs.batch"), Throttled),
        (by_admission(403, "failed quota: q: must specify count/jobs.batch"), Refused),
        (by_admission(403, "status unknown for quota: q, resources: count/jobs.batch"), Transient),
        (by_admission(403, "not yet ready to handle request"), Transient),
        (by_admission(403, "cannot set an ownerRef on a resource you can't delete"), Refused),
        (status(429, "TooManyRequests", "slow down"), Throttled),
        (status(500, "InternalError", "etcdserver: request timed out"), Transient),
        (
            status(500, "InternalError", "Internal error occurred: failed calling webhook \"a.b\": EOF"),
            Transient,
        ),
        (status(503, "ServiceUnavailable", "x"), Transient),
        (status(504, "Timeout", "x"), Transient),
        (CallError::DeadlineExceeded(Duration::from_secs(10)), Transient),
        (CallError::Transport("connection refused".into()), Transient),
        (status(401, "Unauthorized", "Unauthorized"), Blocked),
        (error(404, "NotFound", "namespaces \"jobs\" not found", namespace), Blocked),
        (
            error(403, "Forbidden", "jobs.batch \"simple-job-a\" is forbidden: unable to", terminating),
            Blocked,
        ),
        (status(403, "Forbidden", "jobs.batch is forbidden: User \"x\" cannot create resource"), Forbidden),
        (status(422, "Invalid", "Job.batch \"a\" is invalid"), Refused),
        (status(400, "BadRequest", "unknown field"), Refused),
        (status(413, "RequestEntityTooLarge", "x"), Refused),
    ] {
        assert_eq!(classify(&error, NAME), expected, "{error}");
    }
}

/// Texts that mean something else at the start of a message, and that a client can choose.
const QUOTED: [&str; 8] = [
    "exceeded quota: q",
    "exceeded quota",
    "admission webhook \"x\" denied the request: no",
    "not yet ready to handle request",
    "jobs.batch \"simple-job-a\" is forbidden: exceeded quota: q",
    "jobs.batch \"simple-job-a\" already exists",
    "NamespaceTerminating",
    "User \"x\" cannot create resource \"jobs\"",
];

#[test]
fn denial_is_a_refusal_whatever_its_code_and_text() {
    let forged = json!({"name": NAME, "group": "batch", "kind": "jobs", "causes": [{"reason": "NamespaceTerminating"}]});
    for quoted in QUOTED {
        for code in [400, 401, 403, 404, 409, 410, 418, 422, 429, 500, 503, 504, 599, 666] {
            for reason in ["", "AlreadyExists", "Forbidden", "TooManyRequests", "Unauthorized"] {
                let message =
                    format!("admission webhook \"images.example.org\" denied the request: {quoted}");
                assert_eq!(
                    classify(&error(code, reason, &message, forged.clone()), NAME),
                    Refused,
                    "{message}"
                );
            }
        }
        for code in [401, 403, 413, 422] {
            let message =
                format!("ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no tier {quoted}");
            assert_eq!(classify(&by_admission(code, &message), NAME), Refused, "{message}");
        }
        for start in ["policy 'p' with binding 'b' denied request: ", "policy \"p\" denied request: "] {
            let message = format!("{start}expression resulted in error: {quoted}");
            assert_eq!(
                classify(&error(403, "Invalid", &message, forged.clone()), NAME),
                Refused,
                "{message}"
            );
        }
        let invalid = format!("Job.batch \"{NAME}\" is invalid: spec: Invalid value: \"{quoted}\"");
        assert_eq!(classify(&status(422, "Invalid", &invalid), NAME), Refused);
    }
}

#[test]
fn broken_webhook_is_no_denial() {
    for quoted in QUOTED {
        let message = format!("Internal error occurred: failed calling webhook \"a.b\": {quoted}");
        assert_eq!(classify(&status(500, "InternalError", &message), NAME), Transient, "{message}");
    }
}

#[test]
fn already_exists_of_another_object_is_not_our_job() {
    for details in [
        json!({}),
        json!({"name": "other", "kind": "jobs"}),
        json!({"name": NAME, "kind": "serviceaccounts"}),
    ] {
        let error = error(409, "AlreadyExists", "already exists", details);
        assert_eq!(classify(&error, NAME), Transient, "{error}");
    }
}

#[test]
fn canary_tells_an_outage_from_its_own_refusal() {
    let of = |error: CallError| CanaryResult::of::<()>(Err(error), NAME);
    let existing = json!({"name": NAME, "group": "batch", "kind": "jobs"});
    assert_eq!(CanaryResult::of(Ok(()), NAME), CanaryResult::Passed);
    assert_eq!(of(error(409, "AlreadyExists", "already exists", existing)), CanaryResult::Passed);
    let no_dry_run = "admission webhook \"a.b\" does not support dry run";
    assert_eq!(of(status(400, "BadRequest", no_dry_run)), CanaryResult::Unknown);
    for outage in [
        by_admission(403, "exceeded quota: q"),
        status(500, "InternalError", "Internal error occurred: failed calling webhook \"a.b\": EOF"),
        status(403, "Forbidden", "jobs.batch is forbidden: User \"x\" cannot create resource"),
        CallError::Transport("connection refused".into()),
    ] {
        assert!(matches!(of(outage), CanaryResult::Failed(_)));
    }
}

proptest! {
    /// Nothing behind the API server's own start changes the class.
    #[test]
    fn text_of_a_client_decides_nothing(text in ".{0,60}", code in 400_u16..=999) {
        let webhook = format!("admission webhook \"a.b\" denied the request: {text}");
        prop_assert_eq!(classify(&status(code, "", &webhook), NAME), Refused);
        let policy = format!("ValidatingAdmissionPolicy 'p' denied request: {text}");
        prop_assert_eq!(classify(&by_admission(403, &policy), NAME), Refused);
        let calling = format!("Internal error occurred: failed calling webhook \"a.b\": {text}");
        prop_assert_eq!(classify(&status(500, "InternalError", &calling), NAME), Transient);
        let quota = format!("exceeded quota: {text}");
        prop_assert_eq!(classify(&by_admission(403, &quota), NAME), Throttled);
    }
}
