//! What containers write, read and followed through the API.

use futures::{AsyncBufReadExt, TryStreamExt};
use kube::{ResourceExt, api::LogParams};
use serde_json::json;

use crate::rig::{Rig, shell, simple};

#[tokio::test]
async fn the_log_is_whole_when_the_pod_has_ended() {
    let rig = Rig::new();
    rig.create(json!({}), simple(false)).await;
    let pod = rig.until_pod("Succeeded").await.name_any();
    let log = rig.pods.logs(&pod, &LogParams::default()).await.unwrap();
    assert_eq!(log, "Simple Job with foo=\"bar\" is done.\n");
}

#[tokio::test]
async fn stderr_is_in_it_and_its_end_can_be_had_alone() {
    let rig = Rig::new();
    rig.create(json!({}), shell("echo one; echo two >&2; sleep 0.1; echo three")).await;
    let pod = rig.until_pod("Succeeded").await.name_any();
    let tail = LogParams { tail_lines: Some(1), ..LogParams::default() };
    assert_eq!(rig.pods.logs(&pod, &tail).await.unwrap(), "three\n");
    let all = rig.pods.logs(&pod, &LogParams::default()).await.unwrap();
    let mut lines: Vec<_> = all.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["one", "three", "two"]);
}

#[tokio::test]
async fn a_log_is_followed_to_the_end_of_the_container() {
    let rig = Rig::new();
    let go = rig.folder.path().join("go");
    let line = format!("echo one; while [ ! -e {} ]; do sleep 0.02; done; echo two", go.display());
    rig.create(json!({}), shell(&line)).await;
    let pod = rig.until_pod("Running").await.name_any();
    let follow = LogParams { follow: true, ..LogParams::default() };
    let mut lines = rig.pods.log_stream(&pod, &follow).await.unwrap().lines();
    assert_eq!(lines.try_next().await.unwrap().unwrap(), "one");
    std::fs::write(go, "").unwrap();
    assert_eq!(lines.try_next().await.unwrap().unwrap(), "two");
    assert_eq!(lines.try_next().await.unwrap(), None);
}

#[tokio::test]
async fn only_the_last_bytes_are_kept() {
    let rig = Rig::with(|options| options.log_limit = 1000);
    rig.create(json!({}), shell("i=0; while [ $i -lt 1000 ]; do echo line $i; i=$((i+1)); done")).await;
    let pod = rig.until_pod("Succeeded").await.name_any();
    let log = rig.pods.logs(&pod, &LogParams::default()).await.unwrap();
    assert!(log.len() <= 1000 && log.ends_with("line 999\n"), "{log}");
}

#[tokio::test]
async fn a_container_that_has_not_started_has_none() {
    let rig = Rig::new();
    rig.create(json!({}), json!({"image": "missing:1"})).await;
    let pod = rig.until_pod("Pending").await.name_any();
    let error = rig.pods.logs(&pod, &LogParams::default()).await.unwrap_err();
    assert!(error.to_string().contains("is waiting to start"), "{error}");
}
