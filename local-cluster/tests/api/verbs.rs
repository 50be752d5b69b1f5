//! Create, get, update and patch, logs, access reviews, and the other resources.

use std::sync::Arc;

use futures::{FutureExt, StreamExt, future::BoxFuture};
use k8s_openapi::api::{
    authorization::v1::SelfSubjectAccessReview,
    coordination::v1::Lease,
    core::v1::{Event, Namespace, Pod, ServiceAccount},
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams, WatchParams},
};
use local_cluster::{LogError, LogRequest, LogStream, Logs, faults::Calls};
use serde_json::json;

use crate::cluster::{Cluster, Events, job, job_with, pod_of, status, version};

#[tokio::test]
async fn job_passes_through_create_patch_list_watch_and_delete() {
    for over_http in [false, true] {
        let cluster = Cluster::new().await;
        let jobs = cluster.both()[usize::from(over_http)].clone();
        let created = jobs.create(&PostParams::default(), &job("a")).await.unwrap();
        let mut events = Events::of(&jobs, WatchParams::default(), &version(&created)).await;
        assert_eq!(jobs.get("a").await.unwrap(), created);
        let patch = json!({"metadata": {"annotations": {"x": "y"}}});
        let patched = jobs.patch("a", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        assert_eq!(patched.metadata.annotations.unwrap()["x"], "y");
        let patch = json!({"status": {"active": 1}});
        let patched = jobs.patch_status("a", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        assert_eq!(patched.status.unwrap().active, Some(1));
        assert_eq!(jobs.list(&ListParams::default()).await.unwrap().items.len(), 1);
        let deleted = jobs.delete("a", &DeleteParams::background()).await.unwrap();
        assert_eq!(deleted.right().unwrap().details.unwrap().uid, created.metadata.uid.unwrap());
        for expected in ["MODIFIED a", "MODIFIED a", "DELETED a"] {
            assert_eq!(events.next().await, expected);
        }
        let (code, reason, message) = status(jobs.get("a").await);
        assert_eq!(
            (code, reason.as_str(), message.as_str()),
            (404, "NotFound", "jobs.batch \"a\" not found")
        );
    }
}

#[tokio::test]
async fn created_job_has_the_server_defaults() {
    let cluster = Cluster::new().await;
    let created = cluster.create("a").await;
    let uid = created.metadata.uid.clone().unwrap();
    assert_eq!(created.metadata.generation, Some(1));
    assert!(created.metadata.creation_timestamp.is_some());
    let spec = created.spec.unwrap();
    assert_eq!((spec.backoff_limit, spec.completions, spec.parallelism), (Some(6), Some(1), Some(1)));
    let labels = spec.template.metadata.unwrap().labels.unwrap();
    assert_eq!((labels["controller-uid"].as_str(), labels["job-name"].as_str()), (uid.as_str(), "a"));
    let generated = job_with("", json!({"metadata": {"name": null, "generateName": "g-"}}));
    let generated = cluster.jobs().create(&PostParams::default(), &generated).await.unwrap();
    let name = generated.metadata.name.unwrap();
    assert!(name.starts_with("g-") && name.len() == 7, "{name}");
}

#[tokio::test]
async fn write_changes_only_its_part_and_the_generation() {
    let cluster = Cluster::new().await;
    let jobs = cluster.jobs();
    let created = cluster.create("a").await;
    let both = json!({"spec": {"parallelism": 2}, "status": {"active": 3}});
    let main = jobs.patch("a", &PatchParams::default(), &Patch::Merge(&both)).await.unwrap();
    assert_eq!((main.metadata.generation, main.status.clone().unwrap().active), (Some(2), None));
    let other = json!({"spec": {"parallelism": 5}, "status": {"active": 3}});
    let status = jobs.patch_status("a", &PatchParams::default(), &Patch::Merge(&other)).await.unwrap();
    assert_eq!(status.spec.clone().unwrap().parallelism, Some(2));
    assert_eq!((status.metadata.generation, status.status.clone().unwrap().active), (Some(2), Some(3)));
    // A repeated write changes nothing.
    let same = jobs.patch_status("a", &PatchParams::default(), &Patch::Merge(&other)).await.unwrap();
    assert_eq!(version(&same), version(&status));
    assert_ne!(version(&created), version(&same));
}

#[tokio::test]
async fn put_and_every_type_of_patch_update_a_job() {
    let cluster = Cluster::new().await;
    let jobs = cluster.jobs();
    let mut object = cluster.create("a").await;
    object.spec.as_mut().unwrap().suspend = Some(true);
    let replaced = jobs.replace("a", &PostParams::default(), &object).await.unwrap();
    assert_eq!(replaced.spec.unwrap().suspend, Some(true));
    let patch: json_patch::Patch =
        serde_json::from_value(json!([{"op": "replace", "path": "/spec/suspend", "value": false}])).unwrap();
    let patched = jobs.patch("a", &PatchParams::default(), &Patch::Json::<()>(patch)).await.unwrap();
    assert_eq!(patched.spec.unwrap().suspend, Some(false));
    let patch = json!({"metadata": {"labels": {"x": "y"}}});
    let patched = jobs.patch("a", &PatchParams::default(), &Patch::Strategic(&patch)).await.unwrap();
    assert_eq!(patched.metadata.labels.unwrap()["x"], "y");
    let mut applied = serde_json::to_value(job("b")).unwrap();
    applied["apiVersion"] = "batch/v1".into();
    applied["kind"] = "Job".into();
    let created = jobs.patch("b", &PatchParams::apply("me").force(), &Patch::Apply(&applied)).await.unwrap();
    assert_eq!(created.metadata.name.as_deref(), Some("b"));
    let mut status = jobs.get("a").await.unwrap();
    status.status.as_mut().unwrap().active = Some(1);
    let status = jobs.replace_status("a", &PostParams::default(), &status).await.unwrap();
    assert_eq!(status.status.unwrap().active, Some(1));
}

#[tokio::test]
async fn dry_run_changes_nothing() {
    let cluster = Cluster::new().await;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    cluster.jobs().create(&dry, &job("a")).await.unwrap();
    assert!(cluster.jobs().get_opt("a").await.unwrap().is_none());
}

/// Returns the request as the log.
struct Echo;

impl Logs for Echo {
    fn read(&self, request: LogRequest) -> BoxFuture<'static, Result<LogStream, LogError>> {
        let result = match request.previous {
            true => Err(LogError::NotReady("previous terminated container not found".to_owned())),
            false => {
                Ok(futures::stream::iter([Ok("one\n".into()), Ok(format!("{request:?}\n").into())]).boxed())
            }
        };
        futures::future::ready(result).boxed()
    }
}

#[tokio::test]
async fn logs_come_from_the_registered_source() {
    let cluster = Cluster::new().await;
    let owner = cluster.create("a").await;
    let pod = pod_of(&owner, "p", json!({}));
    let pods: Api<Pod> = Api::default_namespaced(cluster.remote());
    pods.create(&PostParams::default(), &pod).await.unwrap();
    assert_eq!(status(pods.logs("p", &LogParams::default()).await).0, 400);
    cluster.cluster.register_logs(Arc::new(Echo));
    let parameters = LogParams { follow: true, tail_lines: Some(3), ..LogParams::default() };
    let log = pods.logs("p", &parameters).await.unwrap();
    let (first, second) = log.split_once('\n').unwrap();
    assert_eq!(first, "one");
    for part in ["pod: \"p\"", "container: \"c\"", "follow: true", "tail_lines: Some(3)"] {
        assert!(second.contains(part), "{second}");
    }
    let previous = LogParams { previous: true, ..LogParams::default() };
    assert_eq!(status(pods.logs("p", &previous).await).0, 400);
    let other = LogParams { container: Some("other".to_owned()), ..LogParams::default() };
    assert_eq!(status(pods.logs("p", &other).await).2, "container other is not valid for pod p");
    assert_eq!(status(pods.logs("q", &LogParams::default()).await).0, 404);
}

#[tokio::test]
async fn access_reviews_report_denied_calls() {
    let cluster = Cluster::new().await;
    let reviews: Api<SelfSubjectAccessReview> = Api::all(cluster.client());
    let may = async |verb: &str| {
        let review: SelfSubjectAccessReview = serde_json::from_value(json!({"spec": {"resourceAttributes": {
            "namespace": "default", "verb": verb, "group": "batch", "resource": "jobs"}}}))
        .unwrap();
        reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap().allowed
    };
    assert!(may("create").await);
    cluster.faults.deny(Calls::of("create", "jobs"));
    assert!(!may("create").await && may("list").await);
    let (code, reason, message) = status(cluster.jobs().create(&PostParams::default(), &job("a")).await);
    assert_eq!((code, reason.as_str()), (403, "Forbidden"));
    assert!(message.contains("cannot create resource \"jobs\" in API group \"batch\""), "{message}");
    cluster.faults.allow(&Calls::of("create", "jobs"));
    assert!(may("create").await);
}

#[tokio::test]
async fn leases_events_service_accounts_and_namespaces_are_supported() {
    let cluster = Cluster::new().await;
    let leases: Api<Lease> = Api::default_namespaced(cluster.client());
    let lease: Lease =
        serde_json::from_value(json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "me",
        "renewTime": "2026-01-01T00:00:00.123456Z"}}))
        .unwrap();
    let mut lease = leases.create(&PostParams::default(), &lease).await.unwrap();
    assert_eq!(leases.replace("l", &PostParams::default(), &lease).await.unwrap(), lease);
    lease.metadata.resource_version = None;
    assert_eq!(status(leases.replace("l", &PostParams::default(), &lease).await).0, 422);
    let events: Api<Event> = Api::default_namespaced(cluster.client());
    let event: Event =
        serde_json::from_value(json!({"metadata": {"name": "e"}, "reason": "R", "type": "Normal",
        "involvedObject": {"kind": "Job", "name": "a", "uid": "u"}}))
        .unwrap();
    events.create(&PostParams::default(), &event).await.unwrap();
    let about = |name: &str| {
        ListParams::default().fields(&format!("involvedObject.name={name},involvedObject.kind=Job"))
    };
    assert_eq!(events.list(&about("a")).await.unwrap().items.len(), 1);
    assert_eq!(events.list(&about("b")).await.unwrap().items.len(), 0);
    let accounts: Api<ServiceAccount> = Api::default_namespaced(cluster.client());
    accounts.get("default").await.unwrap();
    let namespaces: Api<Namespace> = Api::all(cluster.client());
    assert!(namespaces.get("default").await.unwrap().metadata.uid.is_some());
    assert_eq!(cluster.remote().apiserver_version().await.unwrap().minor, "33");
}
