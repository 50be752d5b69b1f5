//! What an operator applies, as it stands in `deploy/`: the dispatcher as pods, with its ServiceAccount, its own image and the
//! configuration that a cluster gives to a pod; NATS as a pod beside it.
//!
//! The rig's cluster has no DNS and no kube-proxy, so that the two names which the pods look up stand in their `hostAliases`: the
//! one of NATS is the address of its pod, the one of the API server leads to [`Gate`].

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use async_nats::jetstream;
use dispatcher_tests::{Kubernetes, only_on_kubernetes, or_skip, paths, until};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
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

    fn write(&self, of: &str, patches: &[(&str, Value)]) {
        let patches: Vec<Value> = patches
            .iter()
            .map(|(target, patch)| {
                let (kind, name) = target.split_once('/').unwrap();
                json!({"target": {"kind": kind, "name": name}, "patch": patch.to_string()})
            })
            .collect();
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
struct Installed {
    client: kube::Client,
    jetstream: jetstream::Context,
    nats: async_nats::Client,
    pods: Api<Pod>,
    overlay: Overlay,
    names: Value,
    _gate: Gate,
}

impl Installed {
    async fn apply(kubernetes: &Kubernetes) -> Self {
        kubernetes.import("dispatcher").await;
        kubernetes.import("nats").await;
        volume(kubernetes).await;
        // NATS first: its address is part of what the dispatcher is patched with.
        let overlay = Overlay::new("with-nats");
        let none = json!([{"op": "replace", "path": "/spec/replicas", "value": 0}]);
        overlay.write("with-nats", &[("Deployment/dispatcher", none)]);
        overlay.apply(kubernetes).await;
        let client = kubernetes.client();
        let nats_address = address(&Api::namespaced(client.clone(), "nats"), "nats-0").await;
        let gate = Gate::open(nats_address, api_server(kubernetes.kubeconfig_path())).await;
        let names = names(nats_address, gate.address);
        overlay.write("with-nats", &[("Deployment/dispatcher", names.clone())]);
        overlay.apply(kubernetes).await;
        let nats = async_nats::connect(format!("nats://{nats_address}:4222")).await.unwrap();
        let jetstream = jetstream::new(nats.clone());
        let pods = Api::namespaced(client.clone(), "dispatcher");
        Self { client, jetstream, nats, pods, overlay, names, _gate: gate }
    }

    /// The pods of the dispatcher, once all are ready and of the newest template.
    async fn until_rolled_out(&self) -> Vec<Pod> {
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

    async fn request(&self, kind: &str, payload: &Value) {
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
    async fn outcome(&self, kind: &str, name: &str) -> Value {
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

/// `deploy/ha`: three replicas, one of which is taken away, and all of which are replaced, while requests come.
async fn a_rollout_under_load(kubernetes: &Kubernetes, installed: &Installed) {
    let three = json!([
        {"op": "replace", "path": "/spec/replicas", "value": 3},
        {"op": "add", "path": "/spec/strategy", "value": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}},
    ]);
    let patches = [("Deployment/dispatcher", installed.names.clone()), ("Deployment/dispatcher", three)];
    installed.overlay.write("with-nats", &patches);
    installed.overlay.apply(kubernetes).await;
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
    installed.nats.flush().await.unwrap();
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
