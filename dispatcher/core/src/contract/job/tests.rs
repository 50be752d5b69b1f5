use serde_json::json;

use super::*;
use crate::testing::a_job;

fn condition(type_: &str, status: &str) -> Value {
    json!({"type": type_, "status": status, "reason": "R", "message": "M", "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

#[test]
fn job_without_true_final_condition_has_no_outcome() {
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
fn failed_job_is_failed_by_its_condition_whatever_the_pod_count() {
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
fn complete_job_is_complete_despite_failed_pods() {
    let status = json!({
        "failed": 2, "succeeded": 1, "completionTime": "2026-01-01T00:00:09Z",
        "conditions": [condition("SuccessCriteriaMet", "True"), condition("Complete", "True")],
    });
    let outcome = a_job("u", 1, status).outcome().unwrap();
    assert_eq!((outcome.result, outcome.succeeded, outcome.failed), (OutcomeResult::Complete, 1, 2));
    assert_eq!(outcome.finish_time.as_deref(), Some("2026-01-01T00:00:09Z"));
}

#[test]
fn unmanaged_job_is_refused_with_the_missing_field() {
    let good = json!({
        "metadata": {"name": "a", "uid": "u", "resourceVersion": "1",
            "labels": {LABEL_MANAGED_BY: MANAGED_BY, LABEL_TEMPLATE: "simple"},
            "annotations": {ANNOTATION_REQUEST_ID: "i", ANNOTATION_REQUEST_SEQ: "1", ANNOTATION_REQUEST_HASH: "h"}},
        "spec": {},
    });
    let decode = |job: &Value| JobState::from_object(&serde_json::from_value(job.clone()).unwrap());
    assert!(decode(&good).is_ok());
    for (pointer, key) in [
        ("/metadata/labels", LABEL_MANAGED_BY),
        ("/metadata/labels", LABEL_TEMPLATE),
        ("/metadata/annotations", ANNOTATION_REQUEST_ID),
        ("/metadata/annotations", ANNOTATION_REQUEST_SEQ),
        ("/metadata/annotations", ANNOTATION_REQUEST_HASH),
    ] {
        let mut bad = good.clone();
        bad.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove(key);
        let error = decode(&bad).unwrap_err().to_string();
        assert!(error.contains(key), "{key}: {error}");
    }
}

#[test]
fn suspended_job_has_the_reason_and_message_of_its_condition() {
    let job = |condition: Value| a_job("u", 1, json!({"conditions": [condition]}));
    let stall = job(condition("Suspended", "True")).suspension().unwrap();
    assert_eq!((stall.reason.as_str(), stall.message.as_str()), ("R", "M"));
    let stall = job(json!({"type": "Suspended", "status": "True"})).suspension().unwrap();
    assert_eq!((stall.reason.as_str(), stall.message.as_str()), ("JobSuspended", "Job suspended"));
    assert_eq!(job(condition("Suspended", "False")).suspension(), None);
}

#[test]
fn status_keeps_its_text_and_is_shared_by_copies() {
    let job = a_job("u", 1, json!({"active": 1, "unknownField": [1]}));
    assert_eq!(job.status.value(), json!({"active": 1, "unknownField": [1]}));
    assert!(std::ptr::eq(job.status.text(), job.clone().status.text()));
    assert_eq!(a_job("u", 1, Value::Null).status.text(), "{}");
}

/// A Job with this name and uid, and the labels and annotations of the Job `a` with the uid `u`, which
/// is retired.
fn copy_of_a_retired_job(name: &str, uid: &str) -> Value {
    json!({
        "status": {"conditions": [{"type": "Complete", "status": "True"}]},
        "metadata": {"name": name, "uid": uid, "resourceVersion": "1",
            "labels": {LABEL_MANAGED_BY: MANAGED_BY, LABEL_TEMPLATE: "simple", LABEL_OUTCOME: "Complete"},
            "annotations": {ANNOTATION_REQUEST_ID: "i", ANNOTATION_REQUEST_SEQ: "1", ANNOTATION_REQUEST_HASH: "h",
                            ANNOTATION_JOB_NAME: "a", ANNOTATION_OUTCOME_RECORD: outcome_record("u", 17)}},
        "spec": {},
    })
}

fn decode(object: &Value) -> Result<JobState, UnmanagedJob> {
    JobState::from_object(&serde_json::from_value(object.clone()).unwrap())
}

#[test]
fn outcome_label_counts_only_with_a_record_of_the_same_uid() {
    let original = decode(&copy_of_a_retired_job("a", "u")).unwrap();
    assert!(original.retired);
    let copy = decode(&copy_of_a_retired_job("a", "another")).unwrap();
    assert!(!copy.retired);
    for record in
        [Value::Null, json!(""), json!("u"), json!("u/"), json!("u/x"), json!("/17"), json!("x/u/17")]
    {
        let mut object = copy_of_a_retired_job("a", "u");
        object["metadata"]["annotations"][ANNOTATION_OUTCOME_RECORD] = record.clone();
        if record.is_null() {
            let annotations = object["metadata"]["annotations"].as_object_mut().unwrap();
            annotations.remove(ANNOTATION_OUTCOME_RECORD);
        }
        let found: JobObject = serde_json::from_value(object.clone()).unwrap();
        assert_eq!(OutcomeLabel::of(&found.metadata), OutcomeLabel::Unbound, "{record}");
        assert!(!decode(&object).unwrap().retired, "{record}");
    }
    let mut unlabelled = copy_of_a_retired_job("a", "u");
    unlabelled["metadata"]["labels"].as_object_mut().unwrap().remove(LABEL_OUTCOME);
    assert!(!decode(&unlabelled).unwrap().retired);
    let mut unfinished = copy_of_a_retired_job("a", "u");
    unfinished["status"] = json!({"active": 1});
    assert!(!decode(&unfinished).unwrap().retired, "a Job is retired only with a final condition");
}

#[test]
fn copy_under_another_name_is_unmanaged() {
    let error = decode(&copy_of_a_retired_job("b", "another")).unwrap_err().to_string();
    assert!(error.contains(ANNOTATION_JOB_NAME), "{error}");
}
