//! What containers write, read and followed through the API.

use futures::{AsyncBufReadExt, TryStreamExt};
use kube::{ResourceExt, api::LogParams};
use serde_json::json;

use crate::testbed::{Testbed, shell, simple};

#[tokio::test]
async fn the_log_is_whole_when_the_pod_has_ended() {
    let testbed = Testbed::new();
    testbed.create(json!({}), simple(false)).await;
    let pod = testbed.until_pod("Succeeded").await.name_any();
    let log = testbed.pods.logs(&pod, &LogParams::default()).await.unwrap();
    assert_eq!(log, "Simple Job with foo=\"bar\" is done.\n");
}

#[tokio::test]
async fn stderr_is_in_it_and_its_end_can_be_had_alone() {
    let testbed = Testbed::new();
    testbed.create(json!({}), shell("echo one; echo two >&2; sleep 0.1; echo three")).await;
    let pod = testbed.until_pod("Succeeded").await.name_any();
    let tail = LogParams { tail_lines: Some(1), ..LogParams::default() };
    assert_eq!(testbed.pods.logs(&pod, &tail).await.unwrap(), "three\n");
    let all = testbed.pods.logs(&pod, &LogParams::default()).await.unwrap();
    let mut lines: Vec<_> = all.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["one", "three", "two"]);
}

#[tokio::test]
async fn a_log_is_followed_to_the_end_of_the_container() {
    let testbed = Testbed::new();
    let go = testbed.folder.path().join("go");
    let line = format!("echo one; while [ ! -e {} ]; do sleep 0.02; done; echo two", go.display());
    testbed.create(json!({}), shell(&line)).await;
    let pod = testbed.until_pod("Running").await.name_any();
    let follow = LogParams { follow: true, ..LogParams::default() };
    let mut lines = testbed.pods.log_stream(&pod, &follow).await.unwrap().lines();
    assert_eq!(lines.try_next().await.unwrap().unwrap(), "one");
    std::fs::write(go, "").unwrap();
    assert_eq!(lines.try_next().await.unwrap().unwrap(), "two");
    assert_eq!(lines.try_next().await.unwrap(), None);
}

#[tokio::test]
async fn only_the_last_bytes_are_kept() {
    let testbed = Testbed::with(|options| options.log_limit = 1000);
    testbed.create(json!({}), shell("i=0; while [ $i -lt 1000 ]; do echo line $i; i=$((i+1)); done")).await;
    let pod = testbed.until_pod("Succeeded").await.name_any();
    let log = testbed.pods.logs(&pod, &LogParams::default()).await.unwrap();
    assert!(log.len() <= 1000 && log.ends_with("line 999\n"), "{log}");
}

#[tokio::test]
async fn a_container_that_has_not_started_has_none() {
    let testbed = Testbed::new();
    testbed.create(json!({}), json!({"image": "missing:1"})).await;
    let pod = testbed.until_pod("Pending").await.name_any();
    let error = testbed.pods.logs(&pod, &LogParams::default()).await.unwrap_err();
    assert!(error.to_string().contains("is waiting to start"), "{error}");
}
