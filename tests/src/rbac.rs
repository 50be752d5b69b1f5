//! Compares the permissions that RBAC objects grant with those that an audit log shows as used.
//! Pure.
//!
//! Names are compared literally: no call uses a `*` of a rule, so a wildcard is reported as unused.

use std::collections::BTreeSet;
use std::fmt;

use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::Value;

/// One verb on one resource, perhaps limited to one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Permission {
    /// The API group; empty for the core group.
    pub group: String,
    /// The resource with its subresource, as in rules: `pods/log`. For other requests, the path.
    pub resource: String,
    /// The verb.
    pub verb: String,
    /// The object; `None` for any.
    pub name: Option<String>,
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, resource, verb, name } = self;
        write!(f, "{verb} {resource}")?;
        if !group.is_empty() {
            write!(f, ".{group}")?;
        }
        name.iter().try_for_each(|name| write!(f, " named {name}"))
    }
}

/// One request in the audit log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// The permission that it needs; with the object's name if the request named one.
    pub permission: Permission,
    /// Whether the API server authorized it.
    pub allowed: bool,
}

/// The difference between granted and used permissions.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Granted, but not used by any call.
    pub unused: BTreeSet<Permission>,
    /// Used and authorized, but not granted by these objects.
    pub not_granted: BTreeSet<Permission>,
    /// Used, but refused.
    pub refused: BTreeSet<Permission>,
}

/// The permissions of all Roles and `ClusterRoles` among these objects.
///
/// # Errors
/// If a rule cannot be parsed or is about paths.
pub fn granted(objects: &[Value]) -> Result<BTreeSet<Permission>, String> {
    let mut permissions = BTreeSet::new();
    for object in objects.iter().filter(|object| object["kind"] == "Role" || object["kind"] == "ClusterRole")
    {
        let what = object["metadata"]["name"].to_string();
        let rules: Vec<PolicyRule> =
            serde_json::from_value(object["rules"].clone()).map_err(|error| format!("{what}: {error}"))?;
        for rule in rules {
            if rule.non_resource_urls.is_some() {
                return Err(format!("{what}: rules about paths are not supported"));
            }
            permissions.extend(of_rule(&rule));
        }
    }
    Ok(permissions)
}

fn of_rule(rule: &PolicyRule) -> Vec<Permission> {
    // An absent or empty list of names permits any name.
    let names = rule.resource_names.iter().flatten().cloned().map(Some).collect::<Vec<_>>();
    let names = if names.is_empty() { vec![None] } else { names };
    let mut permissions = vec![];
    for group in rule.api_groups.iter().flatten() {
        for resource in rule.resources.iter().flatten() {
            for verb in &rule.verbs {
                permissions.extend(names.iter().map(|name| Permission {
                    group: group.clone(),
                    resource: resource.clone(),
                    verb: verb.clone(),
                    name: name.clone(),
                }));
            }
        }
    }
    permissions
}

/// The calls of `user` in an audit log (one JSON object per line). Ignores an incomplete last line.
///
/// # Errors
/// If a line is not an audit event.
pub fn calls(log: &str, user: &str) -> Result<BTreeSet<Call>, String> {
    let mut calls = BTreeSet::new();
    for line in log.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        let event: Value = serde_json::from_str(line).map_err(|error| format!("{line}: {error}"))?;
        if event["user"]["username"] == user {
            calls.insert(call(&event));
        }
    }
    Ok(calls)
}

fn call(event: &Value) -> Call {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let object = &event["objectRef"];
    let resource = match (text(&object["resource"]), text(&object["subresource"])) {
        (resource, _) if resource.is_empty() => text(&event["requestURI"]),
        (resource, sub) if sub.is_empty() => resource,
        (resource, sub) => format!("{resource}/{sub}"),
    };
    let permission = Permission {
        group: text(&object["apiGroup"]),
        resource,
        verb: text(&event["verb"]),
        name: object["name"].as_str().filter(|name| !name.is_empty()).map(str::to_owned),
    };
    Call { permission, allowed: event["annotations"]["authorization.k8s.io/decision"] == "allow" }
}

/// The difference. Calls that are not granted are reported without the object's name.
#[must_use]
pub fn compare(granted: &BTreeSet<Permission>, calls: &BTreeSet<Call>) -> Difference {
    let mut difference = Difference { unused: granted.clone(), ..Difference::default() };
    for Call { permission: needed, allowed } in calls {
        let mut covered = false;
        for permission in granted.iter().filter(|permission| covers(permission, needed)) {
            covered = true;
            if *allowed {
                difference.unused.remove(permission);
            }
        }
        let unnamed = Permission { name: None, ..needed.clone() };
        if !allowed {
            difference.refused.insert(unnamed);
        } else if !covered {
            difference.not_granted.insert(unnamed);
        }
    }
    difference
}

fn covers(permission: &Permission, needed: &Permission) -> bool {
    let what = |permission: &Permission| {
        (permission.group.clone(), permission.resource.clone(), permission.verb.clone())
    };
    what(permission) == what(needed) && (permission.name.is_none() || permission.name == needed.name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const USER: &str = "system:serviceaccount:dispatcher:dispatcher";

    fn permission(verb: &str, group: &str, resource: &str, name: Option<&str>) -> Permission {
        let [verb, group, resource] = [verb, group, resource].map(str::to_owned);
        Permission { group, resource, verb, name: name.map(str::to_owned) }
    }

    fn role(rules: Value) -> Vec<Value> {
        vec![
            json!({"kind": "ServiceAccount"}),
            json!({"kind": "Role", "metadata": {"name": "r"}, "rules": rules}),
        ]
    }

    /// An audit event as an API server writes it, without the fields that are not parsed.
    fn line(user: &str, verb: &str, object: &Value, decision: &str) -> String {
        let event = json!({"kind": "Event", "level": "Metadata", "stage": "ResponseComplete", "verb": verb,
            "requestURI": "/version", "user": {"username": user}, "objectRef": object,
            "annotations": {"authorization.k8s.io/decision": decision}});
        format!("{event}\n")
    }

    fn job(verb: &str) -> String {
        let jobs = json!({"resource": "jobs", "namespace": "jobs", "name": "a", "apiGroup": "batch", "apiVersion": "v1"});
        line(USER, verb, &jobs, "allow")
    }

    fn of(log: &str) -> BTreeSet<Call> {
        calls(log, USER).unwrap()
    }

    #[test]
    fn rule_grants_the_product_of_verbs_resources_and_names() {
        let permissions = granted(&role(json!([
            {"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get", "list"]},
            {"apiGroups": ["x"], "resources": ["leases"], "resourceNames": ["a", "b"], "verbs": ["get"]},
        ])));
        let expected = [
            permission("get", "", "pods", None),
            permission("list", "", "pods", None),
            permission("get", "", "pods/log", None),
            permission("list", "", "pods/log", None),
            permission("get", "x", "leases", Some("a")),
            permission("get", "x", "leases", Some("b")),
        ];
        assert_eq!(permissions, Ok(BTreeSet::from(expected)));
    }

    #[test]
    fn unsupported_rule_is_an_error() {
        assert!(granted(&role(json!([{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]))).is_err());
        assert!(granted(&role(json!("none"))).is_err());
    }

    #[test]
    fn calls_of_other_users_are_ignored() {
        let pods = json!({"resource": "pods", "subresource": "log", "name": "p", "apiVersion": "v1"});
        let log =
            line(USER, "get", &pods, "allow") + &line("admin", "delete", &pods, "allow") + r#"{"kind":"Ev"#;
        let expected = Call { permission: permission("get", "", "pods/log", Some("p")), allowed: true };
        assert_eq!(of(&log), BTreeSet::from([expected]));
        assert!(calls("no JSON\n", USER).is_err());
    }

    #[test]
    fn non_resource_request_is_identified_by_its_path() {
        let log = line(USER, "get", &Value::Null, "allow");
        assert_eq!(of(&log).first().unwrap().permission, permission("get", "", "/version", None));
    }

    #[test]
    fn equal_permissions_have_no_difference() {
        let rules = json!([{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get", "list"]}]);
        let log = job("get") + &job("list") + &job("list");
        assert_eq!(compare(&granted(&role(rules)).unwrap(), &of(&log)), Difference::default());
    }

    #[test]
    fn unused_and_missing_verbs_are_reported() {
        let rules =
            json!([{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get", "deletecollection"]}]);
        let difference = compare(&granted(&role(rules)).unwrap(), &of(&(job("get") + &job("patch"))));
        assert_eq!(
            difference.unused,
            BTreeSet::from([permission("deletecollection", "batch", "jobs", None)])
        );
        assert_eq!(difference.not_granted, BTreeSet::from([permission("patch", "batch", "jobs", None)]));
        assert_eq!(difference.unused.first().unwrap().to_string(), "deletecollection jobs.batch");
    }

    #[test]
    fn wildcard_is_reported_as_unused() {
        for rule in [
            json!({"apiGroups": ["*"], "resources": ["jobs"], "verbs": ["get"]}),
            json!({"apiGroups": ["batch"], "resources": ["*"], "verbs": ["get"]}),
            json!({"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["*"]}),
        ] {
            let difference = compare(&granted(&role(json!([rule]))).unwrap(), &of(&job("get")));
            assert_eq!((difference.unused.len(), difference.not_granted.len()), (1, 1), "{rule}");
        }
    }

    #[test]
    fn permission_for_one_object_is_used_only_by_calls_on_it() {
        let rules = json!([{"apiGroups": ["batch"], "resources": ["jobs"], "resourceNames": ["b"], "verbs": ["get"]}]);
        let difference = compare(&granted(&role(rules)).unwrap(), &of(&job("get")));
        assert_eq!(difference.unused, BTreeSet::from([permission("get", "batch", "jobs", Some("b"))]));
        assert_eq!(difference.not_granted, BTreeSet::from([permission("get", "batch", "jobs", None)]));
    }

    #[test]
    fn refused_call_uses_nothing_and_is_reported() {
        let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
        let log = line(USER, "get", &json!({"resource": "pods", "name": "p"}), "forbid");
        let difference = compare(&granted(&role(rules)).unwrap(), &of(&log));
        assert_eq!(difference.refused, BTreeSet::from([permission("get", "", "pods", None)]));
        assert_eq!(difference.unused.len(), 1);
    }
}
