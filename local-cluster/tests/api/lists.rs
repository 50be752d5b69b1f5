//! Lists: consistent pages, selectors and versions.

use kube::api::{DeleteParams, ListParams, PostParams, VersionMatch};
use serde_json::json;

use crate::cluster::{Cluster, job_with, status};

fn names(list: &kube::api::ObjectList<k8s_openapi::api::batch::v1::Job>) -> Vec<&str> {
    list.items.iter().map(|job| job.metadata.name.as_deref().unwrap()).collect()
}

#[tokio::test]
async fn pages_show_the_version_of_the_first_page() {
    let cluster = Cluster::new().await;
    let [jobs, remote] = cluster.both();
    for name in ["a", "b", "c", "d", "e"] {
        cluster.create(name).await;
    }
    let first = jobs.list(&ListParams::default().limit(2)).await.unwrap();
    assert_eq!((names(&first), first.metadata.remaining_item_count), (vec!["a", "b"], Some(3)));
    jobs.delete("c", &DeleteParams::background()).await.unwrap();
    cluster.create("bb").await;
    let token = first.metadata.continue_.clone().unwrap();
    let second = remote.list(&ListParams::default().limit(2).continue_token(&token)).await.unwrap();
    assert_eq!(names(&second), ["c", "d"]);
    assert_eq!(second.metadata.resource_version, first.metadata.resource_version);
    let token = second.metadata.continue_.unwrap();
    let third = jobs.list(&ListParams::default().limit(2).continue_token(&token)).await.unwrap();
    assert_eq!((names(&third), third.metadata.continue_.as_ref()), (vec!["e"], None));
    assert_eq!(names(&jobs.list(&ListParams::default()).await.unwrap()), ["a", "b", "bb", "d", "e"]);
    cluster.faults.forget_history();
    let late = jobs.list(&ListParams::default().limit(2).continue_token(&token)).await;
    let (code, reason, _) = status(late);
    assert_eq!((code, reason.as_str()), (410, "Expired"));
    let bad = jobs.list(&ListParams::default().continue_token("x")).await;
    assert_eq!(status(bad).0, 400);
}

#[tokio::test]
async fn list_honours_the_requested_version() {
    let cluster = Cluster::new().await;
    let jobs = cluster.jobs();
    let first = crate::cluster::version(&cluster.create("a").await);
    cluster.create("b").await;
    let exact = ListParams::default().at(&first).matching(VersionMatch::Exact);
    assert_eq!(names(&jobs.list(&exact).await.unwrap()), ["a"]);
    let newer = ListParams::default().at(&first).matching(VersionMatch::NotOlderThan);
    assert_eq!(names(&jobs.list(&newer).await.unwrap()), ["a", "b"]);
    let (code, reason, _) =
        status(jobs.list(&ListParams::default().at("999").matching(VersionMatch::NotOlderThan)).await);
    assert_eq!((code, reason.as_str()), (504, "Timeout"));
    assert_eq!(status(jobs.list(&ListParams::default().at("x").matching(VersionMatch::Exact)).await).0, 400);
}

#[tokio::test]
async fn list_honours_selectors() {
    let cluster = Cluster::new().await;
    let jobs = cluster.jobs();
    for (name, labels) in
        [("a", json!({"x/k": "1"})), ("b", json!({"x/k": "2"})), ("c", json!({"other": ""}))]
    {
        let job = job_with(name, json!({"metadata": {"labels": labels}}));
        jobs.create(&PostParams::default(), &job).await.unwrap();
    }
    for (labels, expected) in [
        ("x/k", vec!["a", "b"]),
        ("x/k=1", vec!["a"]),
        ("x/k in (1,2)", vec!["a", "b"]),
        ("!x/k", vec!["c"]),
        ("x/k,x/k!=1", vec!["b"]),
    ] {
        assert_eq!(
            names(&jobs.list(&ListParams::default().labels(labels)).await.unwrap()),
            expected,
            "{labels}"
        );
    }
    let named = ListParams::default().fields("metadata.name=b");
    assert_eq!(names(&jobs.list(&named).await.unwrap()), ["b"]);
    for bad in [ListParams::default().labels("a in b"), ListParams::default().fields("spec.suspend=true")] {
        assert_eq!(status(jobs.list(&bad).await).0, 400);
    }
}
