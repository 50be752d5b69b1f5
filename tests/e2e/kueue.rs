//! Kueue decides when Jobs run: the example of `docs/kueue.md` with a real Kueue.
//!
//! The tests share a cluster of their own: Kueue's webhooks concern every Job of a cluster.

use dispatcher_core::template::Template;
use dispatcher_core::testing::shipped_limits;
use dispatcher_tests::test_env::{TestEnv, event, text};
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{Dispatcher, Kubernetes, Kueue, Nats, only_on_kubernetes, or_skip, paths, until};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::attempts::{container, events};
use crate::service_client::call_service;

/// Longer than any test.
const FOREVER: &str = "10000";
/// How long a Job runs that a test lets end.
const SHORT: &str = "0.1";

/// The cluster with Kueue. The first call starts both.
async fn cluster() -> Result<&'static (Kubernetes, Kueue), String> {
    static CLUSTER: OnceCell<(Kubernetes, Kueue)> = OnceCell::const_new();
    Kueue::available()?;
    let start = || async {
        let kubernetes = Kubernetes::with_node().await?;
        let kueue = Kueue::start(&kubernetes).await.unwrap_or_else(|error| panic!("Kueue: {error}"));
        Ok((kubernetes, kueue))
    };
    CLUSTER.get_or_try_init(start).await
}

/// The YAML documents of `docs/kueue.md`: the queues, then the template.
fn documented() -> (Vec<Value>, Value) {
    let page = std::fs::read_to_string(paths::workspace().join("docs/kueue.md")).unwrap();
    let blocks: Vec<&str> =
        page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let [queues, template] = blocks[..] else { panic!("docs/kueue.md has {} YAML blocks", blocks.len()) };
    (serde_saphyr::from_multiple(queues).unwrap(), serde_saphyr::from_str(template).unwrap())
}

fn api(env: &TestEnv, kind: &str, plural: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("kueue.x-k8s.io", "v1beta2", kind);
    let resource = ApiResource::from_gvk_with_plural(&kind, plural);
    match plural {
        "clusterqueues" | "resourceflavors" | "workloadpriorityclasses" => {
            Api::all_with(env.namespace.client.clone(), &resource)
        }
        _ => Api::namespaced_with(env.namespace.client.clone(), &env.namespace.name, &resource),
    }
}

/// The documented example in one namespace. A `ConfigMap` has the run time of the pods of each Job.
struct Example {
    env: TestEnv,
    dispatcher: Dispatcher,
    local_queue: Value,
    kueue: &'static Kueue,
    _templates: tempfile::TempDir,
}

impl Example {
    /// Creates the queues, without the `LocalQueue`, and starts a dispatcher with the template.
    async fn start(scenes: &[&str]) -> Result<Self, String> {
        let (kubernetes, kueue) = cluster().await?;
        let env = TestEnv::new(Nats::start().await, kubernetes.namespace().await).await;
        env.namespace.apply(&paths::workspace().join("deploy/kueue/kueue.yaml")).await.unwrap();
        let (queues, template) = documented();
        let mut local_queue = Value::Null;
        for mut object in queues {
            let kind = text(&object["kind"]);
            match kind.as_str() {
                // Other tests have their own.
                "ClusterQueue" => object["metadata"]["name"] = env.namespace.name.as_str().into(),
                "LocalQueue" => {
                    object["metadata"]["namespace"] = env.namespace.name.as_str().into();
                    object["spec"]["clusterQueue"] = env.namespace.name.as_str().into();
                    local_queue = object;
                    continue;
                }
                _ => {}
            }
            apply(&env, &object).await;
        }
        set_seconds(&env, scenes, FOREVER).await;
        let templates = paths::temp_dir("templates")?;
        std::fs::write(templates.path().join("render.yaml"), adapted(template).to_string()).unwrap();
        let dispatcher = env.dispatcher().env("DISPATCHER_KUEUE", "true").templates(templates.path());
        let dispatcher = dispatcher.start().await;
        Ok(Self { env, dispatcher, local_queue, kueue, _templates: templates })
    }

    async fn create_local_queue(&self) {
        apply(&self.env, &self.local_queue).await;
    }

    /// Sets the `stopPolicy` of the `ClusterQueue`.
    async fn set_stop_policy(&self, policy: &str) {
        let patch = Patch::Merge(json!({"spec": {"stopPolicy": policy}}));
        let queues = api(&self.env, "ClusterQueue", "clusterqueues");
        queues.patch(&self.env.namespace.name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Activates or deactivates the Workload of the only Job.
    async fn set_active(&self, active: bool) {
        let workloads = api(&self.env, "Workload", "workloads");
        let found = workloads.list(&ListParams::default()).await.unwrap().items;
        let [workload] = &found[..] else { panic!("expected one Workload, found {found:?}") };
        let name = workload.metadata.name.as_deref().unwrap();
        let patch = Patch::Merge(json!({"spec": {"active": active}}));
        workloads.patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Requests a Job and waits for its `ADDED`.
    async fn request(&self, scene: &str, priority: &str) -> String {
        self.env.request_with_id(scene, &request(scene, priority)).await;
        let name = format!("render-{scene}");
        events(&self.env, &name, "ADDED").await;
        name
    }

    /// Waits until the pod of a Job is ready by the last event.
    async fn until_running(&self, job: &str) {
        until(&format!("{job} to run"), TIMEOUT, || async {
            let last = self.env.last_event(job).await;
            last.as_ref().is_some_and(|last| last["status"]["ready"] == 1).then_some(()).ok_or(last)
        })
        .await;
    }

    /// Waits for `count` stalls of a Job with this reason, and returns the message of the last one.
    async fn until_stalled(&self, job: &str, reason: &str, count: usize) -> String {
        until(&format!("{count} STALLED of {job} with the reason {reason}"), TIMEOUT, || async {
            let history = self.history(job).await;
            let of_it = |event: &&Value| event["type"] == "STALLED" && event["stall"]["reason"] == reason;
            let found: Vec<&Value> = history.iter().filter(of_it).collect();
            let last = found.last().filter(|_| found.len() >= count);
            last.map(|event| text(&event["stall"]["message"])).ok_or(history.clone())
        })
        .await
    }

    async fn cancel(&self, job: &str) {
        let query = json!({"name": job}).to_string();
        assert_eq!(call_service(&self.env.client, "cancel", &[], &query).await.unwrap()["result"], "deleted");
        assert_eq!(self.env.outcome(job).await["result"], "Cancelled");
    }

    async fn history(&self, job: &str) -> Vec<Value> {
        self.env.history(job).await.iter().map(event).collect()
    }

    /// The reasons of the published stalls, without repetitions, and those of the attempts.
    async fn reasons(&self, job: &str) -> (Vec<String>, Vec<String>) {
        let history = self.history(job).await;
        let of = |type_: &str, field: &str| -> Vec<String> {
            let found = history.iter().filter(|event| event["type"] == type_);
            found.map(|event| text(&event[field]["reason"])).collect()
        };
        let mut stalls = of("STALLED", "stall");
        stalls.dedup();
        (stalls, of("ATTEMPT", "attempt"))
    }

    /// The one outcome of a Job is its last event.
    async fn assert_one_outcome(&self, job: &str) {
        let types = self.env.event_types(job).await;
        let outcomes = types.iter().filter(|type_| *type_ == "OUTCOME").count();
        assert_eq!((outcomes, types.last().map(String::as_str)), (1, Some("OUTCOME")), "{job}: {types:?}");
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // The test harness shows it only if the test fails.
        if std::thread::panicking() {
            println!("end of Kueue's log:\n{}", self.kueue.tail());
        }
    }
}

fn request(scene: &str, priority: &str) -> String {
    json!({"scene": scene, "priority": priority}).to_string()
}

async fn apply(env: &TestEnv, object: &Value) {
    let kind = text(&object["kind"]);
    let plural = match kind.as_str() {
        "WorkloadPriorityClass" => "workloadpriorityclasses".to_owned(),
        _ => format!("{}s", kind.to_lowercase()),
    };
    let params = PatchParams::apply("test").force();
    let name = text(&object["metadata"]["name"]);
    api(env, &kind, &plural).patch(&name, &params, &Patch::Apply(object)).await.unwrap();
}

/// Sets how long the pods of these Jobs run that start from now on.
async fn set_seconds(env: &TestEnv, scenes: &[&str], seconds: &str) {
    let maps: Api<ConfigMap> = Api::namespaced(env.namespace.client.clone(), &env.namespace.name);
    let data: serde_json::Map<String, Value> =
        scenes.iter().map(|scene| ((*scene).to_owned(), seconds.into())).collect();
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "seconds"}, "data": data});
    let params = PatchParams::apply(&scenes.join("-")).force();
    maps.patch("seconds", &params, &Patch::Apply(map)).await.unwrap();
}

/// The template with the name `simple`, which the helpers of the tests use, with the duration of the
/// `ConfigMap`, and with a priority that does not exist.
fn adapted(mut template: Value) -> Value {
    template["metadata"]["name"] = "simple".into();
    let priorities = &mut template["spec"]["parameters"]["properties"]["priority"]["enum"];
    priorities.as_array_mut().unwrap().push("missing".into());
    for variable in container(&mut template)["env"].as_array_mut().unwrap() {
        if variable["name"] == "SLEEP_SECONDS" {
            *variable = json!({"name": "SLEEP_SECONDS",
                "valueFrom": {"configMapKeyRef": {"name": "seconds", "key": "${scene}"}}});
        }
    }
    template
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kueue: run `make test-kueue`"]
async fn jobs_of_a_queue_wait_for_quota_and_are_preempted_and_readmitted() {
    only_on_kubernetes!("the local cluster has no custom resources");
    let scenes = ["lobby", "garden", "studio", "trailer"];
    let example = or_skip!(Example::start(&scenes).await);
    example.create_local_queue().await;
    let lobby = example.request("lobby", "normal").await;
    example.until_running(&lobby).await;

    // The quota is used up.
    let garden = example.request("garden", "normal").await;
    let message = example.until_stalled(&garden, "KueuePending", 1).await;
    assert!(message.contains("insufficient unused quota for cpu in flavor linux"), "{message}");

    // Kueue admits the Job, and changes its pod template.
    example.cancel(&lobby).await;
    example.until_running(&garden).await;
    let selector = example.env.job(&garden).await.spec.unwrap().template.spec.unwrap().node_selector.unwrap();
    assert_eq!(selector.get("kubernetes.io/os").map(String::as_str), Some("linux"));
    // The repeated request is still that of this Job.
    let payload = request("garden", "normal");
    let repeated = call_service(&example.env.client, "submit", &[("Nats-Msg-Id", "garden")], &payload).await;
    let repeated = repeated.unwrap();
    assert_eq!(repeated["name"], garden, "{repeated}");

    // An urgent Job preempts it, and another one waits for the quota before it.
    let studio = example.request("studio", "urgent").await;
    let message = example.until_stalled(&garden, "KueuePreempted", 1).await;
    assert!(message.starts_with("Preempted to accommodate a workload"), "{message}");
    example.until_running(&studio).await;
    set_seconds(&example.env, &["trailer", "garden"], SHORT).await;
    let trailer = example.request("trailer", "urgent").await;
    let message = example.until_stalled(&trailer, "KueuePending", 1).await;
    assert!(message.contains("insufficient unused quota for cpu"), "{message}");
    let waiting = example.env.job(&garden).await;
    assert_eq!(waiting.spec.unwrap().suspend, Some(true));
    assert_eq!(waiting.status.unwrap().failed.unwrap_or(0), 0);

    // Both run as soon as there is quota, the urgent one first.
    example.cancel(&studio).await;
    let first = example.env.outcome(&trailer).await;
    let second = example.env.outcome(&garden).await;
    assert_eq!((&first["result"], &second["result"]), (&json!("Complete"), &json!("Complete")), "{second}");
    assert_eq!((&second["succeeded"], &second["failed"]), (&json!(1), &json!(0)), "{second}");
    let start = text(&second["attempts"][1]["startedAt"]);
    assert!(text(&first["attempts"][0]["finishedAt"]) <= start, "{first} {second}");

    for job in [&lobby, &garden, &studio, &trailer] {
        example.assert_one_outcome(job).await;
    }
    let strings = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
    let expected = (strings(&["KueuePending", "KueuePreempted"]), strings(&["Deleted", "Completed"]));
    assert_eq!(example.reasons(&garden).await, expected);
    assert_eq!(example.reasons(&trailer).await, (strings(&["KueuePending"]), strings(&["Completed"])));
    assert_eq!(example.env.dead_letters().await.len(), 0);
    assert_eq!(example.dispatcher.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kueue: run `make test-kueue`"]
async fn stopped_queue_and_deactivated_workload_evict_a_job_until_they_are_back() {
    only_on_kubernetes!("the local cluster has no custom resources");
    let example = or_skip!(Example::start(&["hall"]).await);
    let hall = example.request("hall", "normal").await;
    let message = example.until_stalled(&hall, "KueueInadmissible", 1).await;
    assert_eq!(message, "LocalQueue team-a doesn't exist");

    // A new process publishes the same stall: it lists the Workloads.
    assert_eq!(example.dispatcher.terminate().await, Some(0));
    example.dispatcher.restart().await;
    example.until_stalled(&hall, "KueueInadmissible", 2).await;
    example.create_local_queue().await;
    example.until_running(&hall).await;

    example.set_stop_policy("HoldAndDrain").await;
    let message = example.until_stalled(&hall, "KueueClusterQueueStopped", 1).await;
    assert!(message.starts_with("The ClusterQueue is stopped"), "{message}");
    example.set_stop_policy("None").await;
    example.until_running(&hall).await;

    example.set_active(false).await;
    let message = example.until_stalled(&hall, "KueueDeactivated", 1).await;
    assert!(message.starts_with("The workload is deactivated"), "{message}");
    set_seconds(&example.env, &["hall"], SHORT).await;
    example.set_active(true).await;

    let outcome = example.env.outcome(&hall).await;
    assert_eq!((&outcome["result"], &outcome["failed"]), (&json!("Complete"), &json!(0)), "{outcome}");
    example.assert_one_outcome(&hall).await;
    let (stalls, attempts) = example.reasons(&hall).await;
    assert_eq!(stalls, ["KueueInadmissible", "KueueClusterQueueStopped", "KueueDeactivated"]);
    assert_eq!(attempts, ["Deleted", "Deleted", "Completed"]);
    assert_eq!(example.dispatcher.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kueue: run `make test-kueue`"]
async fn job_without_a_workload_is_only_suspended() {
    only_on_kubernetes!("the local cluster has no custom resources");
    let example = or_skip!(Example::start(&["attic"]).await);
    example.create_local_queue().await;
    let attic = example.request("attic", "missing").await;
    assert_eq!(example.until_stalled(&attic, "JobSuspended", 1).await, "Job suspended");
    let workloads = api(&example.env, "Workload", "workloads");
    assert_eq!(workloads.list(&ListParams::default()).await.unwrap().items, []);
    example.cancel(&attic).await;
    assert_eq!(example.reasons(&attic).await, (vec!["JobSuspended".to_owned()], vec![]));
}

#[test]
fn documented_template_is_valid() {
    let (queues, template) = documented();
    let parsed = Template::parse(&template.to_string()).unwrap();
    let limited = parsed.with_policy(shipped_limits().into());
    assert!(limited.is_ok(), "{limited:?}");
    let queue = queues.iter().find(|object| object["kind"] == "LocalQueue").unwrap();
    let labels = &template["spec"]["job"]["metadata"]["labels"];
    assert_eq!(labels["kueue.x-k8s.io/queue-name"], queue["metadata"]["name"]);
    let priorities = queues.iter().filter(|object| object["kind"] == "WorkloadPriorityClass");
    let priorities: Vec<&Value> = priorities.map(|object| &object["metadata"]["name"]).collect();
    let allowed = &template["spec"]["parameters"]["properties"]["priority"]["enum"];
    assert_eq!(allowed.as_array().unwrap().iter().collect::<Vec<_>>(), priorities);
}
