//! Watches: order, resume, 410, bookmarks, selectors, timeouts and initial events.

use std::{collections::BTreeSet, pin::pin, time::Duration};

use futures::TryStreamExt;
use kube::{
    api::{DeleteParams, ListParams, Patch, PatchParams, WatchEvent, WatchParams},
    runtime::watcher::{self, Event, watcher},
};
use local_cluster::Options;
use serde_json::json;

use crate::cluster::{Cluster, Events, version};

async fn label(cluster: &Cluster, name: &str, value: Option<&str>) {
    let patch = json!({"metadata": {"labels": {"l": value}}});
    cluster.jobs().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
}

#[tokio::test]
async fn watch_resumes_from_a_version() {
    let cluster = Cluster::new().await;
    let first = cluster.create("a").await;
    cluster.create("b").await;
    label(&cluster, "a", Some("x")).await;
    cluster.jobs().delete("b", &DeleteParams::background()).await.unwrap();
    for jobs in cluster.both() {
        let mut events = Events::of(&jobs, WatchParams::default(), &version(&first)).await;
        for expected in ["ADDED b", "MODIFIED a", "DELETED b"] {
            assert_eq!(events.next().await, expected);
        }
        assert!(events.is_silent().await);
    }
}

#[tokio::test]
async fn watch_without_a_version_starts_with_the_existing_jobs() {
    let cluster = Cluster::new().await;
    cluster.create("a").await;
    let mut events = Events::of(&cluster.jobs(), WatchParams::default(), "0").await;
    assert_eq!(events.next().await, "ADDED a");
    cluster.create("b").await;
    assert_eq!(events.next().await, "ADDED b");
}

#[tokio::test]
async fn deleted_event_has_the_version_of_the_removal() {
    let cluster = Cluster::new().await;
    let created = cluster.create("a").await;
    let mut events = Events::of(&cluster.jobs(), WatchParams::default(), &version(&created)).await;
    cluster.jobs().delete("a", &DeleteParams::background()).await.unwrap();
    let Some(Ok(WatchEvent::Deleted(last))) = events.raw().await else { panic!("expected a DELETED event") };
    assert!(version(&last).parse::<u64>().unwrap() > version(&created).parse().unwrap());
    assert_eq!(last.metadata.uid, created.metadata.uid);
}

#[tokio::test]
async fn selector_changes_produce_added_and_deleted_events() {
    let cluster = Cluster::new().await;
    let created = cluster.create("a").await;
    let mut events =
        Events::of(&cluster.jobs(), WatchParams::default().labels("l"), &version(&created)).await;
    label(&cluster, "a", Some("x")).await;
    assert_eq!(events.next().await, "ADDED a");
    label(&cluster, "a", Some("y")).await;
    assert_eq!(events.next().await, "MODIFIED a");
    label(&cluster, "a", None).await;
    let Some(Ok(WatchEvent::Deleted(last))) = events.raw().await else { panic!("expected a DELETED event") };
    assert_eq!((last.metadata.labels.unwrap()["l"].as_str(), last.metadata.deletion_timestamp), ("y", None));
    label(&cluster, "a", Some("z")).await;
    assert_eq!(events.next().await, "ADDED a");
    let mut named = Events::of(&cluster.jobs(), WatchParams::default().fields("metadata.name=b"), "0").await;
    cluster.create("c").await;
    cluster.create("b").await;
    assert_eq!(named.next().await, "ADDED b");
}

#[tokio::test]
async fn watch_below_the_history_expires() {
    let cluster = Cluster::with(Options { history: 3, ..Options::default() }).await;
    let first = cluster.create("a").await;
    for value in ["1", "2", "3", "4"] {
        label(&cluster, "a", Some(value)).await;
    }
    for jobs in cluster.both() {
        let mut events = Events::of(&jobs, WatchParams::default(), &version(&first)).await;
        assert_eq!((events.next().await, events.next().await), ("ERROR 410 Expired".into(), "end".into()));
    }
}

#[tokio::test]
async fn watch_resumes_from_a_requested_bookmark() {
    let cluster =
        Cluster::with(Options { bookmark_interval: Duration::from_millis(30), ..Options::default() }).await;
    let created = cluster.create("a").await;
    let mut events = Events::of(&cluster.jobs(), WatchParams::default(), &version(&created)).await;
    let Some(Ok(WatchEvent::Bookmark(bookmark))) = events.raw().await else { panic!("expected a bookmark") };
    let mut resumed =
        Events::of(&cluster.jobs(), WatchParams::default(), &bookmark.metadata.resource_version).await;
    label(&cluster, "a", Some("x")).await;
    assert_eq!(resumed.next().await, "MODIFIED a");
    let quiet = WatchParams { bookmarks: false, ..WatchParams::default() };
    let now = cluster.jobs().list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    assert!(Events::of(&cluster.jobs(), quiet, &now).await.is_silent().await);
}

#[tokio::test]
async fn watch_ends_at_its_timeout() {
    let cluster = Cluster::new().await;
    for jobs in cluster.both() {
        let mut events = Events::of(&jobs, WatchParams::default().timeout(1), "0").await;
        assert_eq!(events.next().await, "end");
    }
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let cluster = Cluster::new().await;
    cluster.create("a").await;
    let parameters = WatchParams::default().initial_events();
    let mut events = Events::of(&cluster.jobs(), parameters, "").await;
    assert_eq!(events.next().await, "ADDED a");
    let Some(Ok(WatchEvent::Bookmark(bookmark))) = events.raw().await else { panic!("expected a bookmark") };
    assert_eq!(bookmark.metadata.annotations["k8s.io/initial-events-end"], "true");
    cluster.create("b").await;
    assert_eq!(events.next().await, "ADDED b");
}

#[tokio::test]
async fn watcher_supports_paged_and_streaming_lists() {
    for config in [watcher::Config::default().page_size(2), watcher::Config::default().streaming_lists()] {
        let cluster = Cluster::new().await;
        for name in ["a", "b", "c"] {
            cluster.create(name).await;
        }
        let [_, remote] = cluster.both();
        let mut events = pin!(watcher(remote, config));
        let mut listed = BTreeSet::new();
        loop {
            match events.try_next().await.unwrap().unwrap() {
                Event::InitApply(job) => drop(listed.insert(job.metadata.name.unwrap())),
                Event::InitDone => break,
                _ => {}
            }
        }
        assert_eq!(listed.len(), 3);
        cluster.create("d").await;
        assert!(matches!(events.try_next().await.unwrap(), Some(Event::Apply(_))));
        cluster.jobs().delete("d", &DeleteParams::background()).await.unwrap();
        assert!(matches!(events.try_next().await.unwrap(), Some(Event::Delete(_))));
    }
}

/// Each watch receives each change once and in order, at any rate.
#[tokio::test(flavor = "multi_thread")]
async fn watches_lose_no_event_under_load() {
    const JOBS: usize = 300;
    let cluster = Cluster::new().await;
    let mut watches = Vec::new();
    for jobs in cluster.both() {
        watches.push(Events::of(&jobs, WatchParams::default(), "0").await);
    }
    let writers = (0..4).map(|writer| {
        let jobs = cluster.jobs();
        tokio::spawn(async move {
            for number in (writer..JOBS).step_by(4) {
                let job = crate::cluster::job(&format!("j{number}"));
                jobs.create(&kube::api::PostParams::default(), &job).await.unwrap();
            }
        })
    });
    futures::future::join_all(writers).await;
    for events in &mut watches {
        let mut versions = Vec::new();
        while versions.len() < JOBS {
            if let Some(Ok(WatchEvent::Added(job))) = events.raw().await {
                versions.push(version(&job).parse::<u64>().unwrap());
            }
        }
        assert!(versions.is_sorted());
        assert_eq!(versions.iter().collect::<BTreeSet<_>>().len(), JOBS);
    }
}
