//! The permissions of a namespace's accounts: those of `deploy/`, and revoking single ones.

use k8s_openapi::api::rbac::v1::{PolicyRule, Role};
use kube::Api;
use kube::api::PostParams;
use local_cluster::Faults;
use local_cluster::faults::Calls;
use serde_json::Value;

use super::{DISPATCHER, Namespace};

/// How a permission is revoked.
pub(super) enum Permissions {
    /// By changing the dispatcher's Role in this namespace.
    Role(Box<Api<Role>>),
    /// The local cluster has no RBAC; a fault stands for the missing permission.
    Faults(Faults),
}

impl Namespace {
    /// The namespaces and RBAC objects of `deploy/`, under the names of this test.
    #[must_use]
    pub fn objects(&self) -> &[Value] {
        &self.objects
    }

    /// The API server's user name of a `ServiceAccount` of `deploy/`: `dispatcher` or `job`.
    ///
    /// # Panics
    /// If there is none, as on the local cluster.
    #[must_use]
    pub fn user_of(&self, account: &str) -> String {
        let of_it =
            |object: &&Value| object["kind"] == "ServiceAccount" && object["metadata"]["name"] == account;
        let object = self.objects.iter().find(of_it).expect("the ServiceAccount exists");
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
        format!("system:serviceaccount:{namespace}:{account}")
    }

    /// Revokes the dispatcher's permission for `verb` on Jobs.
    pub async fn revoke(&self, verb: &str) {
        self.revoke_on(verb, "jobs").await;
    }

    /// Grants it again.
    pub async fn grant(&self, verb: &str) {
        self.grant_on(verb, "jobs").await;
    }

    /// Revokes the dispatcher's permission for `verb` on a resource: `jobs`, `leases`.
    pub async fn revoke_on(&self, verb: &str, resource: &str) {
        match &self.permissions {
            Permissions::Faults(faults) => faults.deny(Calls::of(verb, resource).within(&self.name)),
            Permissions::Role(roles) => {
                self.change_verbs(roles, resource, |verbs| verbs.retain(|known| known != verb)).await;
            }
        }
    }

    /// Grants it again.
    pub async fn grant_on(&self, verb: &str, resource: &str) {
        match &self.permissions {
            Permissions::Faults(faults) => faults.allow(&Calls::of(verb, resource).within(&self.name)),
            Permissions::Role(roles) => {
                self.change_verbs(roles, resource, |verbs| verbs.push(verb.to_owned())).await;
            }
        }
    }

    /// Changes the last rule of the resource: the first one may be without resource names.
    async fn change_verbs(&self, roles: &Api<Role>, resource: &str, change: impl FnOnce(&mut Vec<String>)) {
        let mut role = roles.get(DISPATCHER).await.expect("the dispatcher's Role exists");
        let rules = role.rules.iter_mut().flatten();
        let of_it = |rule: &&mut PolicyRule| rule.resources.iter().flatten().any(|known| known == resource);
        change(&mut rules.filter(of_it).last().expect("a rule names the resource").verbs);
        role.metadata.managed_fields = None;
        roles.replace(DISPATCHER, &PostParams::default(), &role).await.expect("the Role is replaced");
    }
}
