//! The truth about pods: which container stands for an attempt, and what keeps a pod from running.
//!
//! Some tests take the place of the controllers: they create the pods of a Job, and set statuses and
//! Kubernetes Events that a real cluster produced. Others run pods on a real kubelet.

use std::path::PathBuf;

use dispatcher_tests::job_controller::{finished_status, managed_template, now};
use dispatcher_tests::test_env::{TestEnv, event, text};
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{Kubernetes, Nats, Options, only_on_kubernetes, or_skip, paths, until};
use k8s_openapi::api::core::v1::{Event, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::attempts::{container, events, modified_template};

/// A Job without a Job controller and without a kubelet. The test creates its pods.
struct ByHand {
    env: TestEnv,
    templates: PathBuf,
    _folder: tempfile::TempDir,
    _kubernetes: Kubernetes,
}

impl ByHand {
    async fn start() -> Result<Self, String> {
        let kubernetes = Kubernetes::control_plane(Options::default()).await?;
        let env = TestEnv::new(Nats::start().await, kubernetes.namespace().await).await;
        let (folder, templates) = managed_template();
        Ok(Self { env, templates, _folder: folder, _kubernetes: kubernetes })
    }

    /// Requests a Job and waits for its `ADDED`.
    async fn job(&self, suffix: &str) -> String {
        self.env.request(json!({"foo": suffix}).to_string()).await;
        let name = format!("simple-job-{suffix}");
        events(&self.env, &name, "ADDED").await;
        name
    }

    /// Creates a pod of the Job. No scheduler binds it, and it stays when it is deleted.
    async fn pod(&self, job: &str, name: &str, change: impl FnOnce(&mut Value)) -> Pod {
        let job = self.env.job(job).await;
        let mut pod = json!({
            "metadata": {
                "name": name, "labels": job.labels(), "finalizers": ["tests.example.org/stays"],
                "ownerReferences": [{
                    "apiVersion": "batch/v1", "kind": "Job", "name": job.name_any(),
                    "uid": job.uid(), "controller": true,
                }],
            },
            "spec": job.spec.clone().unwrap().template.spec,
        });
        pod["spec"]["schedulerName"] = "none".into();
        change(&mut pod);
        let pod = serde_json::from_value(pod).unwrap();
        self.env.namespace.pods.create(&PostParams::default(), &pod).await.unwrap()
    }

    async fn set_status(&self, pod: &str, status: Value) {
        let patch = Patch::Merge(json!({"status": status}));
        self.env.namespace.pods.patch_status(pod, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Creates a Kubernetes Event about the pod.
    async fn warn(&self, pod: &Pod, reason: &str, message: &str) {
        let api: Api<Event> = Api::namespaced(self.env.namespace.client.clone(), &self.env.namespace.name);
        let event = json!({
            "metadata": {"generateName": "warning-"}, "type": "Warning", "reason": reason, "message": message,
            "involvedObject": {"apiVersion": "v1", "kind": "Pod", "name": pod.name_any(),
                               "namespace": self.env.namespace.name, "uid": pod.uid()},
            "firstTimestamp": now(), "lastTimestamp": now(), "count": 1, "source": {"component": "kubelet"},
        });
        api.create(&PostParams::default(), &serde_json::from_value(event).unwrap()).await.unwrap();
    }

    /// The reasons of the published stalls, once there are as many.
    async fn stalls(&self, job: &str, count: usize) -> Vec<Value> {
        until(&format!("{count} STALLED of {job}"), TIMEOUT, || async {
            let history: Vec<Value> = self.env.history(job).await.iter().map(event).collect();
            let stalls: Vec<Value> = history
                .iter()
                .filter(|event| event["type"] == "STALLED")
                .map(|event| event["stall"].clone())
                .collect();
            if stalls.len() >= count { Ok(stalls) } else { Err(history) }
        })
        .await
    }
}

fn reasons(stalls: &[Value]) -> Vec<String> {
    let mut reasons: Vec<String> = stalls.iter().map(|stall| text(&stall["reason"])).collect();
    reasons.sort();
    reasons
}

fn container_status(name: &str, state: &Value) -> Value {
    json!({"name": name, "image": "i", "imageID": "i", "ready": false, "restartCount": 0, "state": state})
}

fn terminated(code: i32, message: &str) -> Value {
    let reason = if code == 0 { "Completed" } else { "Error" };
    json!({"terminated": {"exitCode": code, "reason": reason, "message": message,
                          "startedAt": now(), "finishedAt": now()}})
}

/// A status of a pod whose containers are not created yet.
fn creating() -> Value {
    let waiting = json!({"waiting": {"reason": "ContainerCreating"}});
    json!({"phase": "Pending", "startTime": now(), "containerStatuses": [container_status("simple-job", &waiting)]})
}

fn add_sidecar(spec: &mut Value) {
    let mut sidecar = spec["containers"][0].clone();
    sidecar["name"] = "proxy".into();
    sidecar["restartPolicy"] = "Always".into();
    spec["initContainers"] = json!([sidecar]);
}

#[tokio::test(flavor = "multi_thread")]
async fn attempt_of_a_succeeded_pod_is_its_work_and_not_the_killed_sidecar() {
    let test = or_skip!(ByHand::start().await);
    let _dispatcher = test.env.dispatcher().templates(test.templates.clone()).start().await;
    let job = test.job("x").await;
    test.pod(&job, "x-1", |pod| add_sidecar(&mut pod["spec"])).await;
    test.set_status(
        "x-1",
        json!({
            "phase": "Succeeded", "startTime": now(),
            "initContainerStatuses": [container_status("proxy", &terminated(137, ""))],
            "containerStatuses": [container_status("simple-job", &terminated(0, "result=42\n"))],
        }),
    )
    .await;
    let attempt = events(&test.env, &job, "ATTEMPT").await[0]["attempt"].clone();
    assert_eq!((&attempt["exitCode"], &attempt["reason"]), (&json!(0), &json!("Completed")), "{attempt}");
    assert_eq!((&attempt["container"], &attempt["message"]), (&json!("simple-job"), &json!("result=42")));
    test.env.set_status(&job, finished_status("Complete", 0, "CompletionsReached", "done")).await;
    assert_eq!(test.env.outcome(&job).await["attempts"], json!([attempt]));
}

/// The pod on the lost node is being deleted and never ends. A process that starts later observes
/// it first in this state.
#[tokio::test(flavor = "multi_thread")]
async fn replacement_of_a_pod_on_a_lost_node_is_stalled_for_a_running_and_a_new_process() {
    let test = or_skip!(ByHand::start().await);
    let dispatcher = test.env.dispatcher().templates(test.templates.clone()).start().await;
    let job = test.job("x").await;
    test.pod(&job, "x-1", |_| {}).await;
    let running = json!({"running": {"startedAt": now()}});
    test.set_status(
        "x-1",
        json!({"phase": "Running", "startTime": now(),
        "containerStatuses": [container_status("simple-job", &running)]}),
    )
    .await;
    test.env.namespace.pods.delete("x-1", &DeleteParams::default()).await.unwrap();
    test.pod(&job, "x-2", |_| {}).await;
    test.set_status(
        "x-2",
        json!({"phase": "Pending", "conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/1 nodes are available: 1 node(s) were unschedulable.",
        }]}),
    )
    .await;
    let stalls = test.stalls(&job, 1).await;
    assert_eq!(reasons(&stalls), ["Unschedulable"]);
    dispatcher.kill().await;
    dispatcher.restart().await;
    assert_eq!(reasons(&test.stalls(&job, 2).await), ["Unschedulable", "Unschedulable"]);
    let pod = test.env.namespace.pods.get("x-1").await.unwrap();
    assert!(pod.metadata.deletion_timestamp.is_some(), "still on its node");
}

#[tokio::test(flavor = "multi_thread")]
async fn warnings_of_any_reason_about_a_waiting_pod_are_stalls_and_about_a_running_pod_are_not() {
    let test = or_skip!(ByHand::start().await);
    let _dispatcher = test.env.dispatcher().templates(test.templates.clone()).start().await;
    let (runs, waits) = (test.job("runs").await, test.job("waits").await);
    let pod = test.pod(&runs, "runs-1", |_| {}).await;
    let running = json!({"running": {"startedAt": now()}});
    test.set_status(
        "runs-1",
        json!({"phase": "Running", "startTime": now(),
        "containerStatuses": [container_status("simple-job", &running)]}),
    )
    .await;
    test.warn(&pod, "Unhealthy", "Readiness probe failed").await;

    let pod = test.pod(&waits, "waits-1", |_| {}).await;
    test.set_status("waits-1", creating()).await;
    let expected = ["FailedMapVolume", "FailedPrepareDynamicResources", "ReasonOfTomorrow", "Unhealthy"];
    for reason in expected {
        test.warn(&pod, reason, "because of \u{202e}this").await;
    }
    let stalls = test.stalls(&waits, expected.len()).await;
    assert_eq!(reasons(&stalls), expected);
    assert_eq!(stalls[0]["message"], "because of \\u202ethis", "a bidirectional override is escaped");
    // The Warning about the running pod is older than those about the waiting one.
    let types = test.env.event_types(&runs).await;
    assert!(!types.contains(&"STALLED".to_owned()), "{types:?}");
}

/// The two watches are not ordered: the Event can arrive first.
#[tokio::test(flavor = "multi_thread")]
async fn warning_that_a_process_lists_at_its_start_is_a_stall() {
    let test = or_skip!(ByHand::start().await);
    let dispatcher = test.env.dispatcher().templates(test.templates.clone()).start().await;
    let job = test.job("x").await;
    dispatcher.kill().await;
    let pod = test.pod(&job, "x-1", |_| {}).await;
    test.set_status("x-1", creating()).await;
    test.warn(&pod, "FailedMapVolume", "no device").await;
    dispatcher.restart().await;
    assert_eq!(reasons(&test.stalls(&job, 1).await), ["FailedMapVolume"]);
}

/// The native sidecar serves until the kubelet ends it after the work.
#[tokio::test(flavor = "multi_thread")]
async fn sidecar_that_the_kubelet_ends_does_not_stand_for_the_work() {
    only_on_kubernetes!("the local cluster runs no sidecars");
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = modified_template(|simple| {
        let spec = &mut simple["spec"]["job"]["spec"]["template"]["spec"];
        spec["terminationGracePeriodSeconds"] = 2.into();
        add_sidecar(spec);
        for variable in spec["initContainers"][0]["env"].as_array_mut().unwrap() {
            if variable["name"] == "SLEEP_SECONDS" {
                variable["value"] = "1000".into();
            }
        }
    });
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    env.request(r#"{"foo":"x"}"#).await;
    let outcome = env.outcome("simple-job-x").await;
    let attempt = &outcome["attempts"][0];
    assert_eq!((&outcome["result"], &attempt["exitCode"]), (&json!("Complete"), &json!(0)), "{outcome}");
    assert_eq!(
        (&attempt["container"], &attempt["reason"]),
        (&json!("simple-job"), &json!("Completed")),
        "{outcome}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sidecar_whose_startup_probe_fails_is_published_as_a_stall() {
    only_on_kubernetes!("the local cluster runs no sidecars");
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = modified_template(|simple| {
        let spec = &mut simple["spec"]["job"]["spec"]["template"]["spec"];
        add_sidecar(spec);
        spec["initContainers"][0]["env"] =
            json!([{"name": "FOO", "value": "x"}, {"name": "SLEEP_SECONDS", "value": "1000"}]);
        spec["initContainers"][0]["startupProbe"] =
            json!({"tcpSocket": {"port": 1}, "periodSeconds": 1, "failureThreshold": 1000});
    });
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    env.request(r#"{"foo":"x"}"#).await;
    let stall = until_stalled(&env, "Unhealthy").await;
    assert!(text(&stall["message"]).starts_with("Startup probe failed"), "{stall}");
}

#[tokio::test(flavor = "multi_thread")]
async fn block_volume_without_a_device_is_published_as_a_stall() {
    only_on_kubernetes!("the local cluster has no volumes");
    let env = or_skip!(TestEnv::start().await);
    let (client, namespace) = (env.namespace.client.clone(), env.namespace.name.clone());
    let volume = json!({"metadata": {"name": namespace}, "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "volumeMode": "Block",
        "storageClassName": "none", "claimRef": {"namespace": namespace, "name": "block"},
        "local": {"path": "/dev/no-such-device"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions":
            [{"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}]}]}},
    }});
    let claim = json!({"metadata": {"name": "block"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "volumeMode": "Block", "storageClassName": "none",
        "volumeName": namespace, "resources": {"requests": {"storage": "1Gi"}},
    }});
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    volumes.create(&PostParams::default(), &serde_json::from_value(volume).unwrap()).await.unwrap();
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client, &namespace);
    claims.create(&PostParams::default(), &serde_json::from_value(claim).unwrap()).await.unwrap();
    let (_folder, templates) = modified_template(|simple| {
        container(simple)["volumeDevices"] = json!([{"name": "d", "devicePath": "/dev/xvda"}]);
        simple["spec"]["job"]["spec"]["template"]["spec"]["volumes"] =
            json!([{"name": "d", "persistentVolumeClaim": {"claimName": "block"}}]);
    });
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    env.request(r#"{"foo":"x"}"#).await;
    let stall = until_stalled(&env, "FailedMapVolume").await;
    assert!(text(&stall["message"]).contains("no-such-device"), "{stall}");
}

/// The scheduler allocates a device of a driver that does not run on the node.
#[tokio::test(flavor = "multi_thread")]
async fn device_without_a_driver_is_published_as_a_stall() {
    only_on_kubernetes!("the local cluster has no devices");
    or_skip!(paths::needs_a_newer_kubernetes("has no DeviceClasses of resource.k8s.io/v1"));
    let env = or_skip!(TestEnv::start().await);
    let namespace = env.namespace.name.clone();
    let driver = format!("{namespace}.example.org");
    let class = json!({"metadata": {"name": driver}, "spec": {"selectors": [
        {"cel": {"expression": format!("device.driver == {driver:?}")}}]}});
    let slice = json!({"metadata": {"name": namespace}, "spec": {
        "driver": driver, "nodeName": "node-1", "devices": [{"name": "gpu-0"}],
        "pool": {"name": "node-1", "generation": 1, "resourceSliceCount": 1}}});
    let template = json!({"metadata": {"name": "gpu"}, "spec": {"spec": {"devices": {"requests": [
        {"name": "gpu", "exactly": {"deviceClassName": driver}}]}}}});
    for (kind, namespaced, object) in [
        ("DeviceClass", false, class),
        ("ResourceSlice", false, slice),
        ("ResourceClaimTemplate", true, template),
    ] {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("resource.k8s.io", "v1", kind));
        let client = env.namespace.client.clone();
        let api: Api<DynamicObject> = match namespaced {
            true => Api::namespaced_with(client, &namespace, &kind),
            false => Api::all_with(client, &kind),
        };
        let mut object = object;
        object["apiVersion"] = kind.api_version.clone().into();
        object["kind"] = kind.kind.clone().into();
        api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    }
    let (_folder, templates) = modified_template(|simple| {
        container(simple)["resources"]["claims"] = json!([{"name": "gpu"}]);
        simple["spec"]["job"]["spec"]["template"]["spec"]["resourceClaims"] =
            json!([{"name": "gpu", "resourceClaimTemplateName": "gpu"}]);
    });
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    env.request(r#"{"foo":"x"}"#).await;
    until_stalled(&env, "FailedPrepareDynamicResources").await;
}

/// Waits until the Job is stalled for this reason. Before, its pod may wait for a place on the node,
/// which the tests share.
async fn until_stalled(env: &TestEnv, reason: &str) -> Value {
    until(&format!("a STALLED with the reason {reason}"), TIMEOUT, || async {
        let stalls = events(env, "simple-job-x", "STALLED").await;
        let found = stalls.iter().find(|event| event["stall"]["reason"] == reason);
        found.map(|event| event["stall"].clone()).ok_or(stalls.clone())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn replacement_of_a_pod_whose_kubelet_is_lost_is_stalled() {
    only_on_kubernetes!("the local cluster's kubelet is not a process");
    let kubernetes = or_skip!(Kubernetes::with_node().await);
    let env = TestEnv::new(Nats::start().await, kubernetes.namespace().await).await;
    let (_folder, templates) = modified_template(|simple| {
        simple["spec"]["job"]["spec"]["backoffLimit"] = 3.into();
        for variable in container(simple)["env"].as_array_mut().unwrap() {
            if variable["name"] == "SLEEP_SECONDS" {
                variable["value"] = "10000".into();
            }
        }
    });
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    env.request(r#"{"foo":"x"}"#).await;
    let pod = until("the pod to run", TIMEOUT, || async {
        let pod = env.namespace.pods.list(&ListParams::default()).await.ok()?.items.pop()?;
        (pod.status.as_ref()?.phase.as_deref() == Some("Running")).then(|| pod.name_any())
    })
    .await;
    kubernetes.freeze("kubelet").await;
    kubernetes.kubectl(&["cordon", "node-1"]).await.unwrap();
    env.namespace.pods.delete(&pod, &DeleteParams::default()).await.unwrap();
    let stall = events(&env, "simple-job-x", "STALLED").await[0]["stall"].clone();
    assert_eq!(stall["reason"], "Unschedulable", "{stall}");
    assert!(env.namespace.pods.get(&pod).await.unwrap().metadata.deletion_timestamp.is_some());
    kubernetes.resume("kubelet").await;
}
