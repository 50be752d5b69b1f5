//! By default, injected faults do not affect the Job controller and the kubelet, only other API
//! clients. With `Testbed::with_faults_everywhere` they affect these two as well, which recover.

use std::time::Duration;

use local_cluster::faults::{Behaviour, Calls, Failure, WatchFault};
use serde_json::json;

use crate::testbed::{Testbed, conditions, shell};

#[tokio::test]
async fn faults_affect_api_clients_but_not_controller_and_kubelet() {
    let testbed = Testbed::new();
    let created = testbed.create(json!({}), shell("sleep 0.2")).await;
    testbed.faults.fail(Calls::all(), u32::MAX, Failure::Code(500));
    testbed.faults.set_behaviour(Calls::all(), Behaviour::Stall);
    testbed.faults.deny(Calls::on("pods"));
    testbed.faults.refuse_connections(true);
    assert!(testbed.jobs.get("a").await.is_err());
    testbed.until_finished_internally().await;
    testbed.faults.clear();
    let job = testbed.until("Complete").await;
    assert_eq!((job.metadata.uid, testbed.pods().await.len()), (created.metadata.uid, 1));
}

#[tokio::test]
async fn retry_of_a_failed_pod_create_creates_no_second_pod() {
    for failure in [Failure::CodeAfter(504), Failure::BreakAfter, Failure::Code(500), Failure::Break] {
        let testbed = Testbed::with_faults_everywhere();
        testbed.faults.fail(Calls::of("create", "pods"), 2, failure);
        testbed.create(json!({}), shell("sleep 0.2")).await;
        testbed.until("Complete").await;
        assert_eq!(
            (testbed.pods().await.len(), testbed.faults.remaining() > 0),
            (1, matches!(failure, Failure::CodeAfter(_) | Failure::BreakAfter)),
            "{failure:?}"
        );
    }
}

#[tokio::test]
async fn controller_and_kubelet_retry_every_type_of_call() {
    let testbed = Testbed::with_faults_everywhere();
    for resource in ["jobs", "jobs/status", "pods", "pods/status", "events"] {
        for verb in ["get", "list", "update", "patch", "delete"] {
            testbed.faults.fail(Calls::of(verb, resource), 2, Failure::Code(503));
            testbed.faults.fail(Calls::of(verb, resource), 1, Failure::BreakAfter);
        }
    }
    testbed.create(json!({"backoffLimit": 1}), shell("sleep 0.1; exit 1")).await;
    let job = testbed.until("Failed").await;
    assert_eq!(conditions(&job)[1].1, "BackoffLimitExceeded");
    testbed.faults.clear();
    assert_eq!((job.status.unwrap().failed, testbed.pods().await.len()), (Some(2), 2));
}

#[tokio::test]
async fn controller_and_kubelet_recover_from_watch_faults() {
    let testbed = Testbed::with_faults_everywhere();
    testbed.create(json!({"parallelism": 1, "completions": 8}), shell("sleep 0.1")).await;
    for fault in [
        WatchFault::End,
        WatchFault::Break,
        WatchFault::Truncate,
        WatchFault::Error(410),
        WatchFault::Error(500),
    ] {
        for resource in ["jobs", "pods"] {
            testbed.faults.inject(Calls::of("watch", resource), fault);
        }
        testbed.faults.forget_history();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    testbed.faults.set_behaviour(Calls::of("watch", "pods"), Behaviour::Repeat);
    let status = testbed.until("Complete").await.status.unwrap();
    assert_eq!((status.succeeded, status.failed, testbed.pods().await.len()), (Some(8), None, 8));
}

#[tokio::test]
async fn silently_deleted_pod_is_replaced_and_its_process_ends() {
    let testbed = Testbed::with_faults_everywhere();
    testbed.create(json!({}), testbed.sleeper("")).await;
    let pid = testbed.pid().await;
    let pod = testbed.until_pod("Running").await;
    testbed.faults.delete_silently("pods", "default", pod.metadata.name.as_deref().unwrap());
    // There is no watch event for the deletion. The watches expire (410), so that the controller
    // and the kubelet list again and detect it.
    testbed.faults.forget_history();
    for resource in ["jobs", "pods"] {
        testbed.faults.inject(Calls::of("watch", resource), WatchFault::Error(410));
    }
    crate::wait::until_ended(pid).await;
    testbed.watch_pods(|other| other.metadata.uid != pod.metadata.uid).await;
}
