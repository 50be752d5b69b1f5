//! The overlays of `deploy/` on a real cluster: the dispatcher runs in pods, with its image, its
//! `ServiceAccount` and in-cluster configuration. NATS runs in a pod or outside the cluster.

pub(crate) mod forwarder;
mod installed;
mod secured;
pub(crate) mod user;

use std::time::Duration;

use dispatcher_tests::dispatcher::get;
use dispatcher_tests::kubernetes::ready;
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{Kubernetes, Nats, only_on_kubernetes, or_skip, paths, until};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{EvictParams, ListParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use self::installed::Installed;
use self::user::User;

/// Applies the overlays one after the other to the same cluster.
/// Held by a test that applies `deploy/` to the shared cluster: its namespaces have fixed names.
pub(crate) static SHIPPED_NAMESPACES: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test(flavor = "multi_thread")]
async fn shipped_overlays_run_in_a_cluster() {
    only_on_kubernetes!("the local cluster has no pod network");
    let kubernetes = or_skip!(Kubernetes::shared().await);
    let _exclusive = SHIPPED_NAMESPACES.lock().await;
    or_skip!(kubernetes.folder().ok_or("images can be imported only into the cluster of the testbed"));
    // The cluster enforces Pod Security `restricted`.
    let installed = or_skip!(Installed::with_nats(kubernetes).await);
    let pods = installed.until_rolled_out().await;
    assert_eq!(pods.len(), 2);
    assert_pod_security(&pods);
    let user = installed.user().await;
    request_both_templates(&user).await;
    // `deploy` is `deploy/with-nats` without NATS. The second apply must change nothing, so that
    // `kubectl diff` shows only manual changes.
    let applied = installed.change_to(".").await;
    // kubectl always sends the selector of a PodDisruptionBudget.
    let is_unchanged = |line: &str| line.ends_with(" unchanged") || line.starts_with("poddisruptionbudget.");
    assert!(applied.lines().all(is_unchanged), "{applied}");
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(kubernetes.client(), "dispatcher");
    assert_eq!(budgets.get("dispatcher").await.unwrap().metadata.generation, Some(1));
    assert_observability(kubernetes, &pods).await;
    survive_eviction_and_rollout(kubernetes, &installed, &user).await;
    secured::assert_tls_and_credential_rotation(kubernetes, &installed).await;
    deploy_an_own_template(&installed).await;
}

/// The requests of README.md.
async fn request_both_templates(user: &User) {
    user.request("simple", &json!({"foo": "x"})).await;
    let memory = json!({"foo": "big", "reqBytes": "16Mi", "limBytes": "32Mi", "allocBytes": "128Mi"});
    user.request("memory", &memory).await;
    user.request("simple", &json!({"fail": true})).await;
    assert_eq!(user.outcome("simple", "simple-job-x").await["result"], "Complete");
    let outcome = user.outcome("memory", "memory-job-big").await;
    assert_eq!(
        (&outcome["result"], &outcome["attempts"][0]["reason"]),
        (&json!("Failed"), &json!("OOMKilled"))
    );
    assert!(outcome["attempts"][0]["logTail"].as_str().unwrap().contains("134217728"), "{outcome}");
    let rejected = user.jetstream.get_stream("JOB_REJECTED").await.unwrap();
    let rejected = rejected.get_last_raw_message_by_subject("jobs.simple.rejected.*").await.unwrap();
    assert_eq!(rejected.headers.get("Job-Error").unwrap().as_str(), "InvalidRequest");
}

/// The pods run with the security context of the manifests, and without restarts.
fn assert_pod_security(pods: &[Pod]) {
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
        assert_eq!(restarts, 0, "the dispatcher restarted");
    }
}

/// The components of `deploy/observability`: `ConfigMaps` of the rules and the dashboard, and a
/// `PodMonitor` that selects the pods.
async fn assert_observability(kubernetes: &Kubernetes, pods: &[Pod]) {
    let maps: Api<ConfigMap> = Api::namespaced(kubernetes.client(), "dispatcher");
    let shipped_file =
        |file| std::fs::read_to_string(paths::workspace().join("deploy/observability").join(file));
    for (map, key, file) in [
        ("dispatcher-rules", "rules.yaml", "rules.yaml"),
        ("dispatcher-dashboard", "dispatcher.json", "dashboard.json"),
    ] {
        let found = maps.get(map).await.unwrap();
        assert_eq!(found.data.unwrap()[key], shipped_file(file).unwrap(), "{map}");
    }
    let dashboards = maps.list(&ListParams::default().labels("grafana_dashboard=1")).await.unwrap();
    assert_eq!(dashboards.items.len(), 1);
    let args = ["--namespace", "dispatcher", "get", "podmonitor/dispatcher", "--output=json"];
    let monitor: Value = serde_json::from_str(&kubernetes.kubectl(&args).await.unwrap()).unwrap();
    let (labels, endpoint) =
        (&monitor["spec"]["selector"]["matchLabels"], &monitor["spec"]["podMetricsEndpoints"][0]);
    for pod in pods {
        for (label, value) in labels.as_object().unwrap() {
            assert_eq!(pod.metadata.labels.as_ref().unwrap()[label], *value);
        }
        let ports = pod.spec.as_ref().unwrap().containers[0].ports.as_ref().unwrap();
        let port = ports.iter().find(|port| port.name.as_deref() == endpoint["port"].as_str()).unwrap();
        let (ip, path) =
            (pod.status.as_ref().unwrap().pod_ip.as_ref().unwrap(), endpoint["path"].as_str().unwrap());
        let (status, metrics) = get(&format!("{ip}:{}", port.container_port), path).await.unwrap();
        assert!(status == 200 && metrics.contains("dispatcher_build_info"), "{status} {metrics}");
    }
}

/// `deploy/ha`: with three replicas, one pod is evicted and then all are replaced, under load.
async fn survive_eviction_and_rollout(kubernetes: &Kubernetes, installed: &Installed<'_>, user: &User) {
    installed.change_to("ha").await;
    let pods = installed.until_rolled_out().await;
    assert_eq!(pods.len(), 3);
    let names: Vec<String> = (0..12).map(|number| format!("simple-job-load-{number}")).collect();
    let requests = async {
        // Paced, so that requests arrive before, during and after the disruptions.
        let mut pace = tokio::time::interval(Duration::from_millis(300));
        for number in 0..names.len() {
            pace.tick().await;
            user.request("simple", &json!({"foo": format!("load-{number}")})).await;
        }
    };
    let rollout = async {
        evict_one_at_a_time(kubernetes, &pods).await;
        let args = ["--namespace", "dispatcher", "rollout", "restart", "deployment/dispatcher"];
        kubernetes.kubectl(&args).await.unwrap();
        installed.until_rolled_out().await;
    };
    tokio::join!(requests, rollout);
    for name in &names {
        assert_eq!(user.outcome("simple", name).await["result"], "Complete", "{name}");
    }
    // Every request is acknowledged.
    until("the queue to be empty", TIMEOUT, || async {
        let mut stream = user.jetstream.get_stream("JOBS").await.map_err(|error| error.to_string())?;
        let left = stream.info().await.map_err(|error| error.to_string())?.state.messages;
        if left == 0 { Ok(()) } else { Err(format!("{left} requests left")) }
    })
    .await;
}

/// Evicts pods as `kubectl drain` does. The `PodDisruptionBudget` allows one eviction and denies the
/// second.
async fn evict_one_at_a_time(kubernetes: &Kubernetes, pods: &[Pod]) {
    let name = |at: usize| pods[at].metadata.name.as_deref().unwrap();
    // The controller must have observed the end of the surge pod of the last rollout.
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(kubernetes.client(), "dispatcher");
    until("the budget to allow one eviction", TIMEOUT, || async {
        let found = budgets.get("dispatcher").await.map_err(|error| error.to_string())?.status;
        let status = found.unwrap_or_default();
        let counts = [status.expected_pods, status.current_healthy, status.disruptions_allowed];
        if counts == [3, 3, 1] { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    // Without retries: the client takes 429 for an overloaded API server.
    let mut config = ready::config(kubernetes.kubeconfig_path()).unwrap();
    config.default_retry = false;
    let pods: Api<Pod> = Api::namespaced(Client::try_from(config).unwrap(), "dispatcher");
    pods.evict(name(0), &EvictParams::default()).await.unwrap();
    match pods.evict(name(1), &EvictParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 429 => {}
        other => panic!("expected 429 for the second eviction, found {other:?}"),
    }
}

/// `deploy/examples/my-template` with a NATS outside the cluster. The image of its template does
/// not exist.
async fn deploy_an_own_template(installed: &Installed<'_>) {
    let nats = Nats::process().await;
    let forwarder = installed.expose(&nats).await;
    installed.change_to("examples/my-template").await;
    installed.until_rolled_out().await;
    let user = User::new(nats.client().await);
    user.request("report", &json!({"month": "2026-10"})).await;
    let stalled = user.event("report", "report-2026-10", "STALLED").await;
    assert!(stalled.to_string().contains("registry.example.com/report:1.4.2"), "{stalled}");
    user.request("simple", &json!({"foo": "other"})).await;
    assert_eq!(user.outcome("simple", "simple-job-other").await["result"], "Complete");
    forwarder.close().await;
}
