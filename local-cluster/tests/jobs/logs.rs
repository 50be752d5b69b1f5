//! The logs of containers, read and followed through the API.

use futures::{AsyncBufReadExt, TryStreamExt};
use kube::{ResourceExt, api::LogParams};
use serde_json::json;

use crate::testbed::{Testbed, shell, simple};

#[tokio::test]
async fn log_is_complete_when_the_pod_has_ended() {
    let testbed = Testbed::new();
    testbed.create(json!({}), simple(false)).await;
    let pod = testbed.until_pod("Succeeded").await.name_any();
    let log = testbed.pods.logs(&pod, &LogParams::default()).await.unwrap();
    assert_eq!(log, "Simple Job with foo=\"bar\" is done.\n");
}

#[tokio::test]
async fn log_includes_stderr_and_supports_tail() {
    let testbed = Testbed::new();
    let resume = testbed.folder.path().join("resume");
    let wait = format!("while [ ! -e {} ]; do sleep 0.02; done", resume.display());
    testbed.create(json!({}), shell(&format!("echo one; echo two >&2; {wait}; echo three"))).await;
    let pod = testbed.until_pod("Running").await.name_any();
    // stdout and stderr are two pipes: the last line is certain only after the others are read.
    let follow = LogParams { follow: true, ..LogParams::default() };
    let mut lines = testbed.pods.log_stream(&pod, &follow).await.unwrap().lines();
    for _ in ["one", "two"] {
        lines.try_next().await.unwrap().unwrap();
    }
    std::fs::write(resume, "").unwrap();
    testbed.until_pod("Succeeded").await;
    let tail = LogParams { tail_lines: Some(1), ..LogParams::default() };
    assert_eq!(testbed.pods.logs(&pod, &tail).await.unwrap(), "three\n");
    let all = testbed.pods.logs(&pod, &LogParams::default()).await.unwrap();
    let mut lines: Vec<_> = all.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["one", "three", "two"]);
}

#[tokio::test]
async fn log_follows_until_the_container_ends() {
    let testbed = Testbed::new();
    let resume = testbed.folder.path().join("resume");
    let line = format!("echo one; while [ ! -e {} ]; do sleep 0.02; done; echo two", resume.display());
    testbed.create(json!({}), shell(&line)).await;
    let pod = testbed.until_pod("Running").await.name_any();
    let follow = LogParams { follow: true, ..LogParams::default() };
    let mut lines = testbed.pods.log_stream(&pod, &follow).await.unwrap().lines();
    assert_eq!(lines.try_next().await.unwrap().unwrap(), "one");
    std::fs::write(resume, "").unwrap();
    assert_eq!(lines.try_next().await.unwrap().unwrap(), "two");
    assert_eq!(lines.try_next().await.unwrap(), None);
}

#[tokio::test]
async fn log_limit_drops_the_oldest_lines() {
    let testbed = Testbed::with(|options| options.log_limit = 1000);
    testbed.create(json!({}), shell("i=0; while [ $i -lt 1000 ]; do echo line $i; i=$((i+1)); done")).await;
    let pod = testbed.until_pod("Succeeded").await.name_any();
    let log = testbed.pods.logs(&pod, &LogParams::default()).await.unwrap();
    assert!(log.len() <= 1000 && log.ends_with("line 999\n"), "{log}");
}

#[tokio::test]
async fn unstarted_container_has_no_log() {
    let testbed = Testbed::new();
    testbed.create(json!({}), json!({"image": "missing:1"})).await;
    let pod = testbed.until_pod("Pending").await.name_any();
    let error = testbed.pods.logs(&pod, &LogParams::default()).await.unwrap_err();
    assert!(error.to_string().contains("is waiting to start"), "{error}");
}
