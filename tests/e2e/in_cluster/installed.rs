//! Applies overlays of `deploy/` to the cluster of the testbed.
//!
//! The cluster has no DNS and no kube-proxy, so the pods get `hostAliases`. The name of the NATS in
//! the cluster resolves to its pod. The names of the API server and of an external NATS resolve to
//! a [`Forwarder`].

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{Kubernetes, Nats, paths, until};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::{Value, json};

use super::forwarder::Forwarder;
use super::user::User;

/// Applies an overlay with the components of `deploy/observability`, with a patch of the Deployment
/// and with local images, and returns the output of kubectl.
async fn apply(kubernetes: &Kubernetes, overlay: &str, patch: &Value) -> String {
    // Inside the workspace, since kustomize refuses absolute paths.
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

/// Creates a volume for NATS. The cluster has no provisioner.
async fn create_volume(kubernetes: &Kubernetes) {
    let folder = kubernetes.folder().expect("the cluster is not of the testbed").join("nats-volume");
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

async fn ready_pod_ip(pods: &Api<Pod>, name: &str) -> IpAddr {
    let pod = until(&format!("pod {name} to be ready"), TIMEOUT, || async {
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

/// A patch of the Deployment with the host names that the pods use.
fn host_names_patch(nats: IpAddr, api: SocketAddr) -> Value {
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

/// An installed overlay.
pub(super) struct Installed<'a> {
    kubernetes: &'a Kubernetes,
    pods: Api<Pod>,
    /// The pod IP of NATS.
    nats: IpAddr,
    patch: Value,
    api: Forwarder,
}

impl<'a> Installed<'a> {
    /// Applies `deploy/with-nats` and the CRDs of the Prometheus operator.
    ///
    /// # Errors
    /// If the CRDs are not on this machine.
    pub(super) async fn with_nats(kubernetes: &'a Kubernetes) -> Result<Self, String> {
        kubernetes.create_crds(&paths::prometheus_operator_crds()?).await?;
        kubernetes.import_image("dispatcher").await;
        kubernetes.import_image("nats").await;
        create_volume(kubernetes).await;
        // NATS first, since the patch of the dispatcher contains its address.
        let no_replicas = json!([{"op": "replace", "path": "/spec/replicas", "value": 0}]);
        apply(kubernetes, "with-nats", &no_replicas).await;
        let nats = ready_pod_ip(&Api::namespaced(kubernetes.client(), "nats"), "nats-0").await;
        let api = Forwarder::open(nats, 0, api_server(kubernetes.kubeconfig_path())).await;
        let pods = Api::namespaced(kubernetes.client(), "dispatcher");
        let installed = Self { kubernetes, pods, nats, patch: host_names_patch(nats, api.address), api };
        installed.change_to("with-nats").await;
        Ok(installed)
    }

    /// Applies another overlay to the same cluster and returns the output of kubectl.
    pub(super) async fn change_to(&self, overlay: &str) -> String {
        apply(self.kubernetes, overlay, &self.patch).await
    }

    /// A user of the NATS in the cluster.
    pub(super) async fn user(&self) -> User {
        User::new(async_nats::connect(format!("nats://{}:4222", self.nats)).await.unwrap())
    }

    /// Makes an external NATS available to the pods as `nats.example.com:4222`.
    pub(super) async fn expose(&self, nats: &Nats) -> Forwarder {
        let target = nats.url.trim_start_matches("nats://").to_owned();
        Forwarder::open(self.api.address.ip(), 4222, target).await
    }

    /// Waits for the rollout and returns the pods of the dispatcher.
    pub(super) async fn until_rolled_out(&self) -> Vec<Pod> {
        let deployments: Api<Deployment> = Api::namespaced(self.kubernetes.client(), "dispatcher");
        until("the dispatcher to be rolled out", TIMEOUT, || async {
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

/// `host:port` of the API server of a kubeconfig.
fn api_server(kubeconfig: &Path) -> String {
    let read: Value = serde_json::from_str(&std::fs::read_to_string(kubeconfig).unwrap()).unwrap();
    read["clusters"][0]["cluster"]["server"].as_str().unwrap().trim_start_matches("https://").to_owned()
}
