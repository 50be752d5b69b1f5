use serde_json::json;

use super::*;
use crate::testing::a_job;

fn condition(type_: &str, status: &str) -> Value {
    json!({"type": type_, "status": status, "reason": "R", "message": "M", "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

#[test]
fn a_job_without_a_true_final_condition_has_no_outcome() {
    for conditions in [
        json!([]),
        json!([condition("Complete", "False")]),
        json!([condition("Failed", "Unknown")]),
        json!([condition("SuccessCriteriaMet", "True")]),
        json!([condition("FailureTarget", "True")]),
        json!([condition("Suspended", "True")]),
    ] {
        let job = a_job("u", 1, json!({"conditions": conditions, "failed": 4, "succeeded": 1}));
        assert_eq!(job.outcome(), None, "{conditions}");
    }
    assert_eq!(a_job("u", 1, Value::Null).outcome(), None);
}

#[test]
fn three_and_four_failed_pods_are_both_judged_by_the_condition() {
    for failed in [3, 4] {
        let status = json!({
            "failed": failed, "startTime": "2026-01-01T00:00:00Z",
            "conditions": [
                condition("FailureTarget", "True"),
                {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded",
                 "message": "Job has reached the specified backoff limit", "lastTransitionTime": "2026-01-01T00:01:10Z"},
            ],
        });
        let outcome = a_job("u", 1, status).outcome().unwrap();
        assert_eq!(outcome.result, OutcomeResult::Failed);
        assert_eq!(outcome.reason.as_deref(), Some("BackoffLimitExceeded"));
        assert_eq!(outcome.message.as_deref(), Some("Job has reached the specified backoff limit"));
        assert_eq!(outcome.failed, failed);
        assert_eq!(outcome.finish_time.as_deref(), Some("2026-01-01T00:01:10Z"));
    }
}

#[test]
fn a_complete_job_is_complete_whatever_failed_before() {
    let status = json!({
        "failed": 2, "succeeded": 1, "completionTime": "2026-01-01T00:00:09Z",
        "conditions": [condition("SuccessCriteriaMet", "True"), condition("Complete", "True")],
    });
    let outcome = a_job("u", 1, status).outcome().unwrap();
    assert_eq!((outcome.result, outcome.succeeded, outcome.failed), (OutcomeResult::Complete, 1, 2));
    assert_eq!(outcome.finish_time.as_deref(), Some("2026-01-01T00:00:09Z"));
}

#[test]
fn a_job_of_another_maker_is_not_ours_and_the_missing_field_is_named() {
    let good = json!({
        "metadata": {"name": "a", "uid": "u", "resourceVersion": "1",
            "labels": {LABEL_MANAGED_BY: MANAGED_BY, LABEL_TEMPLATE: "simple"},
            "annotations": {ANNOTATION_REQUEST_ID: "i", ANNOTATION_REQUEST_SEQ: "1", ANNOTATION_REQUEST_HASH: "h"}},
        "spec": {},
    });
    let read = |v: &Value| JobState::read(&serde_json::from_value(v.clone()).unwrap());
    assert!(read(&good).is_ok());
    for (pointer, key) in [
        ("/metadata/labels", LABEL_MANAGED_BY),
        ("/metadata/labels", LABEL_TEMPLATE),
        ("/metadata/annotations", ANNOTATION_REQUEST_ID),
        ("/metadata/annotations", ANNOTATION_REQUEST_SEQ),
        ("/metadata/annotations", ANNOTATION_REQUEST_HASH),
    ] {
        let mut bad = good.clone();
        bad.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove(key);
        let error = read(&bad).unwrap_err().to_string();
        assert!(error.contains("dispatcher/") || error.contains(key), "{key}: {error}");
    }
}
