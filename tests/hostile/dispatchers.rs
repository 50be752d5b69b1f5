//! Two replicas of the shipped image in pods, with the memory limit of `deploy/base`.
//!
//! The pods use the network of the host, because NATS and the API server listen on loopback.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use dispatcher_tests::dispatcher::get;
use dispatcher_tests::test_env::TestEnv;
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{Kubernetes, paths, ports, until};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret};
use kube::Api;
use kube::api::{DeleteParams, LogParams, PostParams};
use serde_json::{Value, json};

/// How long a replica may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(90);

/// The replicas.
pub(crate) struct Dispatchers {
    pods: Api<Pod>,
    replicas: Vec<Replica>,
}

/// A pod of the dispatcher.
struct Replica {
    name: String,
    admin: String,
    manifest: Value,
}

impl Dispatchers {
    pub(crate) async fn start(
        kubernetes: &Kubernetes,
        env: &TestEnv,
        templates: BTreeMap<String, String>,
    ) -> Self {
        kubernetes.import_image("dispatcher").await;
        let namespace = format!("hostile-{}", env.namespace.name);
        create_inputs(kubernetes, env, &namespace, &templates).await;
        let container = shipped_container();
        let replicas = (0..2)
            .map(|number| {
                let (name, admin) = (format!("dispatcher-{number}"), format!("127.0.0.1:{}", ports::free()));
                let manifest = manifest(&name, &admin, env, &container);
                Replica { name, admin, manifest }
            })
            .collect();
        let dispatchers = Self { pods: Api::namespaced(kubernetes.client(), &namespace), replicas };
        dispatchers.create().await;
        dispatchers.until_ready().await;
        dispatchers
    }

    /// Creates the pods.
    pub(crate) async fn create(&self) {
        for replica in &self.replicas {
            let pod = serde_json::from_value(replica.manifest.clone()).unwrap();
            self.pods.create(&PostParams::default(), &pod).await.unwrap();
        }
    }

    /// Deletes the pods, and waits until they are gone.
    pub(crate) async fn delete(&self) {
        for replica in &self.replicas {
            self.pods.delete(&replica.name, &DeleteParams::default()).await.unwrap();
        }
        for replica in &self.replicas {
            until(&format!("the end of {}", replica.name), TIMEOUT, || async {
                match self.pods.get_opt(&replica.name).await {
                    Ok(None) => Ok(()),
                    other => Err(format!("{:?}", other.map(|pod| pod.map(|pod| pod.status)))),
                }
            })
            .await;
        }
    }

    pub(crate) async fn until_ready(&self) {
        for replica in &self.replicas {
            until(&format!("{} to be ready", replica.name), START_TIMEOUT, || async {
                match get(&replica.admin, "/readyz").await {
                    Ok((200, _)) => Ok(()),
                    other => Err(format!("{other:?}; log: {}", self.log(replica).await)),
                }
            })
            .await;
        }
    }

    /// The last lines of a replica's log.
    async fn log(&self, replica: &Replica) -> String {
        let params = LogParams { tail_lines: Some(10), ..LogParams::default() };
        self.pods.logs(&replica.name, &params).await.unwrap_or_else(|error| error.to_string())
    }

    /// Hostile clients leave every replica ready.
    pub(crate) async fn assert_ready(&self) {
        for replica in &self.replicas {
            for path in ["/livez", "/readyz"] {
                let answer = get(&replica.admin, path).await.unwrap();
                assert_eq!(answer.0, 200, "{} {path}: {}", replica.name, answer.1);
            }
        }
    }

    /// No container ended: neither by a panic, nor over its memory limit.
    pub(crate) async fn assert_no_restart(&self) {
        for replica in &self.replicas {
            let status = self.pods.get(&replica.name).await.unwrap().status.unwrap();
            let container = &status.container_statuses.unwrap()[0];
            assert_eq!(container.restart_count, 0, "{}: {:?}", replica.name, container.last_state);
        }
    }

    /// The largest resident memory of a replica so far, in MiB.
    pub(crate) fn memory(&self) -> u64 {
        let replicas = self.replicas.iter().filter_map(|replica| peak_memory(&replica.name));
        replicas.max().unwrap_or_default() / 1024
    }
}

/// `VmHWM` of the process with this `POD_NAME`, in KiB.
fn peak_memory(pod: &str) -> Option<u64> {
    let variable = format!("POD_NAME={pod}");
    let processes = std::fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path());
    let is_replica = |folder: &std::path::PathBuf| {
        let environ = std::fs::read(folder.join("environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes())
    };
    let status = std::fs::read_to_string(processes.into_iter().find(is_replica)?.join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// The namespace of the pods, and the files that they mount.
async fn create_inputs(
    kubernetes: &Kubernetes,
    env: &TestEnv,
    namespace: &str,
    templates: &BTreeMap<String, String>,
) {
    let client = kubernetes.client();
    let params = PostParams::default();
    let object = json!({"metadata": {"name": namespace}});
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.create(&params, &serde_json::from_value(object).unwrap()).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let object = json!({"metadata": {"name": "templates"}, "data": templates});
    maps.create(&params, &serde_json::from_value(object).unwrap()).await.unwrap();
    let secrets: Api<Secret> = Api::namespaced(client, namespace);
    let kubeconfig = kubeconfig_with_certificate(&env.namespace.dispatcher_kubeconfig);
    let object = json!({"metadata": {"name": "kubeconfig"}, "stringData": {"config": kubeconfig}});
    secrets.create(&params, &serde_json::from_value(object).unwrap()).await.unwrap();
}

/// The kubeconfig with the certificate itself, since pods do not see the files of this machine.
fn kubeconfig_with_certificate(path: &Path) -> String {
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let cluster = &mut config["clusters"][0]["cluster"];
    if let Some(file) = cluster.as_object_mut().unwrap().remove("certificate-authority") {
        let certificate = std::fs::read(file.as_str().unwrap()).unwrap();
        cluster["certificate-authority-data"] = STANDARD.encode(certificate).into();
    }
    config.to_string()
}

/// The container of `deploy/base/dispatcher.yaml`: its image, memory limit and security context. It
/// asks for more processor time, because everything else shares the processors with it.
fn shipped_container() -> Value {
    let path = paths::workspace().join("deploy/base/dispatcher.yaml");
    let documents: Vec<Value> = serde_saphyr::from_multiple(&std::fs::read_to_string(path).unwrap()).unwrap();
    let deployment = documents.into_iter().find(|object| object["kind"] == "Deployment").unwrap();
    let mut container = deployment["spec"]["template"]["spec"]["containers"][0].clone();
    container["resources"]["requests"]["cpu"] = "300m".into();
    container
}

fn manifest(name: &str, admin: &str, env: &TestEnv, shipped: &Value) -> Value {
    let variable = |name: &str, value: &str| json!({"name": name, "value": value});
    json!({
        "metadata": {"name": name},
        "spec": {
            "hostNetwork": true, "enableServiceLinks": false, "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 45,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532},
            "containers": [{
                "name": "dispatcher", "image": shipped["image"], "imagePullPolicy": "Never", "args": ["run"],
                "resources": shipped["resources"], "securityContext": shipped["securityContext"],
                "env": [
                    variable("NATS_URL", &env.nats.url), variable("KUBECONFIG", "/etc/kubeconfig/config"),
                    variable("DISPATCHER_NAMESPACE", &env.namespace.name),
                    variable("DISPATCHER_TEMPLATES", "/etc/dispatcher/templates"),
                    variable("DISPATCHER_ADMIN_ADDR", admin), variable("POD_NAME", name),
                    variable("DISPATCHER_LOG_FORMAT", "json"),
                ],
                "volumeMounts": [
                    {"name": "templates", "mountPath": "/etc/dispatcher/templates"},
                    {"name": "kubeconfig", "mountPath": "/etc/kubeconfig"},
                ],
            }],
            "volumes": [
                {"name": "templates", "configMap": {"name": "templates"}},
                {"name": "kubeconfig", "secret": {"secretName": "kubeconfig"}},
            ],
        },
    })
}
