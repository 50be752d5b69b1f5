//! A cluster with a controller and a kubelet, and what tests ask of it.

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

/// Shortens the waits between attempts: 10 s become 0.1 s.
const TIME_SCALE: f64 = 0.01;

/// A running cluster. Its processes end with it.
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

    /// Faults fault the controller and the kubelet too.
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

    /// Stops all of it, as at the end of a program.
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

    /// The Job once it has this condition.
    pub(crate) async fn until(&self, condition: &str) -> Job {
        let holds = |job: Option<&Job>| {
            job.is_some_and(|job| conditions(job).iter().any(|(kind, _)| kind == condition))
        };
        wait(&self.jobs, "a", holds).await.unwrap()
    }

    /// The Job's status once it is as wanted.
    pub(crate) async fn until_status(&self, wanted: impl Fn(&JobStatus) -> bool + Sync) -> JobStatus {
        let holds = |job: Option<&Job>| job.and_then(|job| job.status.as_ref()).is_some_and(&wanted);
        wait(&self.jobs, "a", holds).await.unwrap().status.unwrap()
    }

    /// Waits until the Job has ended, whatever the callers of the API meet.
    pub(crate) async fn until_finished_internally(&self) {
        let holds = |job: Option<&Job>| job.is_some_and(|job| !conditions(job).is_empty());
        wait(&self.internal_jobs, "a", holds).await;
    }

    /// Waits until the Job is gone.
    pub(crate) async fn until_gone(&self) {
        wait(&self.jobs, "a", |job: Option<&Job>| job.is_none()).await;
    }

    /// Waits until there are no pods.
    pub(crate) async fn until_no_pods(&self) {
        self.until_list(&self.pods, |pods| pods.is_empty()).await;
    }

    /// Waits until there are so many Jobs, all of them complete.
    pub(crate) async fn until_all_complete(&self, count: usize) {
        let complete = |job: &Job| conditions(job).iter().any(|(kind, _)| kind == "Complete");
        self.until_list(&self.jobs, |jobs| jobs.len() == count && jobs.iter().all(complete)).await;
    }

    async fn until_list<K>(&self, api: &Api<K>, wanted: impl Fn(&[K]) -> bool)
    where
        K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let search = async {
            let mut changes = std::pin::pin!(watcher(api.clone(), watcher::Config::default()));
            while changes.try_next().await.unwrap().is_some() {
                if wanted(&api.list(&ListParams::default()).await.unwrap().items) {
                    return;
                }
            }
        };
        timeout(TIMEOUT, search).await.expect("the list did not come to be as wanted");
    }

    /// The first pod, once its phase is this one.
    pub(crate) async fn until_pod(&self, phase: &str) -> Pod {
        self.watch_pods(|pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some(phase))
            .await
    }

    /// The first pod that is as wanted.
    pub(crate) async fn watch_pods(&self, wanted: impl Fn(&Pod) -> bool) -> Pod {
        let search = async {
            let mut events = std::pin::pin!(watcher(self.pods.clone(), watcher::Config::default()));
            while let Some(event) = events.next().await {
                if let Ok(watcher::Event::InitApply(pod) | watcher::Event::Apply(pod)) = event
                    && wanted(&pod)
                {
                    return pod;
                }
            }
            unreachable!("a watcher does not end")
        };
        timeout(TIMEOUT, search).await.expect("no pod came to be as wanted")
    }

    pub(crate) async fn pods(&self) -> Vec<Pod> {
        self.pods.list(&ListParams::default()).await.unwrap().items
    }

    /// The reasons and messages of the Events about objects of this kind.
    pub(crate) async fn events(&self, kind: &str) -> Vec<(String, String)> {
        let about = ListParams::default().fields(&format!("involvedObject.kind={kind}"));
        let mut events = self.events.list(&about).await.unwrap().items;
        events.sort_by_key(|event| event.metadata.name.clone());
        events.into_iter().map(|event| (event.reason.unwrap(), event.message.unwrap())).collect()
    }

    /// What the watch tells of the Job from `since` on, up to its final condition.
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
            panic!("the watch ended")
        };
        timeout(TIMEOUT, search).await.expect("the Job did not end")
    }

    /// A container that writes its process's number to a file, and then lives on.
    pub(crate) fn sleeper(&self, before: &str) -> Value {
        let file = self.folder.path().join("pid");
        shell(&format!(
            "{before} echo $$ > {0}.new; mv {0}.new {0}; while :; do sleep 0.05; done",
            file.display()
        ))
    }

    /// The number of that process, once it is written.
    pub(crate) async fn pid(&self) -> u32 {
        pid_in(&self.folder.path().join("pid")).await
    }
}

/// The conditions that are `True`, with their reasons.
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

/// A container that runs a line of shell.
pub(crate) fn shell(line: &str) -> Value {
    // Kubernetes takes `$$` for an escaped `$`.
    json!({"image": "sh:1", "args": ["-c", line.replace("$$", "$$$$")]})
}

/// The workload of the kind `simple`.
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
        // Reads a line that never ends: its memory grows for ever.
        ("hungry:1".to_owned(), Program::new("tail").with_arguments(["/dev/zero"])),
    ])
}

/// The program, built where it is not there yet.
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
        assert!(program.exists() || cargo.status().unwrap().success(), "simple-job cannot be built");
        program
    };
    BUILT.get_or_init(build).clone()
}
