//! What an operator applies, as it stands in `deploy/`: the dispatcher as pods, with its ServiceAccount, its own image and the
//! configuration that a cluster gives to a pod; NATS as a pod beside it, or elsewhere.

mod gate;
mod installed;
mod secured;
mod user;

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

/// One after the other, as each takes the config of the one before.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_shipped_runs_in_a_cluster_and_does_its_job() {
    only_on_kubernetes!("the local cluster runs no pods with networks of their own");
    let kubernetes = or_skip!(Kubernetes::shared().await);
    or_skip!(kubernetes.folder().ok_or("its images are brought to a cluster of the rig only"));
    // Given: `kubectl apply -k deploy/with-nats` on a cluster that enforces Pod Security `restricted`.
    let installed = or_skip!(Installed::with_nats(kubernetes).await);
    let pods = installed.until_rolled_out().await;
    assert_eq!(pods.len(), 2);
    as_narrow_as_it_says(&pods);
    let user = installed.user().await;
    both_kinds(&user).await;
    // `deploy` is that without the NATS. Applied again nothing differs, so that a `kubectl diff` shows only what somebody changed.
    let applied = installed.change_to(".").await;
    assert!(applied.lines().all(|line| line.ends_with(" unchanged")), "{applied}");
    observed(kubernetes, &pods).await;
    highly_available(kubernetes, &installed, &user).await;
    secured::by_tls_with_credentials_from_a_secret(kubernetes, &installed).await;
    a_kind_of_an_operators_own(&installed).await;
}

/// What the README says to type.
async fn both_kinds(user: &User) {
    user.request("simple", &json!({"foo": "x"})).await;
    let memory = json!({"foo": "big", "reqBytes": "16Mi", "limBytes": "32Mi", "allocBytes": "128Mi"});
    user.request("memory", &memory).await;
    user.request("simple", &json!({"fail": true})).await;
    // Then
    assert_eq!(user.outcome("simple", "simple-job-x").await["result"], "Complete");
    let outcome = user.outcome("memory", "memory-job-big").await;
    assert_eq!(
        (&outcome["result"], &outcome["attempts"][0]["reason"]),
        (&json!("Failed"), &json!("OOMKilled"))
    );
    assert!(
        outcome["attempts"][0]["logTail"].as_str().unwrap().contains("takes 134217728 bytes"),
        "{outcome}"
    );
    let rejected = user.jetstream.get_stream("JOB_REJECTED").await.unwrap();
    let rejected = rejected.get_last_raw_message_by_subject("jobs.simple.rejected").await.unwrap();
    assert_eq!(rejected.headers.get("Job-Error").unwrap().as_str(), "InvalidRequest");
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

/// The components of `deploy/observability`: what a Prometheus and a Grafana know by name, and whom the monitor means.
async fn observed(kubernetes: &Kubernetes, pods: &[Pod]) {
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

/// `deploy/ha`: of three replicas one is evicted and a second may not be; then all are replaced; requests come meanwhile.
async fn highly_available(kubernetes: &Kubernetes, installed: &Installed<'_>, user: &User) {
    installed.change_to("ha").await;
    let pods = installed.until_rolled_out().await;
    assert_eq!(pods.len(), 3);
    let names: Vec<String> = (0..12).map(|number| format!("simple-job-load-{number}")).collect();
    let requests = async {
        // At a pace, so that they come before, while and after replicas go.
        let mut pace = tokio::time::interval(Duration::from_millis(300));
        for number in 0..names.len() {
            pace.tick().await;
            user.request("simple", &json!({"foo": format!("load-{number}")})).await;
        }
    };
    let rollout = async {
        evicted_one_at_a_time(kubernetes, &pods).await;
        let args = ["--namespace", "dispatcher", "rollout", "restart", "deployment/dispatcher"];
        kubernetes.kubectl(&args).await.unwrap();
        installed.until_rolled_out().await;
    };
    tokio::join!(requests, rollout);
    for name in &names {
        assert_eq!(user.outcome("simple", name).await["result"], "Complete", "{name}");
    }
    // The queue is empty: each request was acknowledged by whoever took it.
    until("an empty queue", TIMEOUT, || async {
        let mut stream = user.jetstream.get_stream("JOBS").await.map_err(|error| error.to_string())?;
        let left = stream.info().await.map_err(|error| error.to_string())?.state.messages;
        if left == 0 { Ok(()) } else { Err(format!("{left} requests")) }
    })
    .await;
}

/// As `kubectl drain` does it: the PodDisruptionBudget lets one go, and no second before another stands in its config.
async fn evicted_one_at_a_time(kubernetes: &Kubernetes, pods: &[Pod]) {
    let name = |at: usize| pods[at].metadata.name.as_deref().unwrap();
    // Of a fourth replica, which the rollout before had, its controller has to know that it is gone.
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(kubernetes.client(), "dispatcher");
    until("the budget to let one go", TIMEOUT, || async {
        let found = budgets.get("dispatcher").await.map_err(|error| error.to_string())?.status;
        let status = found.unwrap_or_default();
        let counts = [status.expected_pods, status.current_healthy, status.disruptions_allowed];
        if counts == [3, 3, 1] { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    // kube's client would ask again and again, as 429 is what an API server without a config answers too.
    let mut config = ready::config(kubernetes.kubeconfig_path()).unwrap();
    config.default_retry = false;
    let pods: Api<Pod> = Api::namespaced(Client::try_from(config).unwrap(), "dispatcher");
    pods.evict(name(0), &EvictParams::default()).await.unwrap();
    match pods.evict(name(1), &EvictParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 429 => {}
        other => panic!("expected the budget to refuse a second, found {other:?}"),
    }
}

/// `deploy/examples/my-kind`: its NATS is elsewhere, and its kind is served. Its image is in no registry, of which the Job tells.
async fn a_kind_of_an_operators_own(installed: &Installed<'_>) {
    let nats = Nats::process().await;
    let gate = installed.elsewhere(&nats).await;
    installed.change_to("examples/my-kind").await;
    installed.until_rolled_out().await;
    let user = User::new(nats.client().await);
    user.request("report", &json!({"month": "2026-10"})).await;
    let stalled = user.event("report", "report-2026-10", "STALLED").await;
    assert!(stalled.to_string().contains("registry.example.com/report:1.4.2"), "{stalled}");
    user.request("simple", &json!({"foo": "beside"})).await;
    assert_eq!(user.outcome("simple", "simple-job-beside").await["result"], "Complete");
    gate.close().await;
}
