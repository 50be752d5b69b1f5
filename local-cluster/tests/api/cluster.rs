//! A cluster under test and its clients.

use std::{pin::Pin, time::Duration};

use futures::{Stream, StreamExt};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api, Client, Config,
    api::{PostParams, WatchEvent, WatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use local_cluster::{Credentials, Faults, LocalCluster, Options};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

/// The limit of every wait.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(240);

/// A cluster with an in-process client and an HTTPS client.
pub(crate) struct Cluster {
    pub(crate) cluster: LocalCluster,
    pub(crate) faults: Faults,
    pub(crate) port: u16,
    pub(crate) credentials: Credentials,
    /// The configuration of clients that call the cluster over HTTPS.
    pub(crate) config: Config,
    _serving: DropGuard,
}

impl Cluster {
    pub(crate) async fn new() -> Self {
        Self::with(Options::default()).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        let cluster = LocalCluster::new(options);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shutdown = CancellationToken::new();
        let (serving, stop) = (cluster.clone(), shutdown.clone());
        let credentials = Credentials::generate().unwrap();
        let config = config(&credentials.kubeconfig(port, "default")).await;
        let offered = credentials.clone();
        tokio::spawn(async move { serving.serve(listener, &offered, stop).await });
        let serving = shutdown.drop_guard();
        Self { faults: cluster.faults(), cluster, port, credentials, config, _serving: serving }
    }

    /// An in-process client.
    pub(crate) fn client(&self) -> Client {
        self.cluster.client("default")
    }

    /// An HTTPS client without retries.
    pub(crate) fn remote(&self) -> Client {
        Client::try_from(self.config.clone()).unwrap()
    }

    pub(crate) fn jobs(&self) -> Api<Job> {
        Api::default_namespaced(self.client())
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.client())
    }

    /// Two Job clients, for tests that run with each: in-process, then HTTPS.
    pub(crate) fn both(&self) -> [Api<Job>; 2] {
        [self.jobs(), Api::default_namespaced(self.remote())]
    }

    pub(crate) async fn create(&self, name: &str) -> Job {
        self.jobs().create(&PostParams::default(), &job(name)).await.unwrap()
    }
}

/// The configuration of a client without retries.
pub(crate) async fn config(kubeconfig: &str) -> Config {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.default_retry = false;
    config
}

pub(crate) fn job(name: &str) -> Job {
    job_with(name, json!({}))
}

pub(crate) fn job_with(name: &str, change: Value) -> Job {
    let mut object = json!({"metadata": {"name": name}, "spec": {"template": {"spec": {
        "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
    merge(&mut object, &change);
    serde_json::from_value(object).unwrap()
}

/// A pod that a Job owns.
pub(crate) fn pod_of(job: &Job, name: &str, change: Value) -> Pod {
    let mut object = json!({
        "metadata": {"name": name, "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "controller": true,
            "blockOwnerDeletion": true, "name": job.metadata.name, "uid": job.metadata.uid}]},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
    merge(&mut object, &change);
    serde_json::from_value(object).unwrap()
}

fn merge(target: &mut Value, change: &Value) {
    match (target, change) {
        (Value::Object(target), Value::Object(change)) => {
            for (key, value) in change {
                merge(target.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (target, change) => *target = change.clone(),
    }
}

/// The code, the reason and the message of an error.
pub(crate) fn status<T: std::fmt::Debug>(result: Result<T, kube::Error>) -> (u16, String, String) {
    match result {
        Err(kube::Error::Api(status)) => (status.code, status.reason.clone(), status.message.clone()),
        other => panic!("not a Status: {other:?}"),
    }
}

/// The events of a watch of Jobs.
pub(crate) struct Events(Pin<Box<dyn Stream<Item = kube::Result<WatchEvent<Job>>> + Send>>);

impl Events {
    pub(crate) async fn of(jobs: &Api<Job>, parameters: WatchParams, version: &str) -> Self {
        Self(Box::pin(jobs.watch(&parameters, version).await.unwrap()))
    }

    /// The next event; `None` at the end.
    pub(crate) async fn raw(&mut self) -> Option<kube::Result<WatchEvent<Job>>> {
        tokio::time::timeout(TIMEOUT, self.0.next()).await.expect("timed out waiting for an event")
    }

    /// A summary of the next event: `ADDED a`, `BOOKMARK`, `ERROR 410 Expired`, `end`, `broken`.
    pub(crate) async fn next(&mut self) -> String {
        let named = |type_: &str, job: Job| format!("{type_} {}", job.metadata.name.unwrap());
        match self.raw().await {
            None => "end".to_owned(),
            Some(Ok(WatchEvent::Added(job))) => named("ADDED", job),
            Some(Ok(WatchEvent::Modified(job))) => named("MODIFIED", job),
            Some(Ok(WatchEvent::Deleted(job))) => named("DELETED", job),
            Some(Ok(WatchEvent::Bookmark(_))) => "BOOKMARK".to_owned(),
            Some(Ok(WatchEvent::Error(status))) => format!("ERROR {} {}", status.code, status.reason),
            Some(Err(_)) => "broken".to_owned(),
        }
    }

    /// Whether no event arrives within 100 ms.
    pub(crate) async fn is_silent(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(100), self.0.next()).await.is_err()
    }
}

pub(crate) fn version(job: &Job) -> String {
    job.metadata.resource_version.clone().unwrap()
}
