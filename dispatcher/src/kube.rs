//! The Kubernetes client, and the calls on Jobs. Each call has a deadline.
//!
//! The retries of the client library are off: they repeat a POST for up to 1,000 s, which is longer
//! than `ack_wait`.

mod create;
pub(crate) mod refusals;

use std::{path::Path, time::Duration};

use dispatcher_core::{contract::job::JobObject, request::error::CallError};
use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
    batch::v1::Job,
    core::v1::{Event, Namespace, Pod},
};
use kube::{
    Api, Client, Config, Resource, ResourceExt,
    api::{ApiResource, DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    config::{KubeConfigOptions, Kubeconfig},
    core::DynamicResourceScope,
};
use serde_json::Value;

use crate::retry::with_deadline;

/// The deadline of one call.
const DEADLINE: Duration = Duration::from_secs(10);

/// The error of a call.
pub(crate) fn call_error(error: kube::Error) -> CallError {
    match error {
        kube::Error::Api(status) => CallError::Status(status),
        other => CallError::Transport(chain(&other)),
    }
}

/// An error and its causes, on one line.
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

/// The result of a call within [`DEADLINE`].
pub(crate) async fn call<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, CallError> {
    call_within(DEADLINE, call).await
}

/// The result of a call within `deadline`.
pub(crate) async fn call_within<T>(
    deadline: Duration,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, CallError> {
    let result = with_deadline(deadline, call).await;
    result.map_err(|error| CallError::DeadlineExceeded(error.0))?.map_err(call_error)
}

/// A client of the cluster of the file `kubeconfig`. Without a file: of `KUBECONFIG`, of
/// `~/.kube/config`, or of the cluster that the pod runs in.
///
/// # Errors
/// If no configuration is found or it is unreadable.
pub(crate) async fn connect(kubeconfig: Option<&Path>) -> Result<Client, String> {
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
    // The watch and its lists bypass `call`. The server ends a healthy watch after 20 s.
    config.read_timeout = Some(Duration::from_secs(28));
    config.reset_reader_on_write = true;
    Client::try_from(config).map_err(|e| chain(&e))
}

/// Calls on the Jobs of one namespace.
#[derive(Clone)]
pub(crate) struct JobClient {
    client: Client,
    api: Api<JobObject>,
    namespace: String,
}

impl JobClient {
    /// Calls on the Jobs of `namespace`.
    pub(crate) fn new(client: Client, namespace: &str) -> Self {
        let api = Api::namespaced_with(client.clone(), namespace, &ApiResource::erase::<Job>(&()));
        Self { client, api, namespace: namespace.to_owned() }
    }

    /// The API of the Jobs, for the watch.
    pub(crate) fn api(&self) -> Api<JobObject> {
        self.api.clone()
    }

    /// The client.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// The API of the pods, for their logs.
    pub(crate) fn logs(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The API of the pods, for the watch. `K` is the part of a pod that it decodes.
    pub(crate) fn pods<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = ApiResource, Scope = DynamicResourceScope>,
    {
        Api::namespaced_with(self.client.clone(), &self.namespace, &ApiResource::erase::<Pod>(&()))
    }

    /// The API of the Kubernetes Events, for the watch.
    pub(crate) fn events(&self) -> Api<Event> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The namespace.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The Job of that name, if it exists.
    ///
    /// # Errors
    /// [`CallError`], except a 404.
    pub(crate) async fn get(&self, name: &str) -> Result<Option<JobObject>, CallError> {
        call(self.api.get_opt(name)).await
    }

    /// Applies a JSON merge patch (RFC 7386). With `metadata.uid` in the patch, the API server
    /// refuses to change another Job of that name.
    ///
    /// # Errors
    /// [`CallError`].
    pub(crate) async fn patch(&self, name: &str, patch: &Value) -> Result<JobObject, CallError> {
        call(self.api.patch(name, &PatchParams::default(), &Patch::Merge(patch))).await
    }

    /// Deletes a Job if it has this uid and version, and its pods in the background.
    /// Returns whether it is gone; otherwise a finalizer holds it.
    ///
    /// # Errors
    /// [`CallError`]: 404 if the Job does not exist, 409 if it has another uid or version.
    pub(crate) async fn delete(
        &self,
        name: &str,
        uid: &str,
        resource_version: u64,
    ) -> Result<bool, CallError> {
        let preconditions =
            Preconditions { uid: Some(uid.to_owned()), resource_version: Some(resource_version.to_string()) };
        let params = DeleteParams::background().preconditions(preconditions);
        // The API server answers with the object while a finalizer holds it, and otherwise with a
        // status.
        call(self.api.delete(name, &params)).await.map(|answer| answer.is_right())
    }

    /// The uid of the namespace.
    ///
    /// # Errors
    /// [`CallError`]: 404 if the namespace does not exist.
    pub(crate) async fn namespace_uid(&self) -> Result<String, CallError> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let namespace = call(namespaces.get(&self.namespace)).await?;
        namespace.uid().ok_or_else(|| CallError::Transport("the namespace has no uid".to_owned()))
    }

    /// Whether RBAC permits `verb` on the Jobs of the namespace (`SelfSubjectAccessReview`).
    ///
    /// # Errors
    /// [`CallError`].
    pub(crate) async fn may(&self, verb: &str) -> Result<bool, CallError> {
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
        let answer = call(api.create(&PostParams::default(), &review)).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}
