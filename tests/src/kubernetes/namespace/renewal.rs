//! A namespace that is deleted, and made again under its name.

use k8s_openapi::api::core::v1;
use kube::Api;
use kube::api::DeleteParams;

use super::{Namespace, apply, wait_for_permissions};
use crate::wait::{TIMEOUT, until};

impl Namespace {
    /// Deletes it with all that is in it; it terminates from now on.
    pub async fn delete(&self) {
        let namespaces: Api<v1::Namespace> = Api::all(self.client.clone());
        namespaces.delete(&self.name, &DeleteParams::default()).await.expect("it is there");
    }

    /// Waits until it is gone, and makes it again with its access rules: another namespace of the same name.
    ///
    /// # Panics
    /// Where that fails.
    pub async fn make_again(&self) {
        let namespaces: Api<v1::Namespace> = Api::all(self.client.clone());
        until(&format!("the end of namespace {}", self.name), TIMEOUT, || async {
            match namespaces.get_opt(&self.name).await {
                Ok(None) => Ok(()),
                other => Err(format!("{:?}", other.map(|found| found.and_then(|found| found.status)))),
            }
        })
        .await;
        for object in &self.objects {
            apply(&self.client, object).await.expect("it was applied before");
        }
        wait_for_permissions(&self.dispatcher_kubeconfig, &self.name)
            .await
            .expect("its rights were there before");
    }
}
