//! Discovery documents, as `kubectl` requests them.

use serde_json::{Value, json};

use super::openapi;
use crate::{
    object::set,
    resource::{ALL, Resource},
};

/// The discovery document at a path.
pub(super) fn document(path: &str) -> Option<Value> {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    match segments.as_slice() {
        ["version"] => Some(version()),
        ["healthz" | "livez" | "readyz"] => Some(json!("ok")),
        ["api"] => Some(json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})),
        ["apis"] => Some(json!({"kind": "APIGroupList", "apiVersion": "v1",
            "groups": groups().iter().map(|name| group(name)).collect::<Vec<_>>()})),
        ["apis", name] if groups().contains(name) => {
            let mut group = group(name);
            set(&mut group, &[], "kind", "APIGroup");
            set(&mut group, &[], "apiVersion", "v1");
            Some(group)
        }
        ["openapi", "v3", rest @ ..] => openapi::document(rest),
        ["api", "v1"] => Some(resources("", "v1")),
        ["apis", name, "v1"] if groups().contains(name) => Some(resources(name, "v1")),
        _ => None,
    }
}

/// The Kubernetes version that this API follows.
fn version() -> Value {
    json!({"major": "1", "minor": "33", "gitVersion": "v1.33.0-local-cluster", "gitCommit": "", "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "", "platform": ""})
}

fn groups() -> Vec<&'static str> {
    let mut groups: Vec<_> =
        ALL.into_iter().map(|resource| resource.group).filter(|name| !name.is_empty()).collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}

fn group(name: &str) -> Value {
    let version = json!({"groupVersion": format!("{name}/v1"), "version": "v1"});
    json!({"name": name, "versions": [version], "preferredVersion": version})
}

fn resources(group: &str, version: &str) -> Value {
    let found = ALL.into_iter().filter(|resource| resource.group == group && resource.version == version);
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let resources: Vec<_> = found.flat_map(entries).collect();
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources})
}

fn entries(resource: &'static Resource) -> Vec<Value> {
    let entry = |suffix: &str, verbs: &[&str]| {
        json!({"name": format!("{}{suffix}", resource.plural), "kind": resource.kind, "verbs": verbs,
            "namespaced": resource.namespaced, "singularName": if suffix.is_empty() { resource.singular } else { "" }})
    };
    if resource.plural == "selfsubjectaccessreviews" {
        return vec![entry("", &["create"])];
    }
    let all = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
    let mut first = entry("", &all);
    if !resource.short_names.is_empty() {
        set(&mut first, &[], "shortNames", resource.short_names);
    }
    if ["Job", "Pod"].contains(&resource.kind) {
        set(&mut first, &[], "categories", vec!["all"]);
    }
    let mut entries = vec![first];
    if resource.has_status {
        entries.push(entry("/status", &["get", "patch", "update"]));
    }
    if resource.kind == "Pod" {
        entries.extend([entry("/log", &["get"]), entry("/binding", &["create"])]);
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_resource_is_discoverable() {
        assert_eq!(document("/apis").unwrap()["groups"].as_array().unwrap().len(), 3);
        let named = |path: &str| -> Vec<String> {
            let resources = document(path).unwrap()["resources"].as_array().unwrap().clone();
            resources.iter().map(|resource| resource["name"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(named("/apis/batch/v1"), ["jobs", "jobs/status"]);
        assert!(named("/api/v1").contains(&"pods/log".to_owned()));
        assert_eq!(document("/apis/batch").unwrap()["preferredVersion"]["groupVersion"], "batch/v1");
        assert_eq!(document("/apis/apps/v1"), None);
        assert_eq!(document("/openapi/v2"), None);
    }
}
