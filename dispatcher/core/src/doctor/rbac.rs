//! The permissions in Kubernetes: the ones in use, as `deploy/base/rbac.yaml` grants them, and some
//! that the dispatcher should not have.

use k8s_openapi::api::authorization::v1::ResourceRule;

use crate::doctor::{Finding, Section, Severity, links};

const S: Section = Section::KubernetesPermissions;

/// Verbs on a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// The resource with its subresource, as in rules: `pods/log`.
    pub resource: &'static str,
    /// The verbs.
    pub verbs: &'static [&'static str],
    /// The objects.
    pub objects: Objects,
    /// What the dispatcher does not do without them; `None` if it does not work.
    pub effect: Option<&'static str>,
}

/// The objects that a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Objects {
    /// All of the namespace of the Jobs.
    OfJobs,
    /// The namespace of the Jobs itself.
    Namespace,
    /// All of the namespace of the Lease.
    OfLease,
    /// The Lease.
    Lease,
    /// All of the namespace of the Jobs, if templates can be objects.
    Templates,
    /// All of the namespace of the Jobs, with `DISPATCHER_KUEUE`.
    Kueue,
}

const fn rule(group: &'static str, resource: &'static str, verbs: &'static [&'static str]) -> Rule {
    Rule { group, resource, verbs, objects: Objects::OfJobs, effect: None }
}

/// The permissions in use. A test compares them with `deploy/`.
pub const RULES: [Rule; 11] = [
    rule("batch", "jobs", &["create", "delete", "get", "list", "patch", "watch"]),
    rule("", "pods", &["list", "watch"]),
    rule("", "events", &["list", "watch"]),
    Rule {
        effect: Some("changes of Jobs that a policy refuses are not reported as Kubernetes Events"),
        ..rule("", "events", &["create"])
    },
    Rule { effect: Some("outcomes have no log tails"), ..rule("", "pods/log", &["get"]) },
    Rule { objects: Objects::Namespace, ..rule("", "namespaces", &["get"]) },
    Rule { objects: Objects::OfLease, ..rule("coordination.k8s.io", "leases", &["create"]) },
    Rule { objects: Objects::Lease, ..rule("coordination.k8s.io", "leases", &["get", "update"]) },
    Rule {
        objects: Objects::Templates,
        ..rule("natsjobs.dev", "jobtemplates", &["get", "list", "patch", "watch"])
    },
    Rule {
        objects: Objects::Templates,
        effect: Some("the status of JobTemplates is not reported"),
        ..rule("natsjobs.dev", "jobtemplates/status", &["patch"])
    },
    Rule {
        objects: Objects::Kueue,
        effect: Some("Kueue's reason for a suspended Job is not published"),
        ..rule("kueue.x-k8s.io", "workloads", &["list", "watch"])
    },
];

/// One verb on one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    /// The rule.
    pub rule: Rule,
    /// The verb.
    pub verb: &'static str,
    /// The namespace.
    pub namespace: String,
    /// The object, if the rule names one.
    pub name: Option<String>,
}

/// Where the dispatcher works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The namespace of the Jobs.
    pub namespace: String,
    /// The namespace of the Lease.
    pub lease_namespace: String,
    /// The name of the Lease.
    pub lease: String,
    /// Whether templates can be objects.
    pub job_templates: bool,
    /// Whether the Workloads of Kueue are read.
    pub kueue: bool,
}

/// The permissions that a dispatcher of this place uses.
#[must_use]
pub fn permissions(place: &Place) -> Vec<Permission> {
    let rules = RULES.iter().filter(|rule| match rule.objects {
        Objects::Templates => place.job_templates,
        Objects::Kueue => place.kueue,
        _ => true,
    });
    let of_rule = |rule: &'static Rule| {
        let (namespace, name) = match rule.objects {
            Objects::OfJobs | Objects::Templates | Objects::Kueue => (&place.namespace, None),
            Objects::Namespace => (&place.namespace, Some(place.namespace.clone())),
            Objects::OfLease => (&place.lease_namespace, None),
            Objects::Lease => (&place.lease_namespace, Some(place.lease.clone())),
        };
        let permission = move |verb: &&'static str| Permission {
            rule: *rule,
            verb,
            namespace: namespace.clone(),
            name: name.clone(),
        };
        rule.verbs.iter().map(permission)
    };
    rules.flat_map(of_rule).collect()
}

/// What the API server says about a permission (`SelfSubjectAccessReview`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Granted.
    Allowed,
    /// Not granted.
    Denied,
    /// No answer, or an error.
    Unknown(String),
}

/// The findings about the permissions in use.
#[must_use]
pub fn findings(reviews: &[(Permission, Access)]) -> Vec<Finding> {
    let allowed = reviews.iter().filter(|(_, access)| *access == Access::Allowed).count();
    let mut found = vec![];
    if allowed > 0 {
        found.push(S.ok("Role", format!("{allowed} of {} permissions are granted", reviews.len())));
    }
    let denied = reviews.iter().filter(|(_, access)| *access == Access::Denied);
    found.extend(denied.map(|(permission, _)| denied_finding(permission)));
    let unknown: Vec<_> = reviews
        .iter()
        .filter_map(|(permission, access)| match access {
            Access::Unknown(error) => Some((permission, error)),
            _ => None,
        })
        .collect();
    if let Some((permission, error)) = unknown.first() {
        let message = format!("{} permissions were not checked, the first because: {error}", unknown.len());
        found.push(S.skipped(label(permission), message));
    }
    found
}

fn label(permission: &Permission) -> String {
    let Permission { rule, verb, namespace, name } = permission;
    let group = if rule.group.is_empty() { String::new() } else { format!(".{}", rule.group) };
    let name = name.as_ref().map(|name| format!(" named {name}")).unwrap_or_default();
    format!("{verb} {}{group}{name} in {namespace}", rule.resource)
}

fn denied_finding(permission: &Permission) -> Finding {
    let Permission { rule, verb, namespace, .. } = permission;
    let (severity, message) = match rule.effect {
        None => (Severity::Error, "is not granted".to_owned()),
        Some(effect) => (Severity::Warning, format!("is not granted: {effect}")),
    };
    let file = match rule.objects {
        Objects::Templates => "deploy/base/job-templates.yaml",
        Objects::Kueue => "deploy/kueue/kueue.yaml",
        _ => "deploy/base/rbac.yaml",
    };
    let advice = format!(
        "add the verb {verb} on {} (API group {:?}) to the Role of the dispatcher in the namespace {namespace}, \
         as in {file}",
        rule.resource, rule.group
    );
    S.finding(severity, label(permission), message).advise(advice).see(links::RBAC)
}

/// Permissions that let a dispatcher harm others. None of them is used.
const EXCESS: [(&str, &str, &[&str], &str); 6] = [
    ("", "secrets", &["get", "list", "watch"], "read Secrets"),
    ("", "pods/exec", &["create", "get"], "run commands in pods"),
    ("", "pods", &["create"], "create pods, which no admission policy of the dispatcher checks"),
    ("", "serviceaccounts/token", &["create"], "create tokens of ServiceAccounts"),
    ("rbac.authorization.k8s.io", "roles", &["bind", "create", "escalate", "update"], "change permissions"),
    ("rbac.authorization.k8s.io", "rolebindings", &["create", "update"], "grant permissions"),
];

/// The findings about permissions that the dispatcher should not have, from a
/// `SelfSubjectRulesReview` of the namespace.
#[must_use]
pub fn excess(rules: &[ResourceRule]) -> Vec<Finding> {
    let granted = |(group, resource, verbs, _): &&(&str, &str, &[&str], &str)| {
        rules.iter().any(|rule| covers(rule, group, resource, verbs))
    };
    let found = EXCESS.iter().filter(granted).map(|(_, resource, _, what)| {
        let advice = format!(
            "run the dispatcher with a ServiceAccount of its own, whose Role is deploy/base/rbac.yaml and does \
             not contain {resource}"
        );
        S.warning("excess permissions", format!("this account may {what}")).advise(advice).see(links::RBAC)
    });
    let found: Vec<_> = found.collect();
    if found.is_empty() { vec![S.ok("excess permissions", "none found in this namespace")] } else { found }
}

fn covers(rule: &ResourceRule, group: &str, resource: &str, verbs: &[&str]) -> bool {
    let has = |list: &[String], wanted: &str| list.iter().any(|known| known == wanted || known == "*");
    has(rule.api_groups.as_deref().unwrap_or_default(), group)
        && has(rule.resources.as_deref().unwrap_or_default(), resource)
        && rule.resource_names.as_deref().unwrap_or_default().is_empty()
        && verbs.iter().any(|verb| has(&rule.verbs, verb))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    type Granted = BTreeSet<(String, String, String, Option<String>)>;

    /// The permissions of the shipped Roles.
    fn shipped() -> Granted {
        let texts = [
            include_str!("../../../../deploy/base/rbac.yaml"),
            include_str!("../../../../deploy/base/job-templates.yaml"),
            include_str!("../../../../deploy/kueue/kueue.yaml"),
        ];
        let documents = texts.iter().flat_map(|text| serde_saphyr::from_multiple::<Value>(text).unwrap());
        let roles = documents.filter(|document| document["kind"] == "Role");
        let list = |value: &Value| -> Vec<String> {
            value.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
        };
        let mut granted = Granted::new();
        for rule in roles.flat_map(|role| role["rules"].as_array().unwrap().clone()) {
            let names = list(&rule["resourceNames"]);
            let name = names.first().cloned();
            assert!(names.len() < 2, "{rule}");
            for group in list(&rule["apiGroups"]) {
                for resource in list(&rule["resources"]) {
                    let verbs = list(&rule["verbs"]);
                    granted.extend(
                        verbs.into_iter().map(|verb| (group.clone(), resource.clone(), verb, name.clone())),
                    );
                }
            }
        }
        granted
    }

    fn place() -> Place {
        Place {
            namespace: "jobs".to_owned(),
            lease_namespace: "jobs".to_owned(),
            lease: "dispatcher".to_owned(),
            job_templates: true,
            kueue: true,
        }
    }

    #[test]
    fn checked_permissions_are_those_of_the_shipped_roles() {
        let checked: Granted = permissions(&place())
            .into_iter()
            .map(|Permission { rule, verb, name, .. }| {
                (rule.group.to_owned(), rule.resource.to_owned(), verb.to_owned(), name)
            })
            .collect();
        assert_eq!(checked, shipped());
        let without_objects = permissions(&Place { job_templates: false, ..place() });
        assert!(without_objects.iter().all(|permission| permission.rule.group != "natsjobs.dev"));
        let without_kueue = permissions(&Place { kueue: false, ..place() });
        assert!(without_kueue.iter().all(|permission| permission.rule.group != "kueue.x-k8s.io"));
    }

    fn denied(resource: &str, verb: &str) -> Finding {
        let reviews: Vec<_> = permissions(&place())
            .into_iter()
            .map(|permission| {
                let is_it = permission.rule.resource == resource && permission.verb == verb;
                (permission, if is_it { Access::Denied } else { Access::Allowed })
            })
            .collect();
        let mut found = findings(&reviews);
        assert_eq!(found.len(), 2, "{found:?}");
        found.remove(1)
    }

    #[test]
    fn missing_verb_is_named_with_its_role() {
        let patch = denied("jobs", "patch");
        assert_eq!((patch.severity, patch.subject.as_str()), (Severity::Error, "patch jobs.batch in jobs"));
        let advice = patch.advice.unwrap();
        assert!(advice.contains("add the verb patch on jobs") && advice.contains("rbac.yaml"), "{advice}");
        assert_eq!(
            denied("leases", "update").subject,
            "update leases.coordination.k8s.io named dispatcher in jobs"
        );
        assert!(denied("jobtemplates", "list").advice.unwrap().contains("job-templates.yaml"));
        assert!(denied("workloads", "list").advice.unwrap().contains("kueue.yaml"));
    }

    #[test]
    fn verb_that_only_adds_details_is_a_warning() {
        let log = denied("pods/log", "get");
        assert_eq!(log.severity, Severity::Warning);
        assert!(log.message.contains("no log tails"));
    }

    #[test]
    fn unanswered_reviews_are_one_skipped_check() {
        let reviews: Vec<_> = permissions(&place())
            .into_iter()
            .map(|permission| (permission, Access::Unknown("no answer within 4 s".to_owned())))
            .collect();
        let found = findings(&reviews);
        assert_eq!((found.len(), found[0].severity), (1, Severity::Skipped));
    }

    #[test]
    fn excess_permissions_are_warnings_also_by_wildcards() {
        let rule = |group: &str, resource: &str, verb: &str, names: &[&str]| ResourceRule {
            api_groups: Some(vec![group.to_owned()]),
            resources: Some(vec![resource.to_owned()]),
            verbs: vec![verb.to_owned()],
            resource_names: Some(names.iter().map(ToString::to_string).collect()),
        };
        assert_eq!(excess(&[rule("batch", "jobs", "create", &[])])[0].severity, Severity::Ok);
        let secrets = excess(&[rule("", "secrets", "get", &[])]);
        assert!(secrets.len() == 1 && secrets[0].message.ends_with("may read Secrets"), "{secrets:?}");
        assert_eq!(excess(&[rule("", "secrets", "get", &["one"])])[0].severity, Severity::Ok, "one object");
        assert_eq!(excess(&[rule("*", "*", "*", &[])]).len(), EXCESS.len());
    }
}
