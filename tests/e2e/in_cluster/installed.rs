//! The system as an operator has it: an overlay of `deploy/` on the rig's cluster.
//!
//! That cluster has no DNS and no kube-proxy, so that the names which the pods look up stand in their `hostAliases`: the one
//! of NATS in the cluster is the address of its pod, those of the API server and of a NATS elsewhere lead to a [`Gate`].

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use dispatcher_tests::{Kubernetes, Nats, paths, until};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::{Value, json};

use super::gate::Gate;
use super::user::User;
use dispatcher_tests::wait::TIMEOUT as PATIENCE;

/// Applies an overlay of `deploy/` with the components of `deploy/observability`, a patch of the dispatcher's Deployment and
/// images that this cluster has, as an operator's own overlay does it.
async fn apply(kubernetes: &Kubernetes, overlay: &str, patch: &Value) -> String {
    // In the project's folder: kustomize takes no absolute paths.
    let parent = paths::workspace().join("target/overlays");
    std::fs::create_dir_all(&parent).unwrap();
    let folder = tempfile::tempdir_in(parent).unwrap();
    let kustomization = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
        "resources": [format!("../../../deploy/{overlay}")],
        "components": ["../../../deploy/observability", "../../../deploy/observability/operator"],
        "images": [{"name": "registry.example.com/dispatcher", "newName": "dispatcher"}],
        "patches": [{"target": {"kind": "Deployment", "name": "dispatcher"}, "patch": patch.to_string()}],
    });
    std::fs::write(folder.path().join("kustomization.yaml"), kustomization.to_string()).unwrap();
    let folder = folder.path().display().to_string();
    let applied = kubernetes.kubectl(&["apply", "--validate=strict", "-k", &folder]).await;
    let applied = applied.unwrap_or_else(|error| panic!("kubectl apply -k deploy/{overlay}: {error}"));
    println!("{applied}");
    applied
}

/// A volume for NATS: nobody makes volumes here.
async fn volume(kubernetes: &Kubernetes) {
    let folder = kubernetes.folder().expect("checked").join("nats-volume");
    std::fs::create_dir_all(&folder).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(&folder, mode).unwrap();
    let volume = json!({
        "metadata": {"name": "nats"},
        "spec": {"capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": folder}}
    });
    let volumes: Api<PersistentVolume> = Api::all(kubernetes.client());
    volumes.create(&PostParams::default(), &serde_json::from_value(volume).unwrap()).await.unwrap();
}

async fn address(pods: &Api<Pod>, name: &str) -> IpAddr {
    let pod = until(&format!("pod {name} to be ready"), PATIENCE, || async {
        let pod = pods.get(name).await.map_err(|error| error.to_string())?;
        if is_ready(&pod) { Ok(pod) } else { Err(format!("{:?}", pod.status)) }
    })
    .await;
    pod.status.unwrap().pod_ip.unwrap().parse().unwrap()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.into_iter().any(|it| it.type_ == "Ready" && it.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}

/// What the pods look up, which a cluster's DNS would tell.
fn names(nats: IpAddr, api: SocketAddr) -> Value {
    let env = |name: &str, value: String| json!({"op": "add", "path": "/spec/template/spec/containers/0/env/-", "value": {"name": name, "value": value}});
    json!([
        {"op": "add", "path": "/spec/template/spec/hostAliases", "value": [
            {"ip": nats, "hostnames": ["nats.nats.svc"]},
            {"ip": api.ip(), "hostnames": ["kubernetes.default.svc", "nats.example.com"]},
        ]},
        env("KUBERNETES_SERVICE_HOST", "kubernetes.default.svc".to_owned()),
        env("KUBERNETES_SERVICE_PORT", api.port().to_string()),
    ])
}

/// The system as an operator has it.
pub(super) struct Installed<'a> {
    kubernetes: &'a Kubernetes,
    pods: Api<Pod>,
    /// Where NATS is within the cluster.
    nats: IpAddr,
    names: Value,
    api: Gate,
}

impl<'a> Installed<'a> {
    /// Applies `deploy/with-nats`, on a cluster that knows the resources of the Prometheus operator.
    ///
    /// # Errors
    /// Where their definitions are not on this machine.
    pub(super) async fn with_nats(kubernetes: &'a Kubernetes) -> Result<Self, String> {
        kubernetes.create_crds(&paths::prometheus_operator_crds()?).await?;
        kubernetes.import_image("dispatcher").await;
        kubernetes.import_image("nats").await;
        volume(kubernetes).await;
        // NATS first: its address is part of what the dispatcher is patched with.
        let none = json!([{"op": "replace", "path": "/spec/replicas", "value": 0}]);
        apply(kubernetes, "with-nats", &none).await;
        let nats = address(&Api::namespaced(kubernetes.client(), "nats"), "nats-0").await;
        let api = Gate::open(nats, 0, api_server(kubernetes.kubeconfig_path())).await;
        let pods = Api::namespaced(kubernetes.client(), "dispatcher");
        let installed = Self { kubernetes, pods, nats, names: names(nats, api.address), api };
        installed.change_to("with-nats").await;
        Ok(installed)
    }

    /// Applies another overlay over what is there, and gives back what kubectl says of each object.
    pub(super) async fn change_to(&self, overlay: &str) -> String {
        apply(self.kubernetes, overlay, &self.names).await
    }

    /// A user of the NATS within the cluster.
    pub(super) async fn user(&self) -> User {
        User::new(async_nats::connect(format!("nats://{}:4222", self.nats)).await.unwrap())
    }

    /// Where the pods find this server: `nats.example.com:4222`.
    pub(super) async fn elsewhere(&self, nats: &Nats) -> Gate {
        let behind = nats.url.trim_start_matches("nats://").to_owned();
        Gate::open(self.api.address.ip(), 4222, behind).await
    }

    /// The pods of the dispatcher, once all are ready and of the newest template.
    pub(super) async fn until_rolled_out(&self) -> Vec<Pod> {
        let deployments: Api<Deployment> = Api::namespaced(self.kubernetes.client(), "dispatcher");
        until("the dispatcher to be rolled out", PATIENCE, || async {
            let found = deployments.get("dispatcher").await.map_err(|error| error.to_string())?;
            let (meta, status) = (found.metadata, found.status.unwrap_or_default());
            let wanted = found.spec.unwrap().replicas;
            let done = status.observed_generation == meta.generation
                && [status.replicas, status.updated_replicas, status.ready_replicas] == [wanted; 3];
            if done { Ok(()) } else { Err(format!("{status:?}")) }
        })
        .await;
        let pods = self.pods.list(&ListParams::default()).await.unwrap();
        pods.items.into_iter().filter(is_ready).collect()
    }
}

/// `host:port` of a kubeconfig.
fn api_server(kubeconfig: &Path) -> String {
    let read: Value = serde_json::from_str(&std::fs::read_to_string(kubeconfig).unwrap()).unwrap();
    read["clusters"][0]["cluster"]["server"].as_str().unwrap().trim_start_matches("https://").to_owned()
}
