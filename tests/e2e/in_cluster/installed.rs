//! The system as an operator has it: an overlay of `deploy/` on the rig's cluster.
//!
//! That cluster has no DNS and no kube-proxy, so that the two names which the pods look up stand in their `hostAliases`: the
//! one of NATS is the address of its pod, the one of the API server leads to [`Gate`].

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use async_nats::jetstream;
use dispatcher_tests::{Kubernetes, paths, until};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

use crate::world::PATIENCE;

/// Where pods find the API server: what goes in is taken to the loopback address that it listens on.
struct Gate {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Gate {
    /// Opens on this machine's side of the network of a pod.
    async fn open(pod: IpAddr, api: String) -> Self {
        // Which address this machine has towards the pod; nothing is sent.
        let probe = UdpSocket::bind("0.0.0.0:0").await.unwrap();
        probe.connect((pod, 1)).await.unwrap();
        let listener = TcpListener::bind((probe.local_addr().unwrap().ip(), 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut from, _)) = listener.accept().await {
                let api = api.clone();
                connections.spawn(async move {
                    if let Ok(mut to) = TcpStream::connect(api).await {
                        let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                    }
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, _tasks: tasks }
    }
}

/// An overlay of the test's own on one of `deploy/`.
struct Overlay {
    folder: tempfile::TempDir,
}

impl Overlay {
    /// Where kustomize finds `deploy/`: it takes no absolute paths.
    fn new(of: &str) -> Self {
        let parent = paths::workspace().join("target/overlays");
        std::fs::create_dir_all(&parent).unwrap();
        let overlay = Self { folder: tempfile::tempdir_in(parent).unwrap() };
        overlay.write(of, &[]);
        overlay
    }

    /// With patches of the dispatcher's Deployment, as JSON or YAML.
    fn write(&self, of: &str, patches: &[String]) {
        let target = json!({"kind": "Deployment", "name": "dispatcher"});
        let patches: Vec<Value> =
            patches.iter().map(|patch| json!({"target": target, "patch": patch})).collect();
        let kustomization = json!({
            "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
            "resources": [format!("../../../deploy/{of}")], "patches": patches,
        });
        std::fs::write(self.folder.path().join("kustomization.yaml"), kustomization.to_string()).unwrap();
    }

    async fn apply(&self, kubernetes: &Kubernetes) {
        let folder = self.folder.path().display().to_string();
        let applied = kubernetes.kubectl(&["apply", "--validate=strict", "-k", &folder]).await;
        println!("{}", applied.unwrap_or_else(|error| panic!("kubectl apply: {error}")));
    }
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
            {"ip": api.ip(), "hostnames": ["kubernetes.default.svc"]},
        ]},
        env("KUBERNETES_SERVICE_HOST", "kubernetes.default.svc".to_owned()),
        env("KUBERNETES_SERVICE_PORT", api.port().to_string()),
    ])
}

/// The system as an operator has it.
pub(crate) struct Installed {
    client: kube::Client,
    pub(crate) jetstream: jetstream::Context,
    pub(crate) pods: Api<Pod>,
    overlay: Overlay,
    names: Value,
    _gate: Gate,
}

impl Installed {
    pub(crate) async fn apply(kubernetes: &Kubernetes) -> Self {
        kubernetes.import("dispatcher").await;
        kubernetes.import("nats").await;
        volume(kubernetes).await;
        // NATS first: its address is part of what the dispatcher is patched with.
        let overlay = Overlay::new("with-nats");
        let none = json!([{"op": "replace", "path": "/spec/replicas", "value": 0}]);
        overlay.write("with-nats", &[none.to_string()]);
        overlay.apply(kubernetes).await;
        let client = kubernetes.client();
        let nats_address = address(&Api::namespaced(client.clone(), "nats"), "nats-0").await;
        let gate = Gate::open(nats_address, api_server(kubernetes.kubeconfig_path())).await;
        let names = names(nats_address, gate.address);
        overlay.write("with-nats", &[names.to_string()]);
        overlay.apply(kubernetes).await;
        let nats = async_nats::connect(format!("nats://{nats_address}:4222")).await.unwrap();
        let jetstream = jetstream::new(nats);
        let pods = Api::namespaced(client.clone(), "dispatcher");
        Self { client, jetstream, pods, overlay, names, _gate: gate }
    }

    /// Applies it anew with a further patch of the dispatcher.
    pub(crate) async fn patch(&self, kubernetes: &Kubernetes, patch: String) {
        self.overlay.write("with-nats", &[self.names.to_string(), patch]);
        self.overlay.apply(kubernetes).await;
    }

    /// The pods of the dispatcher, once all are ready and of the newest template.
    pub(crate) async fn until_rolled_out(&self) -> Vec<Pod> {
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), "dispatcher");
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

    pub(crate) async fn request(&self, kind: &str, payload: &Value) {
        let sent = self.jetstream.publish(format!("jobs.{kind}.create"), payload.to_string().into()).await;
        sent.unwrap().await.expect("the request is stored");
    }

    /// All that is stored of a Job.
    async fn history(&self, kind: &str, name: &str) -> Vec<Value> {
        let Ok(stream) = self.jetstream.get_stream_no_info("JOB_STATUS").await else { return vec![] };
        let subject = format!("jobs.{kind}.status.{name}");
        let (mut events, mut from) = (vec![], 1);
        while let Ok(message) = stream.direct_get_next_for_subject(subject.as_str(), Some(from)).await {
            from = message.sequence + 1;
            events.push(serde_json::from_slice(&message.payload).unwrap());
        }
        events
    }

    /// The one outcome of a Job, its last event.
    pub(crate) async fn outcome(&self, kind: &str, name: &str) -> Value {
        let events = until(&format!("the outcome of {name}"), PATIENCE, || async {
            let events = self.history(kind, name).await;
            let ended = events.last().is_some_and(|last| last["type"] == "OUTCOME");
            if ended { Ok(events) } else { Err(events.last().cloned()) }
        })
        .await;
        assert_eq!(events.iter().filter(|event| event["type"] == "OUTCOME").count(), 1, "{events:?}");
        assert_eq!(events[0]["type"], "ADDED", "{events:?}");
        events.last().unwrap()["outcome"].clone()
    }
}

/// `host:port` of a kubeconfig.
fn api_server(kubeconfig: &Path) -> String {
    let read: Value = serde_json::from_str(&std::fs::read_to_string(kubeconfig).unwrap()).unwrap();
    read["clusters"][0]["cluster"]["server"].as_str().unwrap().trim_start_matches("https://").to_owned()
}
