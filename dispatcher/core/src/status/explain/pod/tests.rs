use serde_json::{Value, json};

use super::*;

/// A pod of a real cluster: containerd, one node.
fn captured(name: &str) -> Value {
    let pods: Value = serde_json::from_str(include_str!("../pods.json")).unwrap();
    assert!(pods[name].is_object(), "{name}");
    pods[name].clone()
}

fn read(pod: Value, gone: bool) -> Option<PodState> {
    sign(&serde_json::from_value(pod).unwrap(), gone).map(|sign| sign.tells)
}

fn attempt(pod: Value, gone: bool) -> (Attempt, Option<String>) {
    match read(pod, gone) {
        Some(PodState::Ended { attempt, log, .. }) => (*attempt, log),
        other => panic!("{other:?}"),
    }
}

fn stalled(name: &str) -> (String, String) {
    match read(captured(name), false) {
        Some(PodState::Waiting { stall: Some(stall), .. }) => (stall.reason, stall.message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_failed_pod_is_told_with_exit_code_node_and_times() {
    let pod = sign(&serde_json::from_value(captured("fail ended")).unwrap(), false).unwrap();
    assert_eq!((pod.name.as_ref(), pod.template.as_ref().map(AsRef::as_ref)), ("fail", Some("simple")));
    let (attempt, log) = attempt(captured("fail ended"), false);
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
fn a_successful_pod_hands_back_its_message_and_no_log() {
    let mut pod = captured("good ended");
    pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"] = json!("{\"rows\":7}\n");
    let (attempt, log) = attempt(pod, false);
    assert_eq!((attempt.exit_code, attempt.reason.as_deref()), (Some(0), Some("Completed")));
    assert_eq!(attempt.message.as_deref(), Some("{\"rows\":7}"));
    assert_eq!(log, None);
}

#[test]
fn an_out_of_memory_kill_is_told_with_the_limit_and_so_is_137_without_that_word() {
    for reason in ["OOMKilled", "Error"] {
        let mut pod = captured("fail ended");
        pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] = json!(137);
        pod["status"]["containerStatuses"][0]["state"]["terminated"]["reason"] = json!(reason);
        let (attempt, _) = attempt(pod, false);
        assert_eq!((attempt.exit_code, attempt.reason.as_deref()), (Some(137), Some(reason)));
        assert_eq!(attempt.memory_limit.as_deref(), Some("32Mi"));
    }
    assert_eq!(attempt(captured("fail ended"), false).0.memory_limit, None);
}

#[test]
fn an_init_container_that_failed_is_named() {
    let (attempt, log) = attempt(captured("init ended"), false);
    assert_eq!((attempt.container.as_deref(), attempt.exit_code), (Some("prepare"), Some(1)));
    assert_eq!(log.as_deref(), Some("prepare"));
}

#[test]
fn of_several_containers_the_first_that_failed_is_told_and_not_those_killed_after_it() {
    let mut pod = captured("fail ended");
    let end = |code: i32, at: &str| json!({"terminated": {"exitCode": code, "reason": "Error", "startedAt": "2026-11-25T01:23:00Z", "finishedAt": at}});
    pod["spec"]["containers"] = json!([{"name": "proxy"}, {"name": "work"}]);
    pod["status"]["containerStatuses"] = json!([
        {"name": "proxy", "state": end(143, "2026-11-25T01:23:09Z")},
        {"name": "work", "state": end(3, "2026-11-25T01:23:05Z")},
    ]);
    let (attempt, _) = attempt(pod, false);
    assert_eq!((attempt.container.as_deref(), attempt.exit_code), (Some("work"), Some(3)));
}

#[test]
fn an_evicted_pod_says_so_whatever_its_container_says() {
    let mut pod = captured("fail ended");
    pod["status"]["reason"] = json!("Evicted");
    pod["status"]["message"] = json!("The node was low on resource: memory.");
    let (attempt, _) = attempt(pod, false);
    assert_eq!(attempt.reason.as_deref(), Some("Evicted"));
    assert_eq!(attempt.message.as_deref(), Some("The node was low on resource: memory."));
    assert_eq!(attempt.exit_code, Some(1));
}

#[test]
fn a_disrupted_pod_tells_by_whom() {
    let mut pod = captured("deadline deleted");
    pod["status"]["conditions"] = json!([{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting"}]);
    let (attempt, _) = attempt(pod, true);
    assert_eq!(attempt.reason.as_deref(), Some("EvictionByEvictionAPI"));
    assert_eq!(attempt.exit_code, Some(143));
}

#[test]
fn a_pod_that_a_deadline_deleted_while_it_ran_is_deleted_with_its_exit_code() {
    let (attempt, log) = attempt(captured("deadline deleted"), true);
    assert_eq!((attempt.reason.as_deref(), attempt.exit_code), (Some("Deleted"), Some(143)));
    assert_eq!(log.as_deref(), Some("main"));
}

#[test]
fn a_pod_whose_container_had_failed_before_the_pod_was_deleted_failed_by_itself() {
    // `restartPolicy: OnFailure` past its backoffLimit.
    let (attempt, _) = attempt(captured("crash deleted"), true);
    assert_eq!((attempt.reason.as_deref(), attempt.exit_code), (Some("Error"), Some(1)));
}

#[test]
fn a_pod_that_never_ran_has_no_exit_code_although_the_kubelet_makes_one_up() {
    for name in ["noimage deleted", "unsched deleted"] {
        let (attempt, log) = attempt(captured(name), true);
        assert_eq!((attempt.reason.as_deref(), attempt.exit_code), (Some("Deleted"), None), "{name}");
        assert_eq!((attempt.memory_limit, attempt.message, log), (None, None, None), "{name}");
    }
}

#[test]
fn what_keeps_a_pod_from_running_is_told_in_the_words_of_kubernetes() {
    assert_eq!(stalled("unsched Unschedulable").0, "Unschedulable");
    assert!(stalled("unsched Unschedulable").1.starts_with("0/1 nodes are available"));
    for (name, reason, words) in [
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
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn the_waits_that_are_part_of_every_start_are_no_stall() {
    assert!(matches!(
        read(captured("mount ContainerCreating"), false),
        Some(PodState::Waiting { stall: None, .. })
    ));
    let mut running = captured("deadline running");
    running["metadata"]["deletionTimestamp"] = Value::Null;
    assert!(matches!(read(running, false), Some(PodState::Running { .. })));
}

#[test]
fn a_pod_on_its_way_out_says_nothing_until_it_is_out() {
    assert_eq!(read(captured("noimage ContainerCreating deleting"), false), None);
}

#[test]
fn a_pod_of_no_job_is_left_alone() {
    let mut pod = captured("fail ended");
    pod["metadata"]["ownerReferences"] = json!([]);
    assert_eq!(read(pod, false), None);
}
