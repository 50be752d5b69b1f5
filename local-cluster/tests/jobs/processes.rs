//! Containers as processes: their exit codes, and that none outlives its cluster.

use std::{process::Command, time::Duration};

use kube::{ResourceExt, api::DeleteParams};
use serde_json::json;
use tokio::time::timeout;

use crate::{
    testbed::{Testbed, conditions, shell, state},
    wait::{TIMEOUT, is_alive, pid_in, until_ended},
};

#[tokio::test]
async fn container_above_its_memory_limit_is_oom_killed() {
    let testbed = Testbed::new();
    let limits = json!({"limits": {"memory": "32Mi"}});
    testbed.create(json!({"backoffLimit": 0}), json!({"image": "hungry:1", "resources": limits})).await;
    let pod = testbed.until_pod("Failed").await;
    let ended = &state(&pod)["terminated"];
    assert_eq!((&ended["reason"], &ended["exitCode"]), (&json!("OOMKilled"), &json!(137)));
    assert_eq!(conditions(&testbed.until("Failed").await)[1].1, "BackoffLimitExceeded");
}

#[tokio::test]
async fn memory_of_child_processes_counts() {
    let testbed = Testbed::new();
    let limits = json!({"limits": {"memory": "32Mi"}});
    let mut container = shell("tail /dev/zero; echo the shell survived");
    container["resources"] = limits;
    testbed.create(json!({"backoffLimit": 0}), container).await;
    let pod = testbed.until_pod("Failed").await;
    assert_eq!(state(&pod)["terminated"]["reason"], "OOMKilled");
}

#[tokio::test]
async fn exit_code_includes_the_signal_number() {
    let testbed = Testbed::new();
    testbed.create(json!({"backoffLimit": 0}), shell("kill -SEGV $$")).await;
    let ended = state(&testbed.until_pod("Failed").await)["terminated"].clone();
    assert_eq!((&ended["exitCode"], &ended["reason"]), (&json!(139), &json!("Error")));
}

#[tokio::test]
async fn missing_program_is_a_start_error() {
    let testbed = Testbed::new();
    let container = json!({"image": "sh:1", "command": ["/does/not/exist"]});
    testbed.create(json!({"backoffLimit": 0}), container).await;
    let ended = state(&testbed.until_pod("Failed").await)["terminated"].clone();
    assert_eq!((&ended["exitCode"], &ended["reason"]), (&json!(128), &json!("StartError")));
    assert!(ended["message"].as_str().unwrap().contains("/does/not/exist"), "{ended}");
}

#[tokio::test]
async fn deleted_pod_receives_sigterm_and_is_replaced() {
    let testbed = Testbed::new();
    let signal = testbed.folder.path().join("signal");
    let sleeper = testbed.sleeper(&format!("trap 'echo TERM > {}; exit 3' TERM;", signal.display()));
    testbed.create(json!({}), sleeper).await;
    let pid = testbed.pid().await;
    let pod = testbed.until_pod("Running").await;
    testbed.pods.delete(&pod.name_any(), &DeleteParams::default()).await.unwrap();
    until_ended(pid).await;
    assert_eq!(std::fs::read_to_string(signal).unwrap().trim(), "TERM");
    let other = testbed.watch_pods(|other| other.uid() != pod.uid() && is_running(other)).await;
    assert_ne!(other.name_any(), pod.name_any());
    assert_eq!(testbed.until_status(|status| status.failed == Some(1)).await.active, Some(1));
}

fn is_running(pod: &k8s_openapi::api::core::v1::Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"))
}

#[tokio::test]
async fn process_that_ignores_sigterm_is_killed_after_its_grace_period() {
    let testbed = Testbed::new();
    testbed.create(json!({}), testbed.sleeper("trap '' TERM;")).await;
    let pid = testbed.pid().await;
    let pod = testbed.until_pod("Running").await;
    let start = std::time::Instant::now();
    let delete = DeleteParams { grace_period_seconds: Some(1), ..DeleteParams::default() };
    testbed.pods.delete(&pod.name_any(), &delete).await.unwrap();
    until_ended(pid).await;
    let took = start.elapsed();
    assert!(took > Duration::from_millis(900), "killed before the end of its grace period: {took:?}");
}

#[tokio::test]
async fn child_processes_end_with_their_container() {
    let testbed = Testbed::new();
    let file = testbed.folder.path().join("pid");
    testbed.create(json!({}), shell(&format!("sleep 60 & echo $! > {}", file.display()))).await;
    testbed.until("Complete").await;
    until_ended(testbed.pid().await).await;
}

#[tokio::test]
async fn no_process_outlives_the_shutdown() {
    let testbed = Testbed::new();
    testbed.create(json!({}), testbed.sleeper("trap '' TERM;")).await;
    let pid = testbed.pid().await;
    testbed.stop().await;
    // SIGKILL is sent, but the kernel may need a moment.
    timeout(TIMEOUT, until_ended(pid)).await.unwrap();
}

#[test]
fn no_process_outlives_a_dropped_runtime() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (testbed, pid) = runtime.block_on(async {
        let testbed = Testbed::new();
        testbed.create(json!({}), testbed.sleeper("")).await;
        let pid = testbed.pid().await;
        (testbed, pid)
    });
    drop(runtime);
    drop(testbed);
    tokio::runtime::Runtime::new().unwrap().block_on(until_ended(pid));
}

const FILE: &str = "LOCAL_CLUSTER_TEST_PID_FILE";

/// A helper that runs only as the program that the next test kills.
#[tokio::test]
async fn program_with_a_container() {
    let Ok(file) = std::env::var(FILE) else { return };
    let testbed = Testbed::new();
    testbed.create(json!({}), testbed.sleeper("trap '' TERM;")).await;
    let pid = testbed.pid().await;
    // The guard watches every running container, but not one that is just starting.
    testbed.until_pod("Running").await;
    std::fs::write(format!("{file}.new"), pid.to_string()).unwrap();
    std::fs::rename(format!("{file}.new"), file).unwrap();
    tokio::time::sleep(TIMEOUT).await;
}

#[tokio::test]
async fn no_process_outlives_a_killed_program() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let mut program = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "processes::program_with_a_container", "--quiet"])
        .env(FILE, &file)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pid = pid_in(&file).await;
    assert!(is_alive(pid));
    program.kill().unwrap();
    program.wait().unwrap();
    until_ended(pid).await;
}
