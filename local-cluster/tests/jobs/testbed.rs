//! A cluster with a controller and a kubelet, and its helpers for tests.

use std::{collections::BTreeMap, fmt::Debug, path::PathBuf, process::Command, sync::OnceLock};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::{
    batch::v1::{Job, JobStatus},
    core::v1::{Event, Pod},
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
    runtime::watcher,
};
use local_cluster::{
    Faults, LocalCluster, Options, controller,
    kubelet::{self, Kubelet, Program},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::wait::{TIMEOUT, pid_in, wait};

/// Shortens the back-off: 10 s become 0.1 s.
const TIME_SCALE: f64 = 0.01;

/// A running cluster. Dropping it ends its processes.
pub(crate) struct Testbed {
    pub(crate) jobs: Api<Job>,
    pub(crate) pods: Api<Pod>,
    events: Api<Event>,
    internal_jobs: Api<Job>,
    pub(crate) faults: Faults,
    pub(crate) folder: tempfile::TempDir,
    shutdown: CancellationToken,
    tasks: JoinSet<()>,
}

impl Testbed {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// Faults also affect the controller and the kubelet.
    pub(crate) fn with_faults_everywhere() -> Self {
        let cluster = LocalCluster::new(Options::default());
        let client = cluster.client("default");
        Self::of(&cluster, client, |_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut kubelet::Options)) -> Self {
        let cluster = LocalCluster::new(Options::default());
        let internal = cluster.internal_client("default");
        Self::of(&cluster, internal, change)
    }

    fn of(cluster: &LocalCluster, internal: Client, change: impl FnOnce(&mut kubelet::Options)) -> Self {
        let client = cluster.client("default");
        let shutdown = CancellationToken::new();
        let mut options =
            kubelet::Options { images: images(), time_scale: TIME_SCALE, ..kubelet::Options::default() };
        change(&mut options);
        let kubelet = Kubelet::new(internal.clone(), options).unwrap();
        cluster.register_logs(kubelet.logs());
        let mut tasks = JoinSet::new();
        tasks.spawn(kubelet.run(shutdown.clone()));
        let options = controller::Options { time_scale: TIME_SCALE };
        tasks.spawn(controller::run(internal, options, shutdown.clone()));
        Self {
            jobs: Api::default_namespaced(client.clone()),
            pods: Api::default_namespaced(client.clone()),
            events: Api::default_namespaced(client),
            internal_jobs: Api::default_namespaced(cluster.internal_client("default")),
            faults: cluster.faults(),
            folder: tempfile::tempdir().unwrap(),
            shutdown,
            tasks,
        }
    }

    /// Shuts down, as at the end of a program.
    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        timeout(TIMEOUT, async { while self.tasks.join_next().await.is_some() {} }).await.unwrap();
    }

    /// Creates a Job named `a` with one container.
    pub(crate) async fn create(&self, spec: Value, container: Value) -> Job {
        self.create_named("a", spec, container).await
    }

    pub(crate) async fn create_named(&self, name: &str, mut spec: Value, mut container: Value) -> Job {
        let policy = spec["restartPolicy"].take();
        let policy = policy.as_str().unwrap_or("Never");
        spec.as_object_mut().unwrap().remove("restartPolicy");
        container["name"] = json!("main");
        container["imagePullPolicy"] = json!("Never");
        spec["template"] = json!({"spec": {
            "restartPolicy": policy, "terminationGracePeriodSeconds": 5, "containers": [container],
        }});
        let job = json!({"metadata": {"name": name}, "spec": spec});
        self.jobs.create(&PostParams::default(), &serde_json::from_value(job).unwrap()).await.unwrap()
    }

    pub(crate) async fn patch(&self, spec: Value) -> Job {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.jobs.patch("a", &PatchParams::default(), &patch).await.unwrap()
    }

    /// Waits for a condition of the Job.
    pub(crate) async fn until(&self, condition: &str) -> Job {
        let holds = |job: Option<&Job>| {
            job.is_some_and(|job| conditions(job).iter().any(|(kind, _)| kind == condition))
        };
        wait(&self.jobs, "a", holds).await.unwrap()
    }

    /// Waits until the Job's status satisfies a predicate.
    pub(crate) async fn until_status(&self, predicate: impl Fn(&JobStatus) -> bool + Sync) -> JobStatus {
        let holds = |job: Option<&Job>| job.and_then(|job| job.status.as_ref()).is_some_and(&predicate);
        wait(&self.jobs, "a", holds).await.unwrap().status.unwrap()
    }

    /// Waits until the Job has finished, through a client that faults do not affect.
    pub(crate) async fn until_finished_internally(&self) {
        let holds = |job: Option<&Job>| job.is_some_and(|job| !conditions(job).is_empty());
        wait(&self.internal_jobs, "a", holds).await;
    }

    /// Waits until the Job is removed.
    pub(crate) async fn until_gone(&self) {
        wait(&self.jobs, "a", |job: Option<&Job>| job.is_none()).await;
    }

    /// Waits until there are no pods.
    pub(crate) async fn until_no_pods(&self) {
        self.until_list(&self.pods, <[k8s_openapi::api::core::v1::Pod]>::is_empty).await;
    }

    /// Waits until `count` Jobs exist and all are complete.
    pub(crate) async fn until_all_complete(&self, count: usize) {
        let complete = |job: &Job| conditions(job).iter().any(|(kind, _)| kind == "Complete");
        self.until_list(&self.jobs, |jobs| jobs.len() == count && jobs.iter().all(complete)).await;
    }

    async fn until_list<K>(&self, api: &Api<K>, predicate: impl Fn(&[K]) -> bool)
    where
        K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let search = async {
            let mut changes = std::pin::pin!(watcher(api.clone(), watcher::Config::default()));
            while changes.try_next().await.unwrap().is_some() {
                if predicate(&api.list(&ListParams::default()).await.unwrap().items) {
                    return;
                }
            }
        };
        timeout(TIMEOUT, search).await.expect("timed out waiting for the list");
    }

    /// Waits for a pod in this phase.
    pub(crate) async fn until_pod(&self, phase: &str) -> Pod {
        self.watch_pods(|pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some(phase))
            .await
    }

    /// Waits for a pod that satisfies a predicate.
    pub(crate) async fn watch_pods(&self, predicate: impl Fn(&Pod) -> bool) -> Pod {
        let search = async {
            let mut events = std::pin::pin!(watcher(self.pods.clone(), watcher::Config::default()));
            while let Some(event) = events.next().await {
                if let Ok(watcher::Event::InitApply(pod) | watcher::Event::Apply(pod)) = event
                    && predicate(&pod)
                {
                    return pod;
                }
            }
            unreachable!("the watcher does not end")
        };
        timeout(TIMEOUT, search).await.expect("timed out waiting for a pod")
    }

    pub(crate) async fn pods(&self) -> Vec<Pod> {
        self.pods.list(&ListParams::default()).await.unwrap().items
    }

    /// The reasons and messages of the Events for objects of this kind.
    pub(crate) async fn events(&self, kind: &str) -> Vec<(String, String)> {
        let about = ListParams::default().fields(&format!("involvedObject.kind={kind}"));
        let mut events = self.events.list(&about).await.unwrap().items;
        events.sort_by_key(|event| event.metadata.name.clone());
        events.into_iter().map(|event| (event.reason.unwrap(), event.message.unwrap())).collect()
    }

    /// The statuses that a watch from `since` reports, up to the final condition.
    pub(crate) async fn status_history(&self, since: &Job) -> Vec<Value> {
        let params = WatchParams::default().fields("metadata.name=a");
        let version = since.resource_version().unwrap();
        let search = async {
            let mut events = self.jobs.watch(&params, &version).await.unwrap().boxed();
            let mut statuses = Vec::new();
            while let Some(event) = events.try_next().await.unwrap() {
                let WatchEvent::Modified(job) = event else { panic!("{event:?}") };
                let is_last =
                    conditions(&job).iter().any(|(kind, _)| ["Complete", "Failed"].contains(&kind.as_str()));
                statuses.push(serde_json::to_value(job.status).unwrap());
                if is_last {
                    return statuses;
                }
            }
            panic!("the watch ended early")
        };
        timeout(TIMEOUT, search).await.expect("timed out waiting for the Job to finish")
    }

    /// A container that writes its process id to a file and then runs until it is killed.
    pub(crate) fn sleeper(&self, before: &str) -> Value {
        let file = self.folder.path().join("pid");
        shell(&format!(
            "{before} echo $$ > {0}.new; mv {0}.new {0}; while :; do sleep 0.05; done",
            file.display()
        ))
    }

    /// The process id from that file.
    pub(crate) async fn pid(&self) -> u32 {
        pid_in(&self.folder.path().join("pid")).await
    }
}

/// The types and reasons of the `True` conditions.
pub(crate) fn conditions(job: &Job) -> Vec<(String, String)> {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let held = conditions.filter(|condition| condition.status == "True");
    held.map(|condition| (condition.type_.clone(), condition.reason.clone().unwrap_or_default())).collect()
}

/// The state of a pod's only container.
pub(crate) fn state(pod: &Pod) -> Value {
    let statuses = pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap();
    serde_json::to_value(&statuses[0].state).unwrap()
}

/// A container that runs a shell command.
pub(crate) fn shell(line: &str) -> Value {
    // Kubernetes expands `$$` to `$`.
    json!({"image": "sh:1", "args": ["-c", line.replace("$$", "$$$$")]})
}

/// The workload of the template `simple`.
pub(crate) fn simple(fail: bool) -> Value {
    let mut env = json!([{"name": "FOO", "value": "bar"}, {"name": "SLEEP_SECONDS", "value": "0.3"}]);
    if fail {
        env.as_array_mut().unwrap().push(json!({"name": "FAIL", "value": "1"}));
    }
    json!({"image": "simple-job:0.1.0", "env": env})
}

fn images() -> BTreeMap<String, Program> {
    BTreeMap::from([
        ("simple-job:0.1.0".to_owned(), Program::new(simple_job())),
        ("sh:1".to_owned(), Program::new("/bin/sh")),
        // Buffers an endless line, so its memory grows without limit.
        ("hungry:1".to_owned(), Program::new("tail").with_arguments(["/dev/zero"])),
    ])
}

/// The path of `simple-job`, built if absent.
fn simple_job() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let folder = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_owned();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--package", "simple-job"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        if folder.ends_with("release") {
            cargo.arg("--release");
        }
        let program = folder.join("simple-job");
        assert!(program.exists() || cargo.status().unwrap().success(), "failed to build simple-job");
        program
    };
    BUILT.get_or_init(build).clone()
}
