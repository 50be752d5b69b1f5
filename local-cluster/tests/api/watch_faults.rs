//! Faults of watches and of their events.

use std::time::Duration;

use kube::api::{DeleteParams, ListParams, Patch, PatchParams, WatchParams};
use local_cluster::{
    Options,
    faults::{Behaviour, Calls, Failure, WatchFault},
};
use serde_json::json;

use crate::cluster::{Cluster, Events, version};

fn watches() -> Calls {
    Calls::of("watch", "jobs")
}

async fn touch(cluster: &Cluster, name: &str, value: &str) {
    let patch = json!({"metadata": {"labels": {"l": value}}});
    cluster.jobs().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
}

#[tokio::test]
async fn running_watch_receives_injected_faults() {
    let cluster = Cluster::new().await;
    let created = cluster.create("a").await;
    for jobs in cluster.both() {
        for (fault, expected) in [
            (WatchFault::End, "end"),
            (WatchFault::Break, "broken"),
            (WatchFault::Error(410), "ERROR 410 Expired"),
            (WatchFault::Error(500), "ERROR 500 InternalError"),
        ] {
            let mut events = Events::of(&jobs, WatchParams::default(), &version(&created)).await;
            cluster.faults.inject(Calls::on("pods"), WatchFault::Break);
            cluster.faults.inject(watches(), fault);
            let found = events.next().await;
            // Over HTTP, the client sees a break between two events as the end of the watch.
            assert!(found == expected || (fault == WatchFault::Break && found == "end"), "{found}");
        }
    }
}

#[tokio::test]
async fn truncated_event_ends_the_watch() {
    let cluster = Cluster::new().await;
    cluster.create("a").await;
    for (jobs, value) in cluster.both().iter().zip(["1", "2"]) {
        let now = version(&jobs.get("a").await.unwrap());
        let mut events = Events::of(jobs, WatchParams::default(), &now).await;
        cluster.faults.inject(watches(), WatchFault::Truncate);
        touch(&cluster, "a", value).await;
        let found = events.next().await;
        assert!(["end", "broken"].contains(&found.as_str()), "{found}");
    }
}

#[tokio::test]
async fn new_watch_fails_as_configured() {
    let cluster = Cluster::new().await;
    cluster.faults.fail(watches(), 1, Failure::WatchError(410));
    let mut events = Events::of(&cluster.jobs(), WatchParams::default(), "0").await;
    assert_eq!((events.next().await, events.next().await), ("ERROR 410 Expired".into(), "end".into()));
    cluster.faults.fail(watches(), 1, Failure::Code(410));
    let failed = cluster.jobs().watch(&WatchParams::default(), "0").await.err().unwrap();
    assert!(matches!(&failed, kube::Error::Api(status) if status.code == 410), "{failed}");
}

#[tokio::test]
async fn stalled_watch_is_silent_until_reset() {
    let cluster =
        Cluster::with(Options { bookmark_interval: Duration::from_millis(10), ..Options::default() }).await;
    let created = cluster.create("a").await;
    for jobs in cluster.both() {
        let mut events = Events::of(&jobs, WatchParams::default().timeout(1), &version(&created)).await;
        cluster.faults.set_behaviour(watches(), Behaviour::Stall);
        touch(&cluster, "a", "1").await;
        while !events.is_silent().await {}
        cluster.faults.reset_behaviours();
        assert_eq!(events.next().await, "MODIFIED a");
        touch(&cluster, "a", "0").await;
    }
}

#[tokio::test]
async fn watch_without_bookmarks_sends_none() {
    let cluster =
        Cluster::with(Options { bookmark_interval: Duration::from_millis(10), ..Options::default() }).await;
    cluster.faults.set_behaviour(watches(), Behaviour::NoBookmarks);
    let created = cluster.create("a").await;
    let mut events = Events::of(&cluster.jobs(), WatchParams::default(), &version(&created)).await;
    assert!(events.is_silent().await);
    cluster.faults.reset_behaviours();
    assert_eq!(events.next().await, "BOOKMARK");
}

#[tokio::test]
async fn repeating_watch_sends_each_event_twice() {
    let cluster = Cluster::new().await;
    cluster.faults.set_behaviour(watches(), Behaviour::Repeat);
    let mut events = Events::of(&cluster.jobs(), WatchParams::default(), "1").await;
    cluster.create("a").await;
    assert_eq!((events.next().await, events.next().await), ("ADDED a".into(), "ADDED a".into()));
    assert!(events.is_silent().await);
}

#[tokio::test]
async fn stalled_events_are_merged() {
    let cluster = Cluster::new().await;
    cluster.create("b").await;
    let version = version(&cluster.create("a").await);
    cluster.faults.set_behaviour(watches(), Behaviour::Stall);
    cluster.faults.set_behaviour(watches(), Behaviour::Merge);
    let mut events = Events::of(&cluster.jobs(), WatchParams::default(), &version).await;
    assert!(events.is_silent().await);
    for value in ["1", "2", "3"] {
        touch(&cluster, "a", value).await;
    }
    touch(&cluster, "b", "1").await;
    cluster.jobs().delete("b", &DeleteParams::background()).await.unwrap();
    cluster.create("c").await;
    touch(&cluster, "c", "1").await;
    cluster.faults.reset_behaviours();
    for expected in ["MODIFIED a", "DELETED b", "ADDED c"] {
        assert_eq!(events.next().await, expected);
    }
    assert!(events.is_silent().await);
}

#[tokio::test]
async fn silently_deleted_job_produces_no_event() {
    let cluster = Cluster::new().await;
    let created = cluster.create("a").await;
    let mut events = Events::of(&cluster.jobs(), WatchParams::default(), &version(&created)).await;
    assert!(cluster.faults.delete_silently("jobs", "default", "a"));
    assert!(!cluster.faults.delete_silently("jobs", "default", "a"));
    assert!(events.is_silent().await);
    assert!(cluster.jobs().list(&ListParams::default()).await.unwrap().items.is_empty());
    assert_ne!(cluster.create("a").await.metadata.uid, created.metadata.uid);
    assert_eq!(events.next().await, "ADDED a");
}

#[tokio::test]
async fn dropped_history_expires_lagging_watches() {
    let cluster = Cluster::new().await;
    let created = cluster.create("a").await;
    cluster.faults.set_behaviour(watches(), Behaviour::Stall);
    let mut behind = Events::of(&cluster.jobs(), WatchParams::default(), &version(&created)).await;
    assert!(behind.is_silent().await);
    cluster.faults.forget_history();
    cluster.faults.reset_behaviours();
    assert_eq!(behind.next().await, "ERROR 410 Expired");
    let mut fresh = Events::of(&cluster.jobs(), WatchParams::default(), "0").await;
    assert_eq!(fresh.next().await, "ADDED a");
}
