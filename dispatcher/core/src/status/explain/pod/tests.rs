use serde_json::{Value, json};

use super::*;

/// A pod captured from a real cluster with containerd and one node.
fn captured(name: &str) -> Value {
    let pods: Value = serde_json::from_str(include_str!("../pods.json")).unwrap();
    assert!(pods[name].is_object(), "{name}");
    pods[name].clone()
}

fn state(pod: Value, deleted: bool) -> Option<PodState> {
    observation(&serde_json::from_value(pod).unwrap(), deleted).map(|observation| observation.state)
}

fn ended(pod: Value, deleted: bool) -> (Attempt, Option<String>) {
    match state(pod, deleted) {
        Some(PodState::Ended { attempt, log, .. }) => (*attempt, log),
        other => panic!("not an ended pod: {other:?}"),
    }
}

fn stalled(name: &str) -> (String, String) {
    match state(captured(name), false) {
        Some(PodState::Waiting { stall: Some(stall), .. }) => (stall.reason, stall.message),
        other => panic!("not a stalled pod: {other:?}"),
    }
}

#[test]
fn failed_pod_has_exit_code_node_and_times() {
    let pod = observation(&serde_json::from_value(captured("fail ended")).unwrap(), false).unwrap();
    assert_eq!((pod.name.as_ref(), pod.template.as_ref().map(AsRef::as_ref)), ("fail", Some("simple")));
    let (attempt, log) = ended(captured("fail ended"), false);
    let expected = Attempt {
        pod: "fail-qhjlt".into(),
        node: Some("node-1".into()),
        exit_code: Some(1),
        reason: Some("Error".into()),
        started_at: Some("2026-11-25T01:23:00Z".into()),
        finished_at: Some("2026-11-25T01:23:00Z".into()),
        ..Attempt::default()
    };
    assert_eq!(attempt, expected);
    assert_eq!(log.as_deref(), Some("main"));
}

#[test]
fn successful_pod_has_its_termination_message_and_no_log() {
    let mut pod = captured("good ended");
    pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"] = json!("{\"rows\":7}\n");
    let (attempt, log) = ended(pod, false);
    assert_eq!((attempt.exit_code, attempt.reason.as_deref()), (Some(0), Some("Completed")));
    assert_eq!(attempt.message.as_deref(), Some("{\"rows\":7}"));
    assert_eq!(log, None);
}

#[test]
fn oom_killed_and_exit_code_137_include_the_memory_limit() {
    for reason in ["OOMKilled", "Error"] {
        let mut pod = captured("fail ended");
        pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] = json!(137);
        pod["status"]["containerStatuses"][0]["state"]["terminated"]["reason"] = json!(reason);
        let (attempt, _) = ended(pod, false);
        assert_eq!((attempt.exit_code, attempt.reason.as_deref()), (Some(137), Some(reason)));
        assert_eq!(attempt.memory_limit.as_deref(), Some("32Mi"));
    }
    assert_eq!(ended(captured("fail ended"), false).0.memory_limit, None);
}

#[test]
fn failed_init_container_is_named() {
    let (attempt, log) = ended(captured("init ended"), false);
    assert_eq!((attempt.container.as_deref(), attempt.exit_code), (Some("prepare"), Some(1)));
    assert_eq!(log.as_deref(), Some("prepare"));
}

#[test]
fn first_failed_container_decides_the_attempt() {
    let mut pod = captured("fail ended");
    let end = |code: i32, at: &str| {
        json!({"terminated": {
            "exitCode": code, "reason": "Error", "startedAt": "2026-11-25T01:23:00Z", "finishedAt": at,
        }})
    };
    pod["spec"]["containers"] = json!([{"name": "proxy"}, {"name": "work"}]);
    pod["status"]["containerStatuses"] = json!([
        {"name": "proxy", "state": end(143, "2026-11-25T01:23:09Z")},
        {"name": "work", "state": end(3, "2026-11-25T01:23:05Z")},
    ]);
    let (attempt, _) = ended(pod, false);
    assert_eq!((attempt.container.as_deref(), attempt.exit_code), (Some("work"), Some(3)));
}

#[test]
fn evicted_takes_precedence_over_the_reason_of_the_container() {
    let mut pod = captured("fail ended");
    pod["status"]["reason"] = json!("Evicted");
    pod["status"]["message"] = json!("The node was low on resource: memory.");
    let (attempt, _) = ended(pod, false);
    assert_eq!(attempt.reason.as_deref(), Some("Evicted"));
    assert_eq!(attempt.message.as_deref(), Some("The node was low on resource: memory."));
    assert_eq!(attempt.exit_code, Some(1));
}

#[test]
fn disrupted_pod_has_the_reason_of_its_condition() {
    let mut pod = captured("deadline deleted");
    pod["status"]["conditions"] = json!([{
        "type": "DisruptionTarget", "status": "True",
        "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting",
    }]);
    let (attempt, _) = ended(pod, true);
    assert_eq!(attempt.reason.as_deref(), Some("EvictionByEvictionAPI"));
    assert_eq!(attempt.exit_code, Some(143));
}

#[test]
fn running_pod_deleted_by_a_deadline_keeps_its_exit_code() {
    let (attempt, log) = ended(captured("deadline deleted"), true);
    assert_eq!((attempt.reason.as_deref(), attempt.exit_code), (Some("Deleted"), Some(143)));
    assert_eq!(log.as_deref(), Some("main"));
}

#[test]
fn container_that_failed_before_the_deletion_keeps_its_reason() {
    // `restartPolicy: OnFailure`, past the backoffLimit.
    let (attempt, _) = ended(captured("crash deleted"), true);
    assert_eq!((attempt.reason.as_deref(), attempt.exit_code), (Some("Error"), Some(1)));
}

#[test]
fn pod_that_never_ran_has_no_exit_code() {
    for name in ["noimage deleted", "unsched deleted"] {
        let (attempt, log) = ended(captured(name), true);
        assert_eq!((attempt.reason.as_deref(), attempt.exit_code), (Some("Deleted"), None), "{name}");
        assert_eq!((attempt.memory_limit, attempt.message, log), (None, None, None), "{name}");
    }
}

#[test]
fn waiting_pod_has_the_reason_and_message_of_kubernetes() {
    assert_eq!(stalled("unsched Unschedulable").0, "Unschedulable");
    assert!(stalled("unsched Unschedulable").1.starts_with("0/1 nodes are available"));
    for (name, reason, text) in [
        ("noimage ErrImagePull", "ErrImagePull", "nothere.invalid"),
        ("noimage ImagePullBackOff", "ImagePullBackOff", "Back-off pulling image"),
        ("never ErrImageNeverPull", "ErrImageNeverPull", "is not present with pull policy of Never"),
        ("badimage InvalidImageName", "InvalidImageName", "must be lowercase"),
        (
            "noconfig CreateContainerConfigError",
            "CreateContainerConfigError",
            "configmap \"nothere\" not found",
        ),
    ] {
        let (found, message) = stalled(name);
        assert_eq!(found, reason);
        assert!(message.contains(text), "{message}");
    }
}

#[test]
fn container_creating_and_running_pods_are_not_stalled() {
    assert!(matches!(
        state(captured("mount ContainerCreating"), false),
        Some(PodState::Waiting { stall: None, .. })
    ));
    let mut running = captured("deadline running");
    running["metadata"]["deletionTimestamp"] = Value::Null;
    assert!(matches!(state(running, false), Some(PodState::Running { .. })));
}

#[test]
fn terminating_pod_yields_no_observation() {
    assert_eq!(state(captured("noimage ContainerCreating deleting"), false), None);
}

#[test]
fn pod_without_an_owner_job_is_ignored() {
    let mut pod = captured("fail ended");
    pod["metadata"]["ownerReferences"] = json!([]);
    assert_eq!(state(pod, false), None);
}
