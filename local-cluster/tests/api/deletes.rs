//! Deletes: propagation, grace, finalizers, preconditions, collections, namespaces.

use std::pin::pin;

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api,
    api::{
        DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy,
        WatchEvent, WatchParams,
    },
};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Events, job, pod_of, status, version};

async fn with_pod(cluster: &Cluster, change: Value) -> String {
    let owner = cluster.create("a").await;
    cluster.pods().create(&PostParams::default(), &pod_of(&owner, "p", change)).await.unwrap();
    version(&owner)
}

async fn pod(cluster: &Cluster) -> Option<Pod> {
    cluster.pods().get_opt("p").await.unwrap()
}

#[tokio::test]
async fn background_delete_removes_the_pods() {
    let cluster = Cluster::new().await;
    with_pod(&cluster, json!({})).await;
    cluster.jobs().delete("a", &DeleteParams::background()).await.unwrap();
    assert!(cluster.jobs().get_opt("a").await.unwrap().is_none());
    assert!(pod(&cluster).await.is_none());
}

#[tokio::test]
async fn default_delete_of_a_job_orphans_its_pods() {
    let cluster = Cluster::new().await;
    let version = with_pod(&cluster, json!({})).await;
    let mut events = Events::of(&cluster.jobs(), WatchParams::default(), &version).await;
    cluster.jobs().delete("a", &DeleteParams::default()).await.unwrap();
    assert_eq!((events.next().await, events.next().await), ("MODIFIED a".into(), "DELETED a".into()));
    assert!(pod(&cluster).await.unwrap().metadata.owner_references.is_none());
}

#[tokio::test]
async fn foreground_delete_waits_for_the_pods() {
    let cluster = Cluster::new().await;
    with_pod(&cluster, json!({"spec": {"nodeName": "n"}})).await;
    let marked = cluster.jobs().delete("a", &DeleteParams::foreground()).await.unwrap().left().unwrap();
    assert!(marked.metadata.deletion_timestamp.is_some());
    assert_eq!(marked.metadata.finalizers.unwrap(), ["foregroundDeletion"]);
    // A terminating Job still occupies its name.
    assert_eq!(status(cluster.jobs().create(&PostParams::default(), &job("a")).await).0, 409);
    assert_eq!(pod(&cluster).await.unwrap().metadata.deletion_grace_period_seconds, Some(30));
    cluster.pods().delete("p", &DeleteParams::default().grace_period(0)).await.unwrap();
    assert!(cluster.jobs().get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn only_a_running_pod_has_a_grace_period() {
    let cluster = Cluster::new().await;
    with_pod(&cluster, json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 7}})).await;
    let pods = cluster.pods();
    let marked = pods.delete("p", &DeleteParams::default()).await.unwrap().left().unwrap();
    assert_eq!(marked.metadata.deletion_grace_period_seconds, Some(7));
    let same = pods.delete("p", &DeleteParams::default().grace_period(60)).await.unwrap().left().unwrap();
    assert_eq!(
        same.metadata.resource_version, marked.metadata.resource_version,
        "the grace period can only be shortened"
    );
    let done = json!({"status": {"phase": "Succeeded"}});
    pods.patch_status("p", &PatchParams::default(), &Patch::Merge(&done)).await.unwrap();
    assert!(pod(&cluster).await.is_some());
    pods.delete("p", &DeleteParams::default()).await.unwrap();
    assert!(pod(&cluster).await.is_none());
}

/// The events match those of a real API server when the kubelet removes a terminating pod.
#[tokio::test]
async fn end_of_a_grace_period_is_a_separate_event() {
    let cluster = Cluster::new().await;
    with_pod(&cluster, json!({"spec": {"nodeName": "n"}})).await;
    let pods = cluster.pods();
    let mut events = pin!(pods.watch(&WatchParams::default(), "0").await.unwrap());
    cluster.pods().delete("p", &DeleteParams::default()).await.unwrap();
    cluster.pods().delete("p", &DeleteParams::default().grace_period(0)).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 4 {
        seen.push(match events.try_next().await.unwrap().unwrap() {
            WatchEvent::Added(pod) => ("ADDED", pod.metadata.deletion_grace_period_seconds),
            WatchEvent::Modified(pod) => ("MODIFIED", pod.metadata.deletion_grace_period_seconds),
            WatchEvent::Deleted(pod) => ("DELETED", pod.metadata.deletion_grace_period_seconds),
            other => panic!("{other:?}"),
        });
    }
    let expected = [("ADDED", None), ("MODIFIED", Some(30)), ("MODIFIED", Some(0)), ("DELETED", Some(0))];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn finalizer_retains_a_deleted_pod() {
    let cluster = Cluster::new().await;
    with_pod(&cluster, json!({"metadata": {"finalizers": ["batch.kubernetes.io/job-tracking"]}})).await;
    cluster.jobs().delete("a", &DeleteParams::background()).await.unwrap();
    assert!(pod(&cluster).await.unwrap().metadata.deletion_timestamp.is_some());
    let release = json!({"metadata": {"finalizers": null}});
    cluster.pods().patch("p", &PatchParams::default(), &Patch::Merge(&release)).await.unwrap();
    assert!(pod(&cluster).await.is_none());
}

#[tokio::test]
async fn delete_preconditions_are_checked() {
    let cluster = Cluster::new().await;
    let created = cluster.create("a").await;
    let with = |uid: Option<&str>, version: Option<&str>| {
        DeleteParams::background().preconditions(Preconditions {
            uid: uid.map(str::to_owned),
            resource_version: version.map(str::to_owned),
        })
    };
    let (code, reason, message) = status(cluster.jobs().delete("a", &with(Some("other"), None)).await);
    assert_eq!((code, reason.as_str()), (409, "Conflict"));
    assert!(message.starts_with("Operation cannot be fulfilled on Job.batch \"a\": the UID in the precondition (other) does not match"), "{message}");
    assert_eq!(status(cluster.jobs().delete("a", &with(None, Some("0"))).await).0, 409);
    let uid = created.metadata.uid.as_deref();
    cluster.jobs().delete("a", &with(uid, Some(&version(&created)))).await.unwrap();
    assert_eq!(status(cluster.jobs().delete("a", &DeleteParams::background()).await).0, 404);
}

#[tokio::test]
async fn deletecollection_deletes_the_selected_jobs() {
    let cluster = Cluster::new().await;
    for name in ["a", "b", "c"] {
        cluster.create(name).await;
    }
    let some = ListParams::default().fields("metadata.name!=b");
    let policy =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
    let deleted = cluster.jobs().delete_collection(&policy, &some).await.unwrap().left().unwrap();
    assert_eq!(deleted.items.len(), 2);
    let left = cluster.jobs().list(&ListParams::default()).await.unwrap();
    assert_eq!(left.items[0].metadata.name.as_deref(), Some("b"));
}

#[tokio::test]
async fn pod_created_after_its_owner_is_deleted_is_removed() {
    let cluster = Cluster::new().await;
    let owner = cluster.create("a").await;
    cluster.jobs().delete("a", &DeleteParams::background()).await.unwrap();
    cluster.pods().create(&PostParams::default(), &pod_of(&owner, "p", json!({}))).await.unwrap();
    assert!(pod(&cluster).await.is_none());
}

#[tokio::test]
async fn namespace_is_deleted_with_its_contents() {
    let cluster = Cluster::new().await;
    with_pod(&cluster, json!({"spec": {"nodeName": "n"}})).await;
    let namespaces: Api<Namespace> = Api::all(cluster.client());
    namespaces.delete("default", &DeleteParams::default()).await.unwrap();
    let phase = namespaces.get("default").await.unwrap().status.unwrap().phase;
    assert_eq!(phase.as_deref(), Some("Terminating"));
    let (code, _, message) = status(cluster.jobs().create(&PostParams::default(), &job("b")).await);
    assert_eq!(code, 403);
    assert!(message.contains("because it is being terminated"), "{message}");
    cluster.pods().delete("p", &DeleteParams::default().grace_period(0)).await.unwrap();
    assert!(namespaces.get_opt("default").await.unwrap().is_none());
    namespaces
        .create(
            &PostParams::default(),
            &serde_json::from_value(json!({"metadata": {"name": "default"}})).unwrap(),
        )
        .await
        .unwrap();
    cluster.create("b").await;
}
