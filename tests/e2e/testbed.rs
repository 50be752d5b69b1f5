//! The testbed itself: pods run, NATS persists messages, and no process outlives a test.

use std::path::PathBuf;
use std::pin::pin;
use std::process::{Command, Stdio};

use async_nats::jetstream;
use dispatcher_tests::docker::Docker;
use dispatcher_tests::kubernetes::ready;
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{Kubernetes, Nats, Options, only_on_kubernetes, or_skip, paths, until};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, LogParams, ObjectMeta, PostParams, WatchEvent, WatchParams};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn pod_of_simple_job_completes() {
    let kubernetes = or_skip!(Kubernetes::shared().await);
    let namespace = kubernetes.namespace().await;
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "simple"},
        "spec": {
            "restartPolicy": "Never", "serviceAccountName": "job", "automountServiceAccountToken": false,
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "simple", "image": concat!("simple-job:", env!("CARGO_PKG_VERSION")), "imagePullPolicy": "Never",
                "env": [{"name": "FOO", "value": "testbed"}, {"name": "SLEEP_SECONDS", "value": "0.1"}],
                "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                                    "capabilities": {"drop": ["ALL"]}}
            }]
        }
    }))
    .unwrap();
    namespace.pods.create(&PostParams::default(), &pod).await.unwrap();
    until("the pod to succeed", TIMEOUT, || async {
        let status = namespace.pods.get_status("simple").await.map_err(|error| error.to_string())?.status;
        let phase = status.as_ref().and_then(|status| status.phase.as_deref());
        if phase == Some("Succeeded") { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    let log = namespace.pods.logs("simple", &LogParams::default()).await.unwrap();
    assert_eq!(log, "Simple Job with foo=\"testbed\" is done.\n");
    let args = ["get", "pod", "simple", "--namespace", &namespace.name, "--output=name"];
    assert_eq!(kubernetes.kubectl(&args).await.unwrap(), "pod/simple\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn dispatcher_token_has_only_the_permissions_of_deploy() {
    only_on_kubernetes!("the local cluster does not enforce permissions");
    let kubernetes = or_skip!(Kubernetes::shared().await);
    let namespace = kubernetes.namespace().await;
    let client = ready::client(&namespace.dispatcher_kubeconfig).unwrap();
    let jobs: Api<k8s_openapi::api::batch::v1::Job> = Api::namespaced(client.clone(), &namespace.name);
    jobs.list(&ListParams::default()).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace.name);
    pods.list(&ListParams::default()).await.unwrap();
    let error = pods.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap_err();
    assert!(matches!(&error, kube::Error::Api(status) if status.code == 403), "{error}");
    let other_namespace: Api<k8s_openapi::api::batch::v1::Job> = Api::namespaced(client, "default");
    let error = other_namespace.list(&ListParams::default()).await.unwrap_err();
    assert!(matches!(&error, kube::Error::Api(status) if status.code == 403), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn message_in_containerized_nats_survives_a_kill() {
    only_on_kubernetes!("with the local cluster NATS runs as a process");
    let docker = Docker::shared().await;
    let nats = Nats::start().await;
    assert_eq!(nats.in_container(), docker.is_ok(), "NATS does not use the container engine");
    assert_message_survives_a_kill(nats).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn message_in_a_nats_process_survives_a_kill() {
    assert_message_survives_a_kill(Nats::process().await).await;
}

async fn assert_message_survives_a_kill(nats: Nats) {
    let context = jetstream::new(nats.client().await);
    let config = jetstream::stream::Config {
        name: "S".to_owned(),
        subjects: vec!["s".to_owned()],
        ..Default::default()
    };
    context.create_stream(config).await.unwrap();
    context.publish("s", "stored".into()).await.unwrap().await.unwrap();
    nats.kill().await;
    assert!(async_nats::connect(&nats.url).await.is_err(), "a killed server answers");
    nats.restart().await;
    nats.pause().await;
    nats.unpause().await;
    let context = jetstream::new(nats.client().await);
    let stream = until("the stream after a restart", TIMEOUT, || context.get_stream("S")).await;
    assert_eq!(stream.get_raw_message(1).await.unwrap().payload, "stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn message_survives_the_loss_of_the_stream_leader() {
    let nats = Nats::cluster().await;
    let context = jetstream::new(nats.client().await);
    let config = jetstream::stream::Config {
        name: "S".to_owned(),
        subjects: vec!["s".to_owned()],
        num_replicas: 3,
        ..Default::default()
    };
    let created = context.create_stream(config).await.unwrap();
    context.publish("s", "stored".into()).await.unwrap().await.unwrap();
    let first = nats.stream_leader("S").await;
    first.kill().await;
    let second = until("another leader", TIMEOUT, || async {
        let leader = nats.stream_leader("S").await;
        (leader.name != first.name).then_some(leader)
    })
    .await;
    let context = jetstream::new(nats.client().await);
    let stream = until("the stream under its new leader", TIMEOUT, || context.get_stream("S")).await;
    assert_eq!(stream.get_raw_message(1).await.unwrap().payload, "stored");
    // The dispatcher identifies the incarnation of a stream by its creation time.
    assert_eq!(stream.cached_info().created, created.cached_info().created);
    first.start().await;
    nats.until_in_sync().await;
    nats.step_down("S").await;
    second.lame_duck().await;
    second.ended().await;
    nats.stream_leader("S").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn control_plane_recovers_from_killed_components() {
    only_on_kubernetes!("the local cluster has no such components");
    let kubernetes = or_skip!(Kubernetes::control_plane(Options::default()).await);
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(kubernetes.client());
    let uid = namespaces.get("default").await.unwrap().metadata.uid;
    kubernetes.kill_apiserver().await;
    assert!(namespaces.get("default").await.is_err(), "a killed API server answers");
    kubernetes.start_apiserver().await;
    kubernetes.kill_etcd().await;
    kubernetes.start_etcd().await;
    kubernetes.compact_etcd().await;
    kubernetes.freeze("scheduler").await;
    kubernetes.resume("scheduler").await;
    assert_eq!(namespaces.get("default").await.unwrap().metadata.uid, uid);
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_from_a_compacted_version_fails_with_410() {
    only_on_kubernetes!("the local cluster has no etcd");
    let kubernetes = or_skip!(Kubernetes::control_plane(Options::default()).await);
    let maps: Api<ConfigMap> = Api::namespaced(kubernetes.client(), "default");
    let map = |name: &str| ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        ..ConfigMap::default()
    };
    let old = maps.create(&PostParams::default(), &map("first")).await.unwrap();
    maps.create(&PostParams::default(), &map("second")).await.unwrap();
    kubernetes.compact_etcd().await;
    kubernetes.kill_apiserver().await;
    kubernetes.start_apiserver().await;
    let version = old.metadata.resource_version.unwrap();
    let mut events = pin!(maps.watch(&WatchParams::default(), &version).await.unwrap());
    let event = timeout(TIMEOUT, events.next()).await.expect("no event").expect("the watch ended");
    assert!(matches!(&event, Ok(WatchEvent::Error(error)) if error.code == 410), "{event:?}");
}

/// Environment variable with the file that [`hold_until_killed`] writes its addresses to.
const HOLD: &str = "TESTBED_HOLD";

#[tokio::test(flavor = "multi_thread")]
async fn killed_test_process_leaves_no_server() {
    let folder = paths::temp_dir("leak").unwrap();
    let file = folder.path().join("addresses");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "testbed::hold_until_killed", "--nocapture"]).env(HOLD, &file);
    let mut test = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let addresses = until("the other test process to start its servers", TIMEOUT, || {
        assert_eq!(test.try_wait().unwrap(), None, "the other test process ended");
        std::future::ready(std::fs::read_to_string(&file))
    })
    .await;
    test.kill().unwrap();
    test.wait().unwrap();
    for address in addresses.lines() {
        until(&format!("{address} to be closed"), TIMEOUT, || async {
            TcpStream::connect(address).await.err()
        })
        .await;
    }
}

/// Runs only in the process that [`killed_test_process_leaves_no_server`] starts and kills.
#[tokio::test(flavor = "multi_thread")]
async fn hold_until_killed() {
    let Some(file) = std::env::var_os(HOLD).map(PathBuf::from) else { return };
    let nats = Nats::start().await;
    let process = Nats::process().await;
    let mut addresses = vec![nats.url.clone(), process.url.clone()];
    let kubernetes = Kubernetes::control_plane(Options::default()).await;
    if let Ok(kubernetes) = &kubernetes {
        let kubeconfig = std::fs::read_to_string(kubernetes.kubeconfig_path()).unwrap();
        let kubeconfig: serde_json::Value = serde_json::from_str(&kubeconfig).unwrap();
        addresses.push(kubeconfig["clusters"][0]["cluster"]["server"].as_str().unwrap().to_owned());
    }
    let addresses: Vec<_> = addresses.iter().filter_map(|url| url.split("//").nth(1)).collect();
    // Atomic: the reader must not see a partial file.
    let temporary = file.with_extension("temporary");
    std::fs::write(&temporary, addresses.join("\n")).unwrap();
    std::fs::rename(temporary, file).unwrap();
    std::future::pending::<()>().await;
}
