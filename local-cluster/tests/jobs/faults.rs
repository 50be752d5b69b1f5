//! Faults strike neither the controller nor the kubelet, as they are wired; and where the API fails them all the same, they
//! are late, but right.

use std::time::Duration;

use local_cluster::faults::{Behaviour, Calls, Failure, Strike};
use serde_json::json;

use crate::rig::{Rig, conditions, shell};

#[tokio::test]
async fn faults_strike_callers_and_not_the_cluster_itself() {
    let rig = Rig::new();
    let created = rig.create(json!({}), shell("sleep 0.2")).await;
    rig.faults.fail(Calls::all(), u32::MAX, Failure::Code(500));
    rig.faults.behave(Calls::all(), Behaviour::Stall);
    rig.faults.deny(Calls::on("pods"));
    rig.faults.refuse_connections(true);
    assert!(rig.jobs.get("a").await.is_err());
    rig.until_ended_unseen().await;
    rig.faults.clear();
    let job = rig.until("Complete").await;
    assert_eq!((job.metadata.uid, rig.pods().await.len()), (created.metadata.uid, 1));
}

#[tokio::test]
async fn a_pod_whose_creation_was_answered_with_an_error_is_not_created_twice() {
    for failure in [Failure::CodeAfter(504), Failure::BreakAfter, Failure::Code(500), Failure::Break] {
        let rig = Rig::struck();
        rig.faults.fail(Calls::of("create", "pods"), 2, failure);
        rig.create(json!({}), shell("sleep 0.2")).await;
        rig.until("Complete").await;
        assert_eq!(
            (rig.pods().await.len(), rig.faults.left() > 0),
            (1, matches!(failure, Failure::CodeAfter(_) | Failure::BreakAfter)),
            "{failure:?}"
        );
    }
}

#[tokio::test]
async fn every_sort_of_call_may_fail_at_first() {
    let rig = Rig::struck();
    for resource in ["jobs", "jobs/status", "pods", "pods/status", "events"] {
        for verb in ["get", "list", "update", "patch", "delete"] {
            rig.faults.fail(Calls::of(verb, resource), 2, Failure::Code(503));
            rig.faults.fail(Calls::of(verb, resource), 1, Failure::BreakAfter);
        }
    }
    rig.create(json!({"backoffLimit": 1}), shell("sleep 0.1; exit 1")).await;
    let job = rig.until("Failed").await;
    assert_eq!(conditions(&job)[1].1, "BackoffLimitExceeded");
    rig.faults.clear();
    assert_eq!((job.status.unwrap().failed, rig.pods().await.len()), (Some(2), 2));
}

#[tokio::test]
async fn watches_may_end_in_every_way() {
    let rig = Rig::struck();
    rig.create(json!({"parallelism": 1, "completions": 8}), shell("sleep 0.1")).await;
    for strike in [Strike::End, Strike::Break, Strike::Truncate, Strike::Error(410), Strike::Error(500)] {
        for resource in ["jobs", "pods"] {
            rig.faults.strike(Calls::of("watch", resource), strike);
        }
        rig.faults.forget_history();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    rig.faults.behave(Calls::of("watch", "pods"), Behaviour::Repeat);
    let status = rig.until("Complete").await.status.unwrap();
    assert_eq!((status.succeeded, status.failed, rig.pods().await.len()), (Some(8), None, 8));
}

#[tokio::test]
async fn a_pod_that_vanishes_is_replaced_and_its_process_ends() {
    let rig = Rig::struck();
    rig.create(json!({}), rig.sleeper("")).await;
    let pid = rig.pid().await;
    let pod = rig.until_pod("Running").await;
    rig.faults.vanish("pods", "default", pod.metadata.name.as_deref().unwrap());
    // Nothing tells of it: it is found at the next list.
    rig.faults.forget_history();
    for resource in ["jobs", "pods"] {
        rig.faults.strike(Calls::of("watch", resource), Strike::Error(410));
    }
    crate::wait::until_ended(pid).await;
    rig.watch_pods(|other| other.metadata.uid != pod.metadata.uid).await;
}
