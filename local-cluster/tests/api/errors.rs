//! Errors: `Status` objects with Kubernetes' codes, reasons and messages.

use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
    core::Request,
};
use serde_json::{Value, json};

use crate::cluster::{Cluster, job, job_with, pod_of, status};

async fn refused(cluster: &Cluster, change: Value) -> (u16, String, String) {
    status(cluster.jobs().create(&PostParams::default(), &job_with("bad", change)).await)
}

#[tokio::test]
async fn invalid_fields_are_reported() {
    let cluster = Cluster::new().await;
    let policy = json!({"spec": {"template": {"spec": {"restartPolicy": "Always"}}}});
    let (code, reason, message) = refused(&cluster, policy).await;
    assert_eq!((code, reason.as_str()), (422, "Invalid"));
    assert_eq!(
        message,
        "Job.batch \"bad\" is invalid: spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""
    );
    for change in [
        json!({"metadata": {"name": "Bad"}}),
        json!({"metadata": {"name": "a".repeat(64)}}),
        json!({"metadata": {"labels": {"a": "b c"}}}),
        json!({"spec": {"template": {"spec": {"containers": []}}}}),
        json!({"spec": {"backoffLimit": -1}}),
    ] {
        assert_eq!(refused(&cluster, change.clone()).await.0, 422, "{change}");
    }
}

#[tokio::test]
async fn malformed_bodies_are_bad_requests() {
    let cluster = Cluster::new().await;
    for body in [
        "{",
        "[]",
        r#"{"spec":{"parallelism":"two"}}"#,
        r#"{"kind":"Pod"}"#,
        r#"{"metadata":{"namespace":"other"}}"#,
    ] {
        let request = Request::new("/apis/batch/v1/namespaces/default/jobs");
        let request = request.create(&PostParams::default(), body.as_bytes().to_vec()).unwrap();
        assert_eq!(status(cluster.client().request::<Value>(request).await).0, 400, "{body}");
    }
    let huge = Request::new("/apis/batch/v1/namespaces/default/jobs");
    let huge = huge.create(&PostParams::default(), vec![b' '; 4 << 20]).unwrap();
    assert_eq!(status(cluster.client().request::<Value>(huge).await).0, 413);
}

#[tokio::test]
async fn absent_objects_and_resources_are_not_found() {
    let cluster = Cluster::new().await;
    let elsewhere: Api<k8s_openapi::api::batch::v1::Job> = Api::namespaced(cluster.client(), "elsewhere");
    let (code, _, message) = status(elsewhere.create(&PostParams::default(), &job("a")).await);
    assert_eq!((code, message.as_str()), (404, "namespaces \"elsewhere\" not found"));
    let deployments: Api<k8s_openapi::api::apps::v1::Deployment> = Api::default_namespaced(cluster.client());
    assert_eq!(status(deployments.get("a").await).0, 404);
    assert!(cluster.jobs().get_opt("a").await.unwrap().is_none());
    let patch = json!({"metadata": {"labels": {"a": "b"}}});
    assert_eq!(
        status(cluster.jobs().patch("a", &PatchParams::default(), &Patch::Merge(&patch)).await).0,
        404
    );
}

#[tokio::test]
async fn duplicate_name_already_exists() {
    let cluster = Cluster::new().await;
    cluster.create("a").await;
    let (code, reason, message) = status(cluster.jobs().create(&PostParams::default(), &job("a")).await);
    assert_eq!(
        (code, reason.as_str(), message.as_str()),
        (409, "AlreadyExists", "jobs.batch \"a\" already exists")
    );
}

#[tokio::test]
async fn stale_writes_conflict() {
    let cluster = Cluster::new().await;
    let jobs = cluster.jobs();
    let old = cluster.create("a").await;
    let patch = |value: Value| Patch::Merge(value);
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    jobs.patch("a", &PatchParams::default(), &patch(label)).await.unwrap();
    let (code, reason, message) = status(jobs.replace("a", &PostParams::default(), &old).await);
    assert_eq!((code, reason.as_str()), (409, "Conflict"));
    assert!(message.contains("the object has been modified"), "{message}");
    let stale = json!({"metadata": {"resourceVersion": old.metadata.resource_version}});
    assert_eq!(status(jobs.patch("a", &PatchParams::default(), &patch(stale)).await).0, 409);
    let mut other = old.clone();
    other.metadata.uid = Some("other".to_owned());
    other.metadata.resource_version = None;
    assert_eq!(status(jobs.replace("a", &PostParams::default(), &other).await).0, 409);
    // As in Kubernetes, a patch with a different uid is invalid, not a conflict.
    let (code, _, message) =
        status(jobs.patch("a", &PatchParams::default(), &patch(json!({"metadata": {"uid": "other"}}))).await);
    assert_eq!(code, 422);
    assert_eq!(
        message,
        "Job.batch \"a\" is invalid: metadata.uid: Invalid value: \"other\": field is immutable"
    );
}

#[tokio::test]
async fn changes_of_immutable_fields_are_rejected() {
    let cluster = Cluster::new().await;
    cluster.create("a").await;
    let patch = json!({"spec": {"template": {"spec": {"restartPolicy": "OnFailure"}}}});
    let (code, _, message) =
        status(cluster.jobs().patch("a", &PatchParams::default(), &Patch::Merge(&patch)).await);
    assert_eq!(code, 422);
    assert!(message.contains("spec.template: ") && message.ends_with(": field is immutable"), "{message}");
    // A finished Job accepts a TTL, but its final condition is permanent.
    let finished = json!({"status": {"startTime": "2026-01-01T00:00:00Z", "conditions": [
        {"type": "FailureTarget", "status": "True"}, {"type": "Failed", "status": "True"}]}});
    let jobs = cluster.jobs();
    jobs.patch_status("a", &PatchParams::default(), &Patch::Merge(&finished)).await.unwrap();
    let ttl = json!({"spec": {"ttlSecondsAfterFinished": 5}});
    jobs.patch("a", &PatchParams::default(), &Patch::Merge(&ttl)).await.unwrap();
    let reverted = json!({"status": {"conditions": []}});
    assert_eq!(
        status(jobs.patch_status("a", &PatchParams::default(), &Patch::Merge(&reverted)).await).0,
        422
    );
}

#[tokio::test]
async fn unsupported_methods_and_media_types_are_rejected() {
    let cluster = Cluster::new().await;
    let owner = cluster.create("a").await;
    cluster.pods().create(&PostParams::default(), &pod_of(&owner, "p", json!({}))).await.unwrap();
    let send = async |method: &str, path: &str, type_: &str| {
        let request = http::Request::builder().method(method).uri(path).header("content-type", type_);
        status(cluster.client().request::<Value>(request.body(b"{}".to_vec()).unwrap()).await).0
    };
    let a_job = "/apis/batch/v1/namespaces/default/jobs/a";
    assert_eq!(send("POST", a_job, "application/json").await, 405);
    assert_eq!(send("PATCH", a_job, "text/plain").await, 415);
    assert_eq!(send("PUT", a_job, "application/vnd.kubernetes.protobuf").await, 415);
    assert_eq!(send("GET", "/api/v1/namespaces/default/pods/p/exec", "").await, 404);
    assert_eq!(send("GET", "/openapi/v2", "").await, 404);
}
