use serde_json::{Value, json};

use super::*;
use crate::{
    contract::event::{Attempt, Stall},
    status::pod_observation::Wait,
};

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

fn blocked(pod: Value) -> Stall {
    match state(pod, false) {
        Some(PodState::Waiting { wait: Wait::Blocked(stall), .. }) => stall,
        other => panic!("not a blocked pod: {other:?}"),
    }
}

fn starting(pod: Value) -> Stall {
    match state(pod, false) {
        Some(PodState::Waiting { wait: Wait::Starting(stall), .. }) => stall,
        other => panic!("not a starting pod: {other:?}"),
    }
}

/// A container that terminated at this second of a minute.
fn exit(name: &str, code: i32, second: u32) -> Value {
    json!({"name": name, "state": {"terminated": {
        "exitCode": code, "reason": if code == 0 { "Completed" } else { "Error" },
        "startedAt": "2026-11-25T01:23:00Z", "finishedAt": format!("2026-11-25T01:23:{second:02}Z"),
    }}})
}

fn waiting(name: &str, reason: &str) -> Value {
    json!({"name": name, "state": {"waiting": {"reason": reason}}})
}

/// A pod with a native sidecar `proxy` and a container `main`, in this phase.
fn with_sidecar(phase: &str, proxy: &Value, main: &Value) -> Value {
    let mut pod = captured("fail ended");
    pod["spec"]["initContainers"] = json!([{"name": "proxy", "restartPolicy": "Always"}]);
    pod["status"]["phase"] = json!(phase);
    pod["status"]["initContainerStatuses"] = json!([proxy]);
    pod["status"]["containerStatuses"] = json!([main]);
    pod
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
    let unschedulable = blocked(captured("unsched Unschedulable"));
    assert_eq!(unschedulable.reason, "Unschedulable");
    assert!(unschedulable.message.starts_with("0/1 nodes are available"));
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
        let stall = blocked(captured(name));
        assert_eq!(stall.reason, reason);
        assert!(stall.message.contains(text), "{}", stall.message);
    }
}

#[test]
fn container_creating_is_a_step_of_the_start() {
    assert_eq!(starting(captured("mount ContainerCreating")).reason, "ContainerCreating");
    let mut running = captured("deadline running");
    running["metadata"]["deletionTimestamp"] = Value::Null;
    assert!(matches!(state(running, false), Some(PodState::Running { .. })));
}

#[test]
fn pod_that_is_being_deleted_is_terminating_whether_it_runs_or_waits() {
    for name in ["noimage ContainerCreating deleting", "deadline running"] {
        let mut pod = captured(name);
        pod["metadata"]["deletionTimestamp"] = json!("2026-11-25T01:23:49Z");
        assert!(matches!(state(pod, false), Some(PodState::Terminating { .. })), "{name}");
    }
}

#[test]
fn succeeded_pod_whose_sidecar_was_killed_has_the_result_of_its_work() {
    let mut main = exit("main", 0, 2);
    main["state"]["terminated"]["message"] = json!("result=42\n");
    let (attempt, log) = ended(with_sidecar("Succeeded", &exit("proxy", 137, 4), &main), false);
    assert_eq!((attempt.container.as_deref(), attempt.exit_code), (Some("main"), Some(0)));
    assert_eq!(
        (attempt.reason.as_deref(), attempt.message.as_deref()),
        (Some("Completed"), Some("result=42"))
    );
    assert_eq!((attempt.memory_limit, log), (None, None));
}

#[test]
fn succeeded_pod_that_was_deleted_while_its_sidecar_ended_is_completed() {
    let mut pod = with_sidecar("Succeeded", &exit("proxy", 137, 4), &exit("main", 0, 2));
    pod["metadata"]["deletionTimestamp"] = json!("2026-11-25T01:23:01Z");
    assert_eq!(ended(pod, true).0.reason.as_deref(), Some("Completed"));
}

#[test]
fn sidecar_that_failed_first_does_not_stand_for_the_failed_work() {
    let (attempt, log) = ended(with_sidecar("Failed", &exit("proxy", 1, 1), &exit("main", 3, 5)), false);
    assert_eq!((attempt.container.as_deref(), attempt.exit_code), (Some("main"), Some(3)));
    assert_eq!(log.as_deref(), Some("main"));
}

#[test]
fn pod_that_failed_before_its_work_started_has_no_exit_code_of_a_sidecar() {
    let mut pod = with_sidecar("Failed", &exit("proxy", 137, 4), &waiting("main", "PodInitializing"));
    pod["status"]["reason"] = json!("DeadlineExceeded");
    let (attempt, log) = ended(pod, false);
    assert_eq!((attempt.reason.as_deref(), attempt.exit_code), (Some("DeadlineExceeded"), None));
    assert_eq!((attempt.container, log), (None, None));
}

#[test]
fn init_container_that_failed_precedes_a_failure_that_the_kubelet_invented() {
    let mut pod = captured("init ended");
    // The container never ran: it has no `startedAt`.
    pod["status"]["containerStatuses"][0]["state"] =
        json!({"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown"}});
    assert_eq!(ended(pod, false).0.container.as_deref(), Some("prepare"));
}

#[test]
fn evicted_pod_without_container_statuses_has_the_reason_of_its_status() {
    let mut pod = captured("fail ended");
    pod["status"] = json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"});
    let (attempt, log) = ended(pod, false);
    assert_eq!((attempt.reason.as_deref(), attempt.exit_code, log), (Some("Evicted"), None, None));
    assert_eq!(attempt.message.as_deref(), Some("low on memory"));
}

#[test]
fn sidecar_that_does_not_become_started_holds_up_the_start() {
    let proxy = json!({"name": "proxy", "started": false, "state": {"running": {"startedAt": "2026-11-25T01:23:00Z"}}});
    let mut pod = with_sidecar("Pending", &proxy, &waiting("main", "PodInitializing"));
    pod["status"]["conditions"] = json!([{
        "type": "Initialized", "status": "False", "reason": "ContainersNotInitialized",
        "message": "containers with incomplete status: [proxy]",
    }]);
    let stall = starting(pod);
    assert_eq!(stall.reason, "ContainersNotInitialized");
    assert_eq!(stall.message, "containers with incomplete status: [proxy]");
}

#[test]
fn sidecar_that_crashes_blocks_the_start() {
    let proxy = waiting("proxy", "CrashLoopBackOff");
    let pod = with_sidecar("Pending", &proxy, &waiting("main", "PodInitializing"));
    assert_eq!(blocked(pod).reason, "CrashLoopBackOff");
}

#[test]
fn pod_runs_while_its_work_or_an_init_container_runs_and_until_its_phase_is_final() {
    let running = |name: &str| json!({"name": name, "started": true, "state": {"running": {}}});
    let runs = |pod: Value| matches!(state(pod, false), Some(PodState::Running { .. }));
    assert!(runs(with_sidecar("Running", &running("proxy"), &running("main"))));
    assert!(!runs(with_sidecar("Pending", &running("proxy"), &waiting("main", "PodInitializing"))));
    assert!(runs(with_sidecar("Running", &running("proxy"), &exit("main", 0, 2))), "the sidecar ends last");
    let mut init = with_sidecar("Pending", &running("proxy"), &waiting("main", "PodInitializing"));
    init["spec"]["initContainers"][0]["restartPolicy"] = Value::Null;
    assert!(runs(init));
}

#[test]
fn progress_is_the_time_of_the_last_step_of_the_start() {
    let progress = |pod: Value| match state(pod, false) {
        Some(PodState::Waiting { created, progress, .. }) => progress - created,
        other => panic!("not a waiting pod: {other:?}"),
    };
    let mut pod = captured("mount ContainerCreating");
    assert_eq!(progress(pod.clone()), 0, "its creation");
    let step = |type_: &str, status: &str, time: &str| json!({"type": type_, "status": status, "lastTransitionTime": time});
    pod["status"]["conditions"] = json!([
        step("PodScheduled", "True", "2026-11-25T01:23:00Z"),
        step("PodReadyToStartContainers", "True", "2026-11-25T01:23:04Z"),
        step("Ready", "False", "2026-11-25T01:23:30Z"),
    ]);
    assert_eq!(progress(pod), 5, "created at 01:22:59");
}

#[test]
fn pod_without_an_owner_job_is_ignored() {
    let mut pod = captured("fail ended");
    pod["metadata"]["ownerReferences"] = json!([]);
    assert_eq!(state(pod, false), None);
}
