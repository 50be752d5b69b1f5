use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;

/// Workloads captured from a real Kueue: the states of one Job, in order.
fn captured(name: &str) -> WorkloadObject {
    let all: BTreeMap<String, Value> = serde_json::from_str(include_str!("workloads.json")).unwrap();
    serde_json::from_value(all[name].clone()).unwrap()
}

fn workload(status: &Value) -> WorkloadObject {
    let owner = json!({"apiVersion": "batch/v1", "kind": "Job", "name": "a", "uid": "u", "controller": true});
    let metadata = json!({"name": "job-a-12345", "uid": "w", "ownerReferences": [owner]});
    serde_json::from_value(json!({"metadata": metadata, "spec": {"podSets": []}, "status": status})).unwrap()
}

fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": type_, "status": status, "reason": reason, "message": message})
}

/// The reason and the message of the stall, if there is one.
fn explained(workload: &WorkloadObject) -> Option<(String, String)> {
    match observation(workload, false).unwrap().state {
        PodState::Workload { stall } => stall.map(|stall| (stall.reason, stall.message)),
        other => panic!("not a Workload: {other:?}"),
    }
}

fn of(conditions: &[Value]) -> Option<(String, String)> {
    explained(&workload(&json!({ "conditions": conditions })))
}

#[test]
fn workload_names_the_job_that_owns_it() {
    let found = observation(&workload(&Value::Null), false).unwrap();
    assert_eq!((found.name.as_ref(), found.uid.as_str(), found.template), ("a", "u", None));
    assert_eq!(found.state, PodState::Workload { stall: None }, "Kueue has not considered it yet");
    let mut orphan = workload(&Value::Null);
    orphan.metadata.owner_references = None;
    assert_eq!(observation(&orphan, false), None);
}

#[test]
fn captured_workload_is_explained_until_it_is_admitted() {
    let pending = explained(&captured("pending")).unwrap();
    assert_eq!(pending.0, "KueuePending");
    assert!(pending.1.contains("insufficient unused quota for cpu"), "{}", pending.1);
    assert_eq!(explained(&captured("admitted")), None);
    let evicting = explained(&captured("evicting")).unwrap();
    assert_eq!(evicting.0, "KueuePreempted");
    let preempted = explained(&captured("preempted")).unwrap();
    assert_eq!(preempted.0, "KueuePreempted");
    assert!(preempted.1.starts_with("Preempted to accommodate a workload"), "{}", preempted.1);
    assert_eq!(preempted.1, format!("{}; {}", evicting.1, pending.1));
    assert_eq!(explained(&captured("readmitted")), None);
    assert_eq!(observation(&captured("finished"), false), None);
}

#[test]
fn queue_that_is_missing_or_stopped_has_the_reason_of_kueue() {
    let missing = condition("QuotaReserved", "False", "Inadmissible", "LocalQueue q doesn't exist");
    assert_eq!(of(&[missing]), Some(("KueueInadmissible".into(), "LocalQueue q doesn't exist".into())));
    let message = "The ClusterQueue is stopped";
    let evicted = condition("Evicted", "True", "ClusterQueueStopped", message);
    // The quota is released after the pods have ended.
    let reserved = condition("QuotaReserved", "True", "QuotaReserved", "");
    let expected = Some(("KueueClusterQueueStopped".into(), message.into()));
    assert_eq!(of(&[reserved, evicted.clone()]), expected);
    assert_eq!(of(&[condition("QuotaReserved", "False", "Pending", message), evicted]), expected);
}

#[test]
fn eviction_that_kueue_has_reset_explains_nothing() {
    let reserved = condition("QuotaReserved", "True", "QuotaReserved", "");
    let admitted = condition("Admitted", "True", "Admitted", "");
    let evicted = condition("Evicted", "False", "QuotaReserved", "Previously: Preempted");
    assert_eq!(of(&[reserved, admitted, evicted]), None);
}

#[test]
fn admission_check_that_is_not_ready_explains_a_reserved_workload() {
    let reserved = condition("QuotaReserved", "True", "QuotaReserved", "");
    let check = |state: &str| json!({"name": "nodes", "state": state, "message": "1 of 2 nodes"});
    let ready = json!({"name": "budget", "state": "Ready", "message": ""});
    let status = |state: &str| json!({"conditions": [reserved.clone()], "admissionChecks": [ready.clone(), check(state)]});
    let expected = ("KueueAdmissionCheck".into(), "AdmissionCheck nodes is Pending: 1 of 2 nodes".into());
    assert_eq!(explained(&workload(&status("Pending"))), Some(expected));
    assert_eq!(explained(&workload(&status("Ready"))), None);
}

#[test]
fn deleted_workload_explains_nothing() {
    let pending = workload(&json!({"conditions": [condition("QuotaReserved", "False", "Pending", "m")]}));
    assert_eq!(observation(&pending, true).unwrap().state, PodState::Workload { stall: None });
}

#[test]
fn text_of_a_workload_is_escaped_and_bounded() {
    let long = "x".repeat(1 << 20);
    let (reason, message) =
        of(&[condition("QuotaReserved", "False", &format!("A\u{202e}{long}"), &format!("a\u{1b}{long}"))])
            .unwrap();
    assert!(reason.starts_with("KueueA\\u202e") && reason.len() <= 256, "{reason}");
    assert!(message.starts_with("a\\x1b") && message.len() <= text::MAX_MESSAGE);
    assert_eq!(
        of(&[condition("QuotaReserved", "False", "", "")]),
        Some(("KueuePending".into(), String::new()))
    );
}
