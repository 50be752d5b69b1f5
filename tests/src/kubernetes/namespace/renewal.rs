//! Deletes a namespace and creates it again under the same name.

use k8s_openapi::api::core::v1;
use kube::Api;
use kube::api::DeleteParams;

use super::{Namespace, apply, wait_for_permissions};
use crate::wait::{TIMEOUT, until};

impl Namespace {
    /// Starts the deletion of the namespace and everything in it.
    pub async fn delete(&self) {
        let namespaces: Api<v1::Namespace> = Api::all(self.client.clone());
        namespaces.delete(&self.name, &DeleteParams::default()).await.expect("the namespace exists");
    }

    /// Waits until it is deleted, then creates it and its RBAC objects again.
    ///
    /// # Panics
    /// If that fails.
    pub async fn recreate(&self) {
        let namespaces: Api<v1::Namespace> = Api::all(self.client.clone());
        until(&format!("the deletion of namespace {}", self.name), TIMEOUT, || async {
            match namespaces.get_opt(&self.name).await {
                Ok(None) => Ok(()),
                other => Err(format!("{:?}", other.map(|found| found.and_then(|found| found.status)))),
            }
        })
        .await;
        for object in &self.objects {
            apply(&self.client, object).await.expect("the object is applied");
        }
        wait_for_permissions(&self.dispatcher_kubeconfig, &self.name)
            .await
            .expect("the permissions are granted");
    }
}
