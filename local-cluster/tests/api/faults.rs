//! Faults of calls and of connections.

use std::time::{Duration, Instant};

use kube::api::{ListParams, PostParams, WatchParams};
use local_cluster::faults::{Calls, Failure};

use crate::cluster::{Cluster, Events, job, status};

#[tokio::test]
async fn calls_fail_with_the_configured_code() {
    let cluster = Cluster::new().await;
    for jobs in cluster.both() {
        for (code, reason) in
            [(429, "TooManyRequests"), (500, "InternalError"), (503, "ServiceUnavailable"), (504, "Timeout")]
        {
            cluster.faults.fail(Calls::of("create", "jobs"), 2, Failure::Code(code));
            jobs.list(&ListParams::default()).await.unwrap();
            for _ in 0..2 {
                let (found, found_reason, _) = status(jobs.create(&PostParams::default(), &job("a")).await);
                assert_eq!((found, found_reason.as_str()), (code, reason));
            }
            assert_eq!(cluster.faults.remaining(), 0);
        }
        assert!(jobs.get_opt("a").await.unwrap().is_none());
    }
}

#[tokio::test]
async fn performed_call_reports_a_failure() {
    let cluster = Cluster::new().await;
    let [jobs, remote] = cluster.both();
    cluster.faults.fail(Calls::of("create", "jobs"), 1, Failure::CodeAfter(504));
    assert_eq!(status(jobs.create(&PostParams::default(), &job("a")).await).0, 504);
    assert_eq!(status(jobs.create(&PostParams::default(), &job("a")).await).1, "AlreadyExists");
    cluster.faults.fail(Calls::of("create", "jobs"), 2, Failure::BreakAfter);
    assert!(jobs.create(&PostParams::default(), &job("b")).await.is_err());
    assert!(remote.create(&PostParams::default(), &job("c")).await.is_err());
    assert_eq!(jobs.list(&ListParams::default()).await.unwrap().items.len(), 3);
}

#[tokio::test]
async fn broken_connection_prevents_the_call() {
    let cluster = Cluster::new().await;
    for jobs in cluster.both() {
        cluster.faults.fail(Calls::on("jobs").within("default"), 1, Failure::Break);
        assert!(!matches!(
            jobs.create(&PostParams::default(), &job("a")).await,
            Ok(_) | Err(kube::Error::Api(_))
        ));
        assert!(jobs.get_opt("a").await.unwrap().is_none());
    }
}

#[tokio::test]
async fn matching_calls_are_delayed() {
    let cluster = Cluster::new().await;
    cluster.faults.delay(Calls::of("get", "jobs").named("a"), 1, Duration::from_millis(100));
    let start = Instant::now();
    cluster.jobs().get_opt("b").await.unwrap();
    assert_eq!(cluster.faults.remaining(), 1);
    cluster.jobs().get_opt("a").await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(100));
}

#[tokio::test]
async fn refused_connections_end_running_watches() {
    let cluster = Cluster::new().await;
    for jobs in cluster.both() {
        let mut events = Events::of(&jobs, WatchParams::default(), "0").await;
        cluster.faults.refuse_connections(true);
        assert!(["broken", "end"].contains(&events.next().await.as_str()));
        assert!(!matches!(jobs.list(&ListParams::default()).await, Ok(_) | Err(kube::Error::Api(_))));
        cluster.faults.refuse_connections(false);
        jobs.list(&ListParams::default()).await.unwrap();
    }
}

#[tokio::test]
async fn clear_removes_all_faults() {
    let cluster = Cluster::new().await;
    cluster.faults.fail(Calls::all(), 100, Failure::Code(500));
    cluster.faults.deny(Calls::all());
    cluster.faults.refuse_connections(true);
    cluster.faults.clear();
    assert_eq!(cluster.faults.remaining(), 0);
    cluster.create("a").await;
}
