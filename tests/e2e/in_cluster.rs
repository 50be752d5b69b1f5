//! What an operator applies, as it stands in `deploy/`: the dispatcher as pods, with its ServiceAccount, its own image and the
//! configuration that a cluster gives to a pod; NATS as a pod beside it.

mod installed;

use std::time::Duration;

use dispatcher_tests::{Kubernetes, only_on_kubernetes, or_skip, paths, until};
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use serde_json::json;

use self::installed::Installed;
use crate::world::PATIENCE;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_shipped_runs_in_a_cluster_and_does_its_job() {
    only_on_kubernetes!("the local cluster runs no pods with networks of their own");
    let kubernetes = or_skip!(Kubernetes::shared().await);
    or_skip!(kubernetes.folder().ok_or("its images are brought to a cluster of the rig only"));
    // Given: `kubectl apply -k deploy/with-nats` on a cluster that enforces Pod Security `restricted`.
    let installed = Installed::apply(kubernetes).await;
    let pods = installed.until_rolled_out().await;
    assert_eq!(pods.len(), 2);
    as_narrow_as_it_says(&pods);
    // When: what the README says to type.
    installed.request("simple", &json!({"foo": "x"})).await;
    let memory = json!({"foo": "big", "reqBytes": "16Mi", "limBytes": "32Mi", "allocBytes": "128Mi"});
    installed.request("memory", &memory).await;
    installed.request("simple", &json!({"fail": true})).await;
    // Then
    assert_eq!(installed.outcome("simple", "simple-job-x").await["result"], "Complete");
    let outcome = installed.outcome("memory", "memory-job-big").await;
    assert_eq!(
        (&outcome["result"], &outcome["attempts"][0]["reason"]),
        (&json!("Failed"), &json!("OOMKilled"))
    );
    assert!(
        outcome["attempts"][0]["logTail"].as_str().unwrap().contains("takes 134217728 bytes"),
        "{outcome}"
    );
    let rejected = installed.jetstream.get_stream("JOB_REJECTED").await.unwrap();
    let rejected = rejected.get_last_raw_message_by_subject("jobs.simple.rejected").await.unwrap();
    assert_eq!(rejected.headers.get("Job-Error").unwrap().as_str(), "InvalidRequest");

    a_rollout_under_load(kubernetes, &installed).await;
    each_overlay_is_taken(kubernetes).await;
}

/// The images are `FROM scratch`, and run with what the manifests say.
fn as_narrow_as_it_says(pods: &[Pod]) {
    for pod in pods {
        let spec = pod.spec.as_ref().unwrap();
        let container = &spec.containers[0];
        let security = serde_json::to_value(container.security_context.as_ref().unwrap()).unwrap();
        assert_eq!(
            security,
            json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}})
        );
        let security = spec.security_context.as_ref().unwrap();
        assert_eq!((security.run_as_non_root, security.run_as_user), (Some(true), Some(65532)));
        assert_eq!(spec.service_account_name.as_deref(), Some("dispatcher"));
        let restarts = pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0].restart_count;
        assert_eq!(restarts, 0, "it was ready at its first start");
    }
}

/// As `deploy/ha` has it: three replicas, one of which is taken away, and all of which are replaced, while requests come.
async fn a_rollout_under_load(kubernetes: &Kubernetes, installed: &Installed) {
    let three = std::fs::read_to_string(paths::workspace().join("deploy/ha/dispatcher.yaml")).unwrap();
    installed.patch(kubernetes, three).await;
    let pods = installed.until_rolled_out().await;
    assert_eq!(pods.len(), 3);
    let names: Vec<String> = (0..12).map(|number| format!("simple-job-load-{number}")).collect();
    let requests = async {
        // At a pace, so that they come before, while and after replicas go.
        let mut pace = tokio::time::interval(Duration::from_millis(300));
        for number in 0..names.len() {
            pace.tick().await;
            installed.request("simple", &json!({"foo": format!("load-{number}")})).await;
        }
    };
    let rollout = async {
        let gone = pods[0].metadata.name.as_deref().unwrap();
        installed.pods.delete(gone, &DeleteParams::default()).await.unwrap();
        let args = ["--namespace", "dispatcher", "rollout", "restart", "deployment/dispatcher"];
        kubernetes.kubectl(&args).await.unwrap();
        installed.until_rolled_out().await;
    };
    tokio::join!(requests, rollout);
    for name in &names {
        assert_eq!(installed.outcome("simple", name).await["result"], "Complete", "{name}");
    }
    // The queue is empty: each request was acknowledged by whoever took it.
    until("an empty queue", PATIENCE, || async {
        let mut stream = installed.jetstream.get_stream("JOBS").await.map_err(|error| error.to_string())?;
        let left = stream.info().await.map_err(|error| error.to_string())?.state.messages;
        if left == 0 { Ok(()) } else { Err(format!("{left} requests")) }
    })
    .await;
}

/// Strictly validated, by the API server and its admission.
async fn each_overlay_is_taken(kubernetes: &Kubernetes) {
    let deploy = paths::workspace().join("deploy");
    for overlay in [".", "ha", "nats-tls", "with-nats", "examples/my-kind"] {
        let folder = deploy.join(overlay).display().to_string();
        let args = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "--dry-run=server",
            "--validate=strict",
            "-k",
            &folder,
        ];
        let taken = kubernetes.kubectl(&args).await;
        let taken = taken.unwrap_or_else(|error| panic!("deploy/{overlay}: {error}"));
        assert!(taken.contains("deployment.apps/dispatcher"), "deploy/{overlay}: {taken}");
    }
}
