//! A namespace for one test, with the objects of `deploy/` that Jobs and the dispatcher need.

mod rbac;
mod renewal;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::config::Kubeconfig;
use kube::discovery::ApiResource;
use kube::{Api, Client};
use serde_json::{Value, json};

use self::rbac::Permissions;
use super::{Kubernetes, Local};
use crate::paths;
use crate::wait::{TIMEOUT, try_until};

/// The namespace of the Jobs in `deploy/`.
const JOBS: &str = "jobs";
/// The namespace and the `ServiceAccount` of the dispatcher in `deploy/`.
const DISPATCHER: &str = "dispatcher";
/// Longer than any test.
const TOKEN_SECONDS: i64 = 6 * 3600;

/// A new namespace for Jobs, and another one for the dispatcher.
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// A kubeconfig with the token of the dispatcher's `ServiceAccount`.
    pub dispatcher_kubeconfig: PathBuf,
    /// The Jobs of the namespace, as an administrator.
    pub jobs: Api<Job>,
    /// The pods of the namespace, as an administrator.
    pub pods: Api<Pod>,
    /// A client of an administrator.
    pub client: Client,
    permissions: Permissions,
    names: Names,
    /// The objects that it was created from.
    objects: Vec<Value>,
    remove: Option<Removal>,
    _folder: tempfile::TempDir,
}

/// The namespaces to delete if the cluster outlives the test.
#[derive(Debug)]
struct Removal {
    kubeconfig: PathBuf,
    objects: Vec<String>,
}

impl Namespace {
    pub(super) async fn create(kubernetes: &Kubernetes) -> Result<Self, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let suffix = format!("{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let names = Names { suffix };
        let client = kubernetes.client();
        if let Some(local) = kubernetes.local() {
            return Self::create_local(kubernetes, local, client, names).await;
        }
        let mut made = Vec::new();
        let objects = names.objects()?;
        for object in &objects {
            apply(&client, object).await?;
            let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
            if object["metadata"]["namespace"].is_null() {
                let kind = object["kind"].as_str().unwrap_or_default().to_lowercase();
                made.push(format!("{kind}/{}", text("name")));
            }
        }
        let name = names.fresh(JOBS);
        let folder = kubernetes.temp_dir()?;
        let token = token(&client, &names.fresh(DISPATCHER)).await?;
        let dispatcher_kubeconfig = folder.path().join("dispatcher.kubeconfig");
        write_kubeconfig(kubernetes.kubeconfig_path(), &dispatcher_kubeconfig, &token, &name)?;
        wait_for_default_account(&client, &name).await?;
        wait_for_permissions(&dispatcher_kubeconfig, &name).await?;
        Ok(Self {
            jobs: Api::namespaced(client.clone(), &name),
            pods: Api::namespaced(client.clone(), &name),
            permissions: Permissions::Role(Box::new(Api::namespaced(client.clone(), &name))),
            client,
            name,
            dispatcher_kubeconfig,
            names,
            objects,
            remove: kubernetes
                .outlives_us()
                .then(|| Removal { kubeconfig: kubernetes.kubeconfig_path().to_owned(), objects: made }),
            _folder: folder,
        })
    }

    /// The local cluster has no RBAC.
    async fn create_local(
        kubernetes: &Kubernetes,
        local: &Local,
        client: Client,
        names: Names,
    ) -> Result<Self, String> {
        let name = names.fresh(JOBS);
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        apply(&client, &namespace).await?;
        let folder = kubernetes.temp_dir()?;
        let dispatcher_kubeconfig = folder.path().join("dispatcher.kubeconfig");
        local.write_kubeconfig(&dispatcher_kubeconfig, &name)?;
        Ok(Self {
            jobs: Api::namespaced(client.clone(), &name),
            pods: Api::namespaced(client.clone(), &name),
            permissions: Permissions::Faults(local.faults()),
            client,
            name,
            dispatcher_kubeconfig,
            names,
            objects: vec![namespace],
            remove: None,
            _folder: folder,
        })
    }
}

impl Namespace {
    /// Creates further objects of `deploy/`, under the names of this test.
    pub async fn apply(&self, path: &Path) -> Result<(), String> {
        for mut object in read(path)? {
            self.names.rename(&mut object);
            apply(&self.client, &object).await?;
        }
        Ok(())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let Some(removal) = &self.remove else { return };
        let mut command = super::kubectl(&removal.kubeconfig);
        command.args(["delete", "--wait=false", "--ignore-not-found"]).args(&removal.objects);
        let _ = command.output();
    }
}

/// The names that replace those of `deploy/` in one test.
struct Names {
    suffix: String,
}

impl Names {
    fn fresh(&self, name: &str) -> String {
        format!("{name}-{}", self.suffix)
    }

    /// The namespaces and RBAC objects of `deploy/` under new names.
    fn objects(&self) -> Result<Vec<Value>, String> {
        let base = paths::workspace().join("deploy/base");
        let mut objects = Vec::new();
        let namespaces = base.join("namespaces.yaml");
        if namespaces.exists() {
            objects.extend(read(&namespaces)?);
        }
        for name in [JOBS, DISPATCHER] {
            if !objects.iter().any(|object| object["metadata"]["name"] == name) {
                let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
                objects.push(namespace);
            }
        }
        objects.extend(read(&base.join("rbac.yaml"))?);
        objects.extend(read(&base.join("job-templates.yaml"))?);
        objects.iter_mut().for_each(|object| self.rename(object));
        Ok(objects)
    }

    /// Renames the names and namespaces of `deploy/`. Uses `get_mut`, since an index would insert.
    fn rename(&self, object: &mut Value) {
        if let Some(metadata) = object.get_mut("metadata") {
            match metadata.get_mut("namespace") {
                Some(namespace) => self.replace(namespace),
                // Cluster-scoped: no other test may use the name.
                None => metadata["name"] = self.fresh(metadata["name"].as_str().unwrap_or_default()).into(),
            }
        }
        for subject in list(object.get_mut("subjects")) {
            subject.get_mut("namespace").into_iter().for_each(|namespace| self.replace(namespace));
        }
        if let Some(role) = object.get_mut("roleRef").filter(|role| role["kind"] == "ClusterRole") {
            role["name"] = self.fresh(role["name"].as_str().unwrap_or_default()).into();
        }
        for rule in list(object.get_mut("rules")) {
            if rule["resources"].as_array().is_some_and(|all| all.contains(&json!("namespaces"))) {
                list(rule.get_mut("resourceNames")).for_each(|name| self.replace(name));
            }
        }
    }

    fn replace(&self, name: &mut Value) {
        if let Some(text @ (JOBS | DISPATCHER)) = name.as_str() {
            *name = self.fresh(text).into();
        }
    }
}

/// The elements of a list that may be absent.
fn list(value: Option<&mut Value>) -> impl Iterator<Item = &mut Value> {
    value.and_then(Value::as_array_mut).into_iter().flatten()
}

fn read(path: &Path) -> Result<Vec<Value>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).map_err(|error| failed(&error))?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

async fn apply(client: &Client, object: &Value) -> Result<(), String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
    let (group, version) = version.split_once('/').unwrap_or(("", &version));
    let resource = ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk(group, version, &kind));
    let api: Api<DynamicObject> = match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let name = text(&object["metadata"]["name"]);
    let parameters = PatchParams::apply("dispatcher-tests").force();
    let applied = api.patch(&name, &parameters, &Patch::Apply(object)).await;
    applied.map(drop).map_err(|error| format!("applying {kind} {name}: {error}"))
}

async fn token(client: &Client, namespace: &str) -> Result<String, String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let spec = TokenRequestSpec { expiration_seconds: Some(TOKEN_SECONDS), ..Default::default() };
    let request = TokenRequest { spec, ..Default::default() };
    let answer = accounts.create_token_request(DISPATCHER, &PostParams::default(), &request).await;
    let answer = answer.map_err(|error| format!("token of {DISPATCHER} in {namespace}: {error}"))?;
    answer.status.map(|status| status.token).ok_or("the answer to the token request has no status".to_owned())
}

/// The administrator's kubeconfig with the user replaced by a token.
fn write_kubeconfig(admin: &Path, path: &Path, token: &str, namespace: &str) -> Result<(), String> {
    let admin = Kubeconfig::read_from(admin).map_err(|error| format!("{}: {error}", admin.display()))?;
    let current = admin.current_context.clone().unwrap_or_default();
    let context = admin.contexts.iter().find(|context| context.name == current);
    let cluster_name =
        context.and_then(|context| context.context.as_ref()).map(|context| context.cluster.clone());
    let cluster = admin.clusters.iter().find(|cluster| Some(&cluster.name) == cluster_name.as_ref());
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "dispatcher",
        "clusters": [{"name": "cluster", "cluster": cluster.and_then(|cluster| cluster.cluster.as_ref())}],
        "users": [{"name": "dispatcher", "user": {"token": token}}],
        "contexts": [{"name": "dispatcher",
                      "context": {"cluster": "cluster", "user": "dispatcher", "namespace": namespace}}],
    });
    std::fs::write(path, kubeconfig.to_string()).map_err(|error| format!("{}: {error}", path.display()))
}

/// A busy API server applies a stored Role only after some time.
async fn wait_for_permissions(kubeconfig: &Path, namespace: &str) -> Result<(), String> {
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(super::ready::client(kubeconfig)?);
    let what = format!("the dispatcher's permissions in {namespace}");
    try_until(&what, TIMEOUT, || async { namespaces.get(namespace).await.map(drop) }).await
}

/// A namespace refuses pods until its controller has created the `ServiceAccount` `default`.
async fn wait_for_default_account(client: &Client, namespace: &str) -> Result<(), String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let what = format!("the ServiceAccount default in {namespace}");
    try_until(&what, TIMEOUT, || async { accounts.get("default").await.map(drop) }).await
}
