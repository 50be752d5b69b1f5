//! What the accounts of a namespace may do: as `deploy/` gives it, and with a right less.

use k8s_openapi::api::rbac::v1::{PolicyRule, Role};
use kube::Api;
use kube::api::PostParams;
use local_cluster::Faults;
use local_cluster::faults::Calls;
use serde_json::Value;

use super::{DISPATCHER, Namespace};

/// How rights are taken away.
pub(super) enum Permissions {
    /// The Role of the dispatcher in this namespace.
    Role(Box<Api<Role>>),
    /// The local cluster knows no rights: it plays a right that is missing.
    Faults(Faults),
}

impl Namespace {
    /// The namespaces and the access rules of `deploy/`, under this test's names.
    #[must_use]
    pub fn objects(&self) -> &[Value] {
        &self.objects
    }

    /// A ServiceAccount of `deploy/`, `dispatcher` or `job`, as the API server names its user.
    ///
    /// # Panics
    /// Where there is none, as on the local cluster.
    #[must_use]
    pub fn user_of(&self, account: &str) -> String {
        let of_it =
            |object: &&Value| object["kind"] == "ServiceAccount" && object["metadata"]["name"] == account;
        let object = self.objects.iter().find(of_it).expect("a ServiceAccount of that name");
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
        format!("system:serviceaccount:{namespace}:{account}")
    }

    /// Takes from the dispatcher the right to do `verb` to Jobs.
    pub async fn take_right(&self, verb: &str) {
        self.take_right_to(verb, "jobs").await;
    }

    /// Gives it back.
    pub async fn give_right(&self, verb: &str) {
        self.give_right_to(verb, "jobs").await;
    }

    /// Takes from the dispatcher the right to do `verb` to a resource: `jobs`, `leases`.
    pub async fn take_right_to(&self, verb: &str, resource: &str) {
        match &self.permissions {
            Permissions::Faults(faults) => faults.deny(Calls::of(verb, resource).within(&self.name)),
            Permissions::Role(roles) => {
                self.change_verbs(roles, resource, |verbs| verbs.retain(|known| known != verb)).await;
            }
        }
    }

    /// Gives it back.
    pub async fn give_right_to(&self, verb: &str, resource: &str) {
        match &self.permissions {
            Permissions::Faults(faults) => faults.allow(&Calls::of(verb, resource).within(&self.name)),
            Permissions::Role(roles) => {
                self.change_verbs(roles, resource, |verbs| verbs.push(verb.to_owned())).await;
            }
        }
    }

    /// Changes the last rule of the resource; a first one may be of what cannot be restricted to a name.
    async fn change_verbs(&self, roles: &Api<Role>, resource: &str, change: impl FnOnce(&mut Vec<String>)) {
        let mut role = roles.get(DISPATCHER).await.expect("the Role of the dispatcher");
        let rules = role.rules.iter_mut().flatten();
        let of_it = |rule: &&mut PolicyRule| rule.resources.iter().flatten().any(|known| known == resource);
        change(&mut rules.filter(of_it).last().expect("a rule of the resource").verbs);
        role.metadata.managed_fields = None;
        roles.replace(DISPATCHER, &PostParams::default(), &role).await.expect("the Role can be changed");
    }
}
