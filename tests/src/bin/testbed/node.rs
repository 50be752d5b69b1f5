//! A node (containerd and a kubelet), so that pods run.

use std::path::Path;
use std::time::Duration;

use dispatcher_tests::helper::Program;
use dispatcher_tests::kubernetes::ready;
use dispatcher_tests::{paths, ports, wait};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::process::Command;

use crate::control_groups;
use crate::control_plane::{run, write};
use crate::service::Service;

const READY: Duration = Duration::from_secs(180);
const NAME: &str = "node-1";

/// Starts containerd and imports the images of the pods, since there is no registry.
pub(crate) async fn containerd(folder: &Path) -> Result<Service, String> {
    let at = |path: &str| folder.join(path).display().to_string();
    // Without restrict_oom_score_adj, runc fails on a host that forbids it to lower oom_score_adj.
    let config = format!(
        r#"version = 2
root = "{root}"
state = "{state}"
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{cni}"
"#,
        root = at("containerd/root"),
        state = at("containerd/state"),
        socket = at("containerd.sock"),
        cni = at("cni")
    );
    // The `ptp` plugin gives each pod a veth pair and a route. It needs no bridge, which could
    // outlive this testbed or conflict with another one.
    let subnet = format!("10.{}.{}.0/22", 128 + ports::free() % 120, 4 * (ports::free() % 64));
    let ipam = json!({"type": "host-local", "dataDir": at("cni-addresses"), "ranges": [[{"subnet": subnet}]],
                      "routes": [{"dst": "0.0.0.0/0"}]});
    let network = json!({"cniVersion": "0.4.0", "name": "testbed", "plugins": [{"type": "ptp", "ipMasq": false, "ipam": ipam}]});
    std::fs::create_dir_all(folder.join("cni")).map_err(|error| format!("cni: {error}"))?;
    in_memory(folder, "containerd").await?;
    in_memory(folder, "kubelet").await?;
    write(folder, "containerd.toml", &config)?;
    write(folder, "cni/10.conflist", &network.to_string())?;
    let mut containerd = Service::new(Program {
        name: "containerd".to_owned(),
        path: paths::program("containerd")?,
        args: vec!["--config".to_owned(), at("containerd.toml")],
        log: folder.join("containerd.log"),
        ..Program::default()
    });
    containerd.start()?;
    import(folder, &mut containerd, "pause").await?;
    import(folder, &mut containerd, "simple-job").await?;
    Ok(containerd)
}

/// Mounts a tmpfs on a folder, because each pod causes dozens of fsyncs, which are slow on a disk.
/// Only this mount namespace sees the mount.
async fn in_memory(folder: &Path, name: &str) -> Result<(), String> {
    let path = folder.join(name);
    std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    run(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(path)).await.map(drop)
}

/// Imports an image that `tests/images/build` built.
pub(crate) async fn import(folder: &Path, containerd: &mut Service, image: &str) -> Result<(), String> {
    let ctr = paths::program("ctr")?;
    let image = paths::image(image)?;
    let imported = wait::try_until("containerd to import an image", READY, || {
        let runs = containerd.check();
        let mut command = Command::new(&ctr);
        command.arg("--address").arg(folder.join("containerd.sock")).args(["--namespace", "k8s.io"]);
        command.args(["images", "import"]).arg(&image).kill_on_drop(true);
        async move {
            match runs {
                Ok(()) => run(&mut command).await.map(Ok),
                Err(error) => Ok(Err(error)),
            }
        }
    })
    .await;
    imported?.map(drop)
}

/// Starts the kubelet and waits until its node is ready.
pub(crate) async fn start(folder: &Path, admin: &Path, containerd: Service) -> Result<Vec<Service>, String> {
    let at = |path: &str| folder.join(path).display().to_string();
    let kubelet_port = ports::free();
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        // The kubelet accepts every caller, but listens on loopback only.
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "address": "127.0.0.1", "port": kubelet_port, "healthzPort": 0,
        "cgroupDriver": "cgroupfs", "cgroupRoot": format!("/{}", control_groups::name(folder)), "failCgroupV1": false,
        "containerRuntimeEndpoint": format!("unix://{}", at("containerd.sock")),
        "podLogsDir": at("pod-logs"),
        "failSwapOn": false, "localStorageCapacityIsolation": false,
        "evictionHard": {"memory.available": "1%", "nodefs.available": "1%", "imagefs.available": "1%"},
        // There is no DNS server, but without an address each pod gets a warning event.
        "clusterDNS": ["127.0.0.1"],
        // Tests run hundreds of small pods at the same time.
        "maxPods": 500, "kubeAPIQPS": 500, "kubeAPIBurst": 1000, "eventRecordQPS": 0,
        "enforceNodeAllocatable": [],
    });
    write(folder, "kubelet.yaml", &config.to_string())?;
    let mut kubelet = Service::new(Program {
        name: "kubelet".to_owned(),
        path: paths::kubernetes()?,
        args: vec![
            "kubelet".to_owned(),
            format!("--config={}", at("kubelet.yaml")),
            format!("--kubeconfig={}", at("node.kubeconfig")),
            format!("--hostname-override={NAME}"),
            "--cloud-provider=external".to_owned(),
            format!("--root-dir={}", at("kubelet")),
            format!("--cert-dir={}", at("kubelet-pki")),
        ],
        log: folder.join("kubelet.log"),
        ..Program::default()
    });
    kubelet.start()?;
    let client = ready::client(admin)?;
    let nodes: Api<Node> = Api::all(client);
    let ready = wait::try_until("the node to be ready", READY, || {
        let ended = kubelet.check().err();
        let nodes = nodes.clone();
        async move { if let Some(error) = ended { Ok(Err(error)) } else { initialize(&nodes).await.map(Ok) } }
    })
    .await;
    match ready {
        Ok(done) => done?,
        Err(error) => return Err(format!("{error}\n{}", kubelet.tail())),
    }
    Ok(vec![containerd, kubelet])
}

/// Initializes the node like a cloud provider and checks that it is ready.
///
/// The kubelet refuses a loopback address as its node's address. This function sets 127.0.0.1 in
/// the node's status, so that the API server reaches the kubelet there (for `kubectl logs`).
async fn initialize(nodes: &Api<Node>) -> Result<(), String> {
    let failed = |error: kube::Error| error.to_string();
    let node = nodes.get(NAME).await.map_err(failed)?;
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_ref());
    if !addresses.is_some_and(|all| all.iter().any(|address| address.address == "127.0.0.1")) {
        let addresses =
            json!([{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": NAME}]);
        let patch = Patch::Merge(json!({"status": {"addresses": addresses}}));
        nodes.patch_status(NAME, &PatchParams::default(), &patch).await.map_err(failed)?;
    }
    let taints = node.spec.clone().and_then(|spec| spec.taints).unwrap_or_default();
    let uninitialized = "node.cloudprovider.kubernetes.io/uninitialized";
    if taints.iter().any(|taint| taint.key == uninitialized) {
        let left: Vec<_> = taints.iter().filter(|taint| taint.key != uninitialized).collect();
        let patch = Patch::Merge(json!({"spec": {"taints": left}}));
        nodes.patch(NAME, &PatchParams::default(), &patch).await.map_err(failed)?;
    }
    let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
    match conditions.iter().find(|condition| condition.type_ == "Ready") {
        // Kubernetes removes the not-ready taint shortly after the node becomes ready. Until then,
        // pods get warning events.
        Some(ready) if ready.status == "True" && taints.is_empty() => Ok(()),
        Some(ready) if ready.status == "True" => Err(format!("taints: {taints:?}")),
        Some(ready) => Err(ready.message.clone().unwrap_or_default()),
        None => Err("the node has no condition Ready".to_owned()),
    }
}
