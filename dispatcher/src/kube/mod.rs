//! Kubernetes: the client, and the calls on Jobs, each with a deadline.
//!
//! The client library's own retries are off: they repeat a POST for up to 1,000 s, longer than any `ack_wait`.

pub mod watch_loop;

use std::{path::Path, time::Duration};

use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
    batch::v1::Job,
    core::v1::{Event, Namespace, Pod},
};
use kube::{
    Api, Client, Config, Resource, ResourceExt,
    api::{ApiResource, DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    config::{KubeConfigOptions, Kubeconfig},
    core::{DynamicResourceScope, Request},
};
use serde_json::Value;
use tokio::time::timeout;

use dispatcher_core::{contract::job::JobObject, request::error::CallError};

/// How long one call may take.
pub const DEADLINE: Duration = Duration::from_secs(10);

fn call_error(error: kube::Error) -> CallError {
    match error {
        kube::Error::Api(status) => CallError::Status(status),
        other => CallError::Transport(chain(&other)),
    }
}

/// An error with its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

pub(crate) async fn bounded<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, CallError> {
    timeout(DEADLINE, call).await.map_err(|_| CallError::DeadlineExceeded(DEADLINE))?.map_err(call_error)
}

/// A client of the cluster that `kubeconfig` names, else `KUBECONFIG`, the usual file, or the one the pod runs in.
///
/// # Errors
/// Where no configuration is found, or it is unreadable.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, String> {
    let mut config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).map_err(|e| chain(&e))?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .map_err(|e| chain(&e))?
        }
        None => Config::infer().await.map_err(|e| chain(&e))?,
    };
    config.default_retry = false;
    config.connect_timeout = Some(DEADLINE);
    // Of the watch and its lists, which `bounded` does not reach: the server ends a healthy watch after 20 s.
    config.read_timeout = Some(Duration::from_secs(28));
    config.reset_reader_on_write = true;
    Client::try_from(config).map_err(|e| chain(&e))
}

/// The Jobs of one namespace.
#[derive(Clone)]
pub struct Jobs {
    client: Client,
    api: Api<JobObject>,
    namespace: String,
}

impl Jobs {
    /// The Jobs of `namespace`.
    pub fn new(client: Client, namespace: &str) -> Self {
        let api = Api::namespaced_with(client.clone(), namespace, &ApiResource::erase::<Job>(&()));
        Self { client, api, namespace: namespace.to_owned() }
    }

    /// For the watch.
    pub fn api(&self) -> Api<JobObject> {
        self.api.clone()
    }

    /// The client.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// For the logs of pods.
    pub fn logs(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The pods of the namespace, for the watch; `K` is as much of them as it decodes.
    pub fn pods<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = ApiResource, Scope = DynamicResourceScope>,
    {
        Api::namespaced_with(self.client.clone(), &self.namespace, &ApiResource::erase::<Pod>(&()))
    }

    /// Kubernetes' Events of the namespace, for the watch.
    pub fn events(&self) -> Api<Event> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Creates a Job.
    ///
    /// # Errors
    /// [`CallError`]; after `Late` and `Transport` the Job may be there.
    pub async fn create(&self, job: &Job) -> Result<JobObject, CallError> {
        let body = serde_json::to_vec(job).map_err(|e| CallError::Transport(e.to_string()))?;
        let request = Request::new(Job::url_path(&(), Some(&self.namespace)))
            .create(&PostParams::default(), body)
            .map_err(|e| CallError::Transport(e.to_string()))?;
        bounded(self.client.request(request)).await
    }

    /// The Job of that name; `None` where there is none.
    ///
    /// # Errors
    /// [`CallError`], other than the 404 of the Job.
    pub async fn get(&self, name: &str) -> Result<Option<JobObject>, CallError> {
        bounded(self.api.get_opt(name)).await
    }

    /// A JSON merge patch (RFC 7386). With `metadata.uid` in it, another Job of that name is left alone.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn patch(&self, name: &str, patch: &Value) -> Result<JobObject, CallError> {
        bounded(self.api.patch(name, &PatchParams::default(), &Patch::Merge(patch))).await
    }

    /// Deletes this very Job in this very state, and its pods in the background.
    ///
    /// # Errors
    /// [`CallError`]: 404 where there is no Job of that name, 409 where it is another one, or has changed.
    pub async fn delete(&self, name: &str, uid: &str, resource_version: u64) -> Result<(), CallError> {
        let as_seen =
            Preconditions { uid: Some(uid.to_owned()), resource_version: Some(resource_version.to_string()) };
        let params = DeleteParams::background().preconditions(as_seen);
        bounded(self.api.delete(name, &params)).await.map(drop)
    }

    /// The uid of the namespace.
    ///
    /// # Errors
    /// [`CallError`]; 404 where there is no such namespace.
    pub async fn namespace_uid(&self) -> Result<String, CallError> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let namespace = bounded(namespaces.get(&self.namespace)).await?;
        namespace.uid().ok_or_else(|| CallError::Transport("a namespace without a uid".to_owned()))
    }

    /// Whether RBAC lets the dispatcher do `verb` on Jobs here (SelfSubjectAccessReview).
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn may(&self, verb: &str) -> Result<bool, CallError> {
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    namespace: Some(self.namespace.clone()),
                    verb: Some(verb.to_owned()),
                    group: Some("batch".to_owned()),
                    resource: Some("jobs".to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let api: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let answer = bounded(api.create(&PostParams::default(), &review)).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}
