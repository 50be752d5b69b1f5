//! KEDA: its operator, and a `ScaledJob` on the length of a `JetStream` queue.
//!
//! A Job of a `ScaledJob` takes its request from the queue itself. Here, no pods run and the queue
//! stays full: KEDA creates as many Jobs as there are requests, and each one counts as served.

use std::path::Path;

use dispatcher_tests::helper::Program;
use dispatcher_tests::{Kubernetes, Namespace, paths, ports};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};

use crate::manifest::job;
use crate::process::Process;

/// The stream, and its consumer.
pub(crate) const STREAM: &str = "REQUESTS";
/// The subject of the requests.
pub(crate) const SUBJECT: &str = "requests";
/// Above what the API server can do.
const LIFTED: [&str; 2] = ["--kube-api-qps=10000", "--kube-api-burst=10000"];

/// Starts the operator for one namespace.
pub(crate) async fn start(
    lifted: bool,
    kubernetes: &Kubernetes,
    namespace: &Namespace,
    (folder, certificates): (&Path, &Path),
) -> Result<Vec<Process>, String> {
    let address = |name: &str| format!("--{name}-bind-address=127.0.0.1:{}", ports::free());
    let mut args = vec![
        format!("--kubeconfig={}", kubernetes.kubeconfig_path().display()),
        format!("--cert-dir={}", certificates.display()),
        address("metrics"),
        address("health-probe"),
        address("metrics-service"),
    ];
    if lifted {
        args.extend(LIFTED.map(str::to_owned));
    }
    let env = [("WATCH_NAMESPACE", &namespace.name), ("POD_NAMESPACE", &namespace.name)];
    let mut env = env.map(|(name, value)| (name.to_owned(), value.clone())).to_vec();
    env.push(("KEDA_CLUSTER_OBJECT_NAMESPACE".to_owned(), namespace.name.clone()));
    let program = Program {
        name: "operator".to_owned(),
        path: paths::keda("operator")?,
        args,
        env,
        log: folder.join("operator.log"),
        folder: None,
    };
    Ok(vec![Process::start(&program).await?])
}

/// Creates the `ScaledJob`.
pub(crate) async fn scale(lifted: bool, monitor: &str, namespace: &Namespace) -> Result<(), String> {
    let kind = GroupVersionKind::gvk("keda.sh", "v1alpha1", "ScaledJob");
    let api: Api<DynamicObject> =
        Api::namespaced_with(namespace.client.clone(), &namespace.name, &ApiResource::from_gvk(&kind));
    let object = serde_json::from_value(scaled_job(lifted, monitor)?).map_err(|error| error.to_string())?;
    api.create(&PostParams::default(), &object).await.map(drop).map_err(|error| format!("ScaledJob: {error}"))
}

fn scaled_job(lifted: bool, monitor: &str) -> Result<Value, String> {
    let spec = job()?.get_mut("spec").map(Value::take).unwrap_or_default();
    let mut scaled = json!({
        "jobTargetRef": spec,
        // The default is 100 Jobs at a time.
        "maxReplicaCount": 100_000,
        "triggers": [{"type": "nats-jetstream", "metadata": {
            "natsServerMonitoringEndpoint": monitor, "account": "$G",
            // One Job per request; the default is one for ten.
            "stream": STREAM, "consumer": STREAM, "lagThreshold": "1"}}],
    });
    if let (true, Some(map)) = (lifted, scaled.as_object_mut()) {
        map.insert("pollingInterval".to_owned(), 1.into());
    }
    let metadata = json!({"name": "simple-job"});
    Ok(json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledJob", "metadata": metadata, "spec": scaled}))
}
