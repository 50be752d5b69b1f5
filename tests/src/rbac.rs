//! Are the rights that a Role gives the rights that are used? What RBAC objects give, what an API server's audit log tells of one
//! account, and where the two differ. Pure.
//!
//! Names are taken as they stand: a `*` in a rule is a right that no call ever uses, and so is found.

use std::collections::BTreeSet;
use std::fmt;

use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::Value;

/// One verb on one resource, perhaps on the one object of that name only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// The API group; empty for the core group.
    pub group: String,
    /// The resource with its subresource, as rules name it: `pods/log`. A path, for what is no resource.
    pub resource: String,
    /// The verb.
    pub verb: String,
    /// The one object; `None` for any.
    pub name: Option<String>,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, resource, verb, name } = self;
        write!(f, "{verb} {resource}")?;
        if !group.is_empty() {
            write!(f, ".{group}")?;
        }
        name.iter().try_for_each(|name| write!(f, " named {name}"))
    }
}

/// What the audit log tells of one request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// What was asked for; the name of the object where the request named one.
    pub right: Right,
    /// Whether the API server's authorization let it pass.
    pub allowed: bool,
}

/// Where rights and calls differ.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Given, and used by no call.
    pub unused: BTreeSet<Right>,
    /// Asked for, allowed, and not by these rights.
    pub not_given: BTreeSet<Right>,
    /// Asked for, and refused.
    pub refused: BTreeSet<Right>,
}

/// What the Roles and ClusterRoles among these objects give, one right for each combination of their rules.
///
/// # Errors
/// Where a rule is not read here: one that cannot be parsed, or is of paths.
pub fn given(objects: &[Value]) -> Result<BTreeSet<Right>, String> {
    let mut rights = BTreeSet::new();
    for object in objects.iter().filter(|object| object["kind"] == "Role" || object["kind"] == "ClusterRole")
    {
        let what = object["metadata"]["name"].to_string();
        let rules: Vec<PolicyRule> =
            serde_json::from_value(object["rules"].clone()).map_err(|error| format!("{what}: {error}"))?;
        for rule in rules {
            if rule.non_resource_urls.is_some() {
                return Err(format!("{what}: rights on paths are not compared"));
            }
            rights.extend(of_rule(&rule));
        }
    }
    Ok(rights)
}

fn of_rule(rule: &PolicyRule) -> Vec<Right> {
    // No names are any name, and so is an empty list of them.
    let names = rule.resource_names.iter().flatten().cloned().map(Some).collect::<Vec<_>>();
    let names = if names.is_empty() { vec![None] } else { names };
    let mut rights = vec![];
    for group in rule.api_groups.iter().flatten() {
        for resource in rule.resources.iter().flatten() {
            for verb in &rule.verbs {
                rights.extend(names.iter().map(|name| Right {
                    group: group.clone(),
                    resource: resource.clone(),
                    verb: verb.clone(),
                    name: name.clone(),
                }));
            }
        }
    }
    rights
}

/// The calls of `user` in an audit log, a JSON object for each line. A last line that is not finished yet is left out.
///
/// # Errors
/// Where a line is no audit event.
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
    let right = Right {
        group: text(&object["apiGroup"]),
        resource,
        verb: text(&event["verb"]),
        name: object["name"].as_str().filter(|name| !name.is_empty()).map(str::to_owned),
    };
    Call { right, allowed: event["annotations"]["authorization.k8s.io/decision"] == "allow" }
}

/// Where the two differ. Calls that are not given are told without the object's name.
#[must_use]
pub fn compare(given: &BTreeSet<Right>, calls: &BTreeSet<Call>) -> Difference {
    let mut difference = Difference { unused: given.clone(), ..Difference::default() };
    for Call { right: asked, allowed } in calls {
        let mut covered = false;
        for right in given.iter().filter(|right| covers(right, asked)) {
            covered = true;
            if *allowed {
                difference.unused.remove(right);
            }
        }
        let unnamed = Right { name: None, ..asked.clone() };
        if !allowed {
            difference.refused.insert(unnamed);
        } else if !covered {
            difference.not_given.insert(unnamed);
        }
    }
    difference
}

fn covers(right: &Right, asked: &Right) -> bool {
    let what = |right: &Right| (right.group.clone(), right.resource.clone(), right.verb.clone());
    what(right) == what(asked) && (right.name.is_none() || right.name == asked.name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const USER: &str = "system:serviceaccount:dispatcher:dispatcher";

    fn right(verb: &str, group: &str, resource: &str, name: Option<&str>) -> Right {
        let [verb, group, resource] = [verb, group, resource].map(str::to_owned);
        Right { group, resource, verb, name: name.map(str::to_owned) }
    }

    fn role(rules: Value) -> Vec<Value> {
        vec![
            json!({"kind": "ServiceAccount"}),
            json!({"kind": "Role", "metadata": {"name": "r"}, "rules": rules}),
        ]
    }

    /// As an API server writes it, without the fields that are not read.
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
    fn a_rule_gives_each_verb_on_each_resource_of_each_name() {
        let rights = given(&role(json!([
            {"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get", "list"]},
            {"apiGroups": ["x"], "resources": ["leases"], "resourceNames": ["a", "b"], "verbs": ["get"]},
        ])));
        let expected = [
            right("get", "", "pods", None),
            right("list", "", "pods", None),
            right("get", "", "pods/log", None),
            right("list", "", "pods/log", None),
            right("get", "x", "leases", Some("a")),
            right("get", "x", "leases", Some("b")),
        ];
        assert_eq!(rights, Ok(BTreeSet::from(expected)));
    }

    #[test]
    fn a_rule_that_is_not_compared_is_an_error() {
        assert!(given(&role(json!([{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]))).is_err());
        assert!(given(&role(json!("none"))).is_err());
    }

    #[test]
    fn only_the_calls_of_the_account_count() {
        let pods = json!({"resource": "pods", "subresource": "log", "name": "p", "apiVersion": "v1"});
        let log =
            line(USER, "get", &pods, "allow") + &line("admin", "delete", &pods, "allow") + r#"{"kind":"Ev"#;
        let expected = Call { right: right("get", "", "pods/log", Some("p")), allowed: true };
        assert_eq!(of(&log), BTreeSet::from([expected]));
        assert!(calls("no JSON\n", USER).is_err());
    }

    #[test]
    fn what_is_no_resource_is_told_by_its_path() {
        let log = line(USER, "get", &Value::Null, "allow");
        assert_eq!(of(&log).first().unwrap().right, right("get", "", "/version", None));
    }

    #[test]
    fn rights_that_are_used_and_no_others_are_no_difference() {
        let rules = json!([{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get", "list"]}]);
        let log = job("get") + &job("list") + &job("list");
        assert_eq!(compare(&given(&role(rules)).unwrap(), &of(&log)), Difference::default());
    }

    #[test]
    fn a_verb_too_many_and_a_verb_too_few_are_both_found() {
        let rules =
            json!([{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get", "deletecollection"]}]);
        let difference = compare(&given(&role(rules)).unwrap(), &of(&(job("get") + &job("patch"))));
        assert_eq!(difference.unused, BTreeSet::from([right("deletecollection", "batch", "jobs", None)]));
        assert_eq!(difference.not_given, BTreeSet::from([right("patch", "batch", "jobs", None)]));
        assert_eq!(difference.unused.first().unwrap().to_string(), "deletecollection jobs.batch");
    }

    #[test]
    fn a_wildcard_is_a_right_that_nothing_uses() {
        for rule in [
            json!({"apiGroups": ["*"], "resources": ["jobs"], "verbs": ["get"]}),
            json!({"apiGroups": ["batch"], "resources": ["*"], "verbs": ["get"]}),
            json!({"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["*"]}),
        ] {
            let difference = compare(&given(&role(json!([rule]))).unwrap(), &of(&job("get")));
            assert_eq!((difference.unused.len(), difference.not_given.len()), (1, 1), "{rule}");
        }
    }

    #[test]
    fn a_right_on_one_object_is_used_only_by_calls_on_it() {
        let rules = json!([{"apiGroups": ["batch"], "resources": ["jobs"], "resourceNames": ["b"], "verbs": ["get"]}]);
        let difference = compare(&given(&role(rules)).unwrap(), &of(&job("get")));
        assert_eq!(difference.unused, BTreeSet::from([right("get", "batch", "jobs", Some("b"))]));
        assert_eq!(difference.not_given, BTreeSet::from([right("get", "batch", "jobs", None)]));
    }

    #[test]
    fn a_call_that_was_refused_uses_nothing_and_is_told() {
        let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
        let log = line(USER, "get", &json!({"resource": "pods", "name": "p"}), "forbid");
        let difference = compare(&given(&role(rules)).unwrap(), &of(&log));
        assert_eq!(difference.refused, BTreeSet::from([right("get", "", "pods", None)]));
        assert_eq!(difference.unused.len(), 1);
    }
}
