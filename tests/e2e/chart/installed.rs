//! The chart in a real cluster: install, test, upgrade, rollback, uninstall, and install again.

use std::time::Instant;

use dispatcher_tests::kubernetes::Kubernetes;
use dispatcher_tests::manifests::{Helm, chart};
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{Nats, only_on_kubernetes, or_skip, paths, until};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

use crate::in_cluster::SHIPPED_NAMESPACES;
use crate::in_cluster::forwarder::Forwarder;
use crate::in_cluster::user::User;

/// The names differ from those of `deploy/`, which other tests apply to the same cluster.
const RELEASE: &str = "team-a";
const NAMESPACE: &str = "team-a-dispatcher";
const JOBS: &str = "team-a-jobs";
const NAME: &str = "team-a-dispatcher";

/// A release of the chart.
struct Release<'a> {
    kubernetes: &'a Kubernetes,
    helm: Helm,
    /// The values that the cluster of the tests needs, which has no DNS.
    values: Value,
    folder: tempfile::TempDir,
}

impl Release<'_> {
    /// Runs a command of Helm on the release.
    async fn helm(&self, command: &[&str]) -> String {
        let (name, options) = command.split_first().unwrap();
        let args = [&[*name, RELEASE], options, &["--namespace", NAMESPACE]].concat();
        let done = self.helm.run(&args).await.unwrap_or_else(|error| panic!("helm {args:?}: {error}"));
        println!("helm {args:?}:\n{done}");
        done
    }

    /// Installs or upgrades with values, and waits until the pods are ready.
    async fn apply(&self, command: &str, values: &Value) {
        let files = [("cluster.json", &self.values), ("values.json", values)].map(|(name, values)| {
            let file = self.folder.path().join(name);
            std::fs::write(&file, values.to_string()).unwrap();
            file.display().to_string()
        });
        let chart = chart().display().to_string();
        let mut args =
            vec![command, &chart, "--values", &files[0], "--values", &files[1], "--wait", "--timeout", "4m"];
        if command == "install" {
            args.push("--create-namespace");
        }
        self.helm(&args).await;
    }

    /// Whether an object exists.
    async fn exists(&self, namespace: &str, object: &str) -> bool {
        let args = ["--namespace", namespace, "get", object, "--output=name", "--ignore-not-found"];
        !self.kubernetes.kubectl(&args).await.unwrap().trim().is_empty()
    }

    async fn replicas(&self) -> String {
        let args = [
            "--namespace",
            NAMESPACE,
            "get",
            "deployment",
            NAME,
            "--output=jsonpath={.status.readyReplicas}",
        ];
        self.kubernetes.kubectl(&args).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn release_is_installed_tested_upgraded_rolled_back_and_uninstalled() {
    only_on_kubernetes!("the local cluster has no Deployments");
    let kubernetes = or_skip!(Kubernetes::shared().await);
    or_skip!(kubernetes.folder().ok_or("images can be imported only into the cluster of the testbed"));
    let helm = or_skip!(Helm::of(kubernetes.kubeconfig_path()));
    kubernetes.import_image("dispatcher").await;
    // Other tests of the cluster use the CRD, so it belongs to no release.
    kubernetes.create_crds(&paths::workspace().join("deploy/base/crd.yaml")).await.unwrap();
    let nats = Nats::process().await;
    let user = User::new(nats.client().await);
    let network = Network::open(kubernetes, &nats).await;
    let release =
        Release { kubernetes, helm, values: network.values(), folder: paths::temp_dir("release").unwrap() };

    release.apply("install", &json!({"replicas": 2})).await;
    enforce_pod_security(kubernetes).await;
    assert_eq!(release.replicas().await, "2");
    complete(&user, "simple", "installed").await;
    let tested = release.helm(&["test", "--timeout", "4m"]).await;
    assert!(tested.contains("Succeeded"), "{tested}");

    // The changed values add a template and a replica.
    let upgraded = json!({"replicas": 3, "templates": {"other.yaml": other_template()}});
    release.apply("upgrade", &upgraded).await;
    assert_eq!(release.replicas().await, "3");
    complete(&user, "other", "upgraded").await;
    complete(&user, "simple", "upgraded").await;

    release.helm(&["rollback", "1", "--wait", "--timeout", "4m"]).await;
    assert_eq!(release.replicas().await, "2");
    complete(&user, "simple", "back").await;

    uninstall_keeps_jobs(&release, &user).await;
    // The next release adopts what the uninstallation kept, and publishes the outcome.
    release.apply("install", &json!({})).await;
    assert_eq!(user.outcome("simple", "simple-job-running").await["result"], "Complete");
    complete(&user, "simple", "again").await;
    release.helm(&["uninstall", "--wait", "--timeout", "4m"]).await;
    let namespaces = ["delete", "namespace", NAMESPACE, JOBS, "--timeout=120s"];
    kubernetes.kubectl(&namespaces).await.unwrap();
    network.close().await;
}

/// The release is removed while a Job runs: the Job ends, in its namespace with its policy.
async fn uninstall_keeps_jobs(release: &Release<'_>, user: &User) {
    user.request("simple", &json!({"foo": "running"})).await;
    user.event("simple", "simple-job-running", "ADDED").await;
    release.helm(&["uninstall", "--wait", "--timeout", "4m"]).await;
    for (namespace, object) in [
        (NAMESPACE, "deployment/team-a-dispatcher"),
        (NAMESPACE, "configmap/team-a-dispatcher-limits"),
        (JOBS, "role/team-a-dispatcher"),
        (JOBS, "rolebinding/team-a-dispatcher"),
        (JOBS, "validatingadmissionpolicy/team-a-dispatcher-jobs"),
        (JOBS, "validatingadmissionpolicybinding/team-a-dispatcher-jobs"),
    ] {
        assert!(!release.exists(namespace, object).await, "{object} is left");
    }
    for object in
        ["namespace/team-a-jobs", "serviceaccount/job", "networkpolicy/jobs", "job/simple-job-running"]
    {
        assert!(release.exists(JOBS, object).await, "{object} is gone");
    }
    let jobs: Api<Job> = Api::namespaced(release.kubernetes.client(), JOBS);
    until("the Job to succeed without the dispatcher", TIMEOUT, || async {
        let status = jobs.get("simple-job-running").await.map_err(|error| error.to_string())?.status;
        if status.as_ref().is_some_and(|status| status.succeeded == Some(1)) {
            Ok(())
        } else {
            Err(format!("{status:?}"))
        }
    })
    .await;
}

/// Requests a Job and waits for its outcome.
async fn complete(user: &User, template: &str, value: &str) {
    user.request(template, &json!({"foo": value})).await;
    assert_eq!(user.outcome(template, &format!("{template}-job-{value}")).await["result"], "Complete");
}

/// As step 1 of NOTES.txt says.
async fn enforce_pod_security(kubernetes: &Kubernetes) {
    let label = "pod-security.kubernetes.io/enforce=restricted";
    let warned = kubernetes.kubectl(&["label", "namespace", NAMESPACE, label]).await.unwrap();
    assert!(!warned.contains("Warning"), "{warned}");
}

/// The shipped template `simple` under another name.
fn other_template() -> Value {
    let simple = std::fs::read_to_string(paths::workspace().join("deploy/templates/simple.yaml")).unwrap();
    let mut template: Value = serde_saphyr::from_str(&simple).unwrap();
    template["metadata"]["name"] = "other".into();
    template["spec"]["jobName"] = "other-job-${foo}".into();
    template
}

/// The API server and NATS, which listen on loopback, at an address that pods reach.
struct Network {
    api: Forwarder,
    nats: Forwarder,
    pods: Api<Pod>,
}

/// A pod that keeps the address of the pod network on this machine.
const ANCHOR: &str = "chart-anchor";

impl Network {
    async fn open(kubernetes: &Kubernetes, nats: &Nats) -> Self {
        let pods: Api<Pod> = Api::namespaced(kubernetes.client(), "default");
        let anchor = json!({
            "metadata": {"name": ANCHOR},
            "spec": {"terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false, "containers": [{
                "name": "wait", "image": "simple-job:0.1.0", "imagePullPolicy": "Never",
                "env": [{"name": "FOO", "value": "x"}, {"name": "SLEEP_SECONDS", "value": "36000"}],
            }]},
        });
        pods.create(&PostParams::default(), &serde_json::from_value(anchor).unwrap()).await.unwrap();
        let ip = until("an address of the pod network", TIMEOUT, || async {
            pods.get(ANCHOR)
                .await
                .map_err(|error| error.to_string())?
                .status
                .and_then(|status| status.pod_ip)
                .ok_or(String::new())
        })
        .await;
        let ip = ip.parse().unwrap();
        let kubeconfig = std::fs::read_to_string(kubernetes.kubeconfig_path()).unwrap();
        let kubeconfig: Value = serde_json::from_str(&kubeconfig).unwrap();
        let api = kubeconfig["clusters"][0]["cluster"]["server"].as_str().unwrap();
        let api = Forwarder::open(ip, 0, api.trim_start_matches("https://").to_owned()).await;
        let nats = Forwarder::open(ip, 0, nats.url.trim_start_matches("nats://").to_owned()).await;
        Self { api, nats, pods }
    }

    /// The values of a release that uses both.
    fn values(&self) -> Value {
        let hosts = ["kubernetes.default.svc", "nats.team-a.example.com"];
        json!({
            "nats": {"url": format!("nats://{}:{}", hosts[1], self.nats.address.port())},
            "jobs": {"namespace": {"name": JOBS}},
            "crds": {"enabled": false},
            "hostAliases": [{"ip": self.api.address.ip(), "hostnames": hosts}],
            "extraEnv": [
                {"name": "KUBERNETES_SERVICE_HOST", "value": hosts[0]},
                {"name": "KUBERNETES_SERVICE_PORT", "value": self.api.address.port().to_string()},
            ],
        })
    }

    async fn close(self) {
        self.pods.delete(ANCHOR, &DeleteParams::default()).await.unwrap();
        self.api.close().await;
        self.nats.close().await;
    }
}

/// The pods do not start: neither NATS nor the API server has the name that they use.
#[tokio::test(flavor = "multi_thread")]
async fn release_takes_over_what_kustomize_installed() {
    only_on_kubernetes!("the local cluster has no Deployments");
    let kubernetes = or_skip!(Kubernetes::shared().await);
    or_skip!(kubernetes.folder().ok_or("images can be imported only into the cluster of the testbed"));
    let helm = or_skip!(Helm::of(kubernetes.kubeconfig_path()));
    let _exclusive = SHIPPED_NAMESPACES.lock().await;
    kubernetes.import_image("dispatcher").await;
    let deploy = paths::workspace().join("deploy");
    kubernetes.kubectl(&["apply", "-k", &deploy.display().to_string()]).await.unwrap();
    let release = ["--namespace", "dispatcher"];
    let chart = chart().display().to_string();
    // Helm never takes over objects that it did not create, unless it is told to.
    let install = [&["install", "dispatcher", &chart][..], &release].concat();
    let refused = helm.run(&install).await.unwrap_err();
    assert!(refused.contains("cannot be imported into the current release"), "{refused}");
    helm.run(&[&install[..], &["--take-ownership", "--force-conflicts"]].concat()).await.unwrap();
    let tested = helm.run(&[&["test", "dispatcher", "--timeout", "4m"][..], &release].concat()).await;
    assert!(tested.is_err(), "the test succeeds without NATS: {tested:?}");
    let args = ["--namespace", "jobs", "get", "role", "dispatcher", "--output=json"];
    let role: Value = serde_json::from_str(&kubernetes.kubectl(&args).await.unwrap()).unwrap();
    assert_eq!(role["metadata"]["annotations"]["meta.helm.sh/release-name"], "dispatcher");
    helm.run(&[&["uninstall", "dispatcher", "--wait", "--timeout", "4m"][..], &release].concat())
        .await
        .unwrap();
    // Waits: the next holder of the lock applies the same namespaces.
    kubernetes.delete_overlay(&deploy).await.unwrap();
}

/// The steps of a new user on an empty cluster that has the images. Prints how long each takes.
#[tokio::test(flavor = "multi_thread")]
async fn new_user_gets_an_outcome_by_helm_kubectl_and_nats() {
    only_on_kubernetes!("the local cluster has no Deployments");
    let nats_cli = or_skip!(paths::nats_cli());
    let kubernetes = or_skip!(Kubernetes::with_node().await);
    let helm = or_skip!(Helm::of(kubernetes.kubeconfig_path()));
    for image in ["dispatcher", "simple-job"] {
        kubernetes.import_image(image).await;
    }
    let nats = Nats::process().await;
    let network = Network::open(&kubernetes, &nats).await;
    let values = network.values();
    let release =
        Release { kubernetes: &kubernetes, helm, values, folder: paths::temp_dir("release").unwrap() };
    let template = release.folder.path().join("template.yaml");
    std::fs::write(&template, other_template().to_string()).unwrap();

    let begin = Instant::now();
    let done = |step: &str| println!("{:5.1} s: {step}", begin.elapsed().as_secs_f64());
    release.apply("install", &json!({"crds": {"enabled": true}})).await;
    done("helm install");
    let template = template.display().to_string();
    kubernetes.kubectl(&["--namespace", JOBS, "apply", "--filename", &template]).await.unwrap();
    done("kubectl apply");
    let ready = ["wait", "--for=condition=Ready", "jobtemplate/other", "--timeout=60s"];
    kubernetes.kubectl(&[&["--namespace", JOBS][..], &ready].concat()).await.unwrap();
    done("kubectl wait");
    let mut request = tokio::process::Command::new(nats_cli);
    request.args(["--server", &nats.url, "--timeout", "60s", "req", "jobs.other.submit", r#"{"foo":"x"}"#]);
    let answer = request.args(["--header", "Job-Wait:outcome", "--raw"]).output().await.unwrap();
    done("nats req");
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    let outcome: Value = serde_json::from_str(text.trim()).unwrap_or_else(|_| {
        panic!("{text}{}", String::from_utf8_lossy(&answer.stderr));
    });
    assert_eq!(outcome["outcome"]["result"], "Complete", "{outcome}");
    network.close().await;
}
