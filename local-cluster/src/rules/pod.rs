//! Pods and pod templates: defaults and validation.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::metadata::{self, validate_immutable};
use crate::{
    error::Cause,
    object::{default, list, text},
};

/// Sets the defaults of a pod spec.
pub(crate) fn set_spec_defaults(spec: &mut Value) {
    for (key, value) in [
        ("restartPolicy", json!("Always")),
        ("dnsPolicy", json!("ClusterFirst")),
        ("schedulerName", json!("default-scheduler")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("securityContext", json!({})),
    ] {
        default(spec, &[], key, value);
    }
    for lists in ["initContainers", "containers"] {
        let containers = spec.get_mut(lists).and_then(Value::as_array_mut).into_iter().flatten();
        containers.for_each(set_container_defaults);
    }
}

fn set_container_defaults(container: &mut Value) {
    let pull = match is_latest(text(container, "/image")) {
        true => "Always",
        false => "IfNotPresent",
    };
    for (key, value) in [
        ("resources", json!({})),
        ("terminationMessagePath", json!("/dev/termination-log")),
        ("terminationMessagePolicy", json!("File")),
        ("imagePullPolicy", json!(pull)),
    ] {
        default(container, &[], key, value);
    }
}

/// Whether the tag of an image is `latest` or absent. A colon before the last slash precedes a
/// port.
fn is_latest(image: &str) -> bool {
    let last = image.rsplit('/').next().unwrap_or_default();
    !last.contains('@') && last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

/// Validates a pod spec.
pub(crate) fn validate_spec(spec: Option<&Value>, field: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    let spec = spec.unwrap_or(&Value::Null);
    let containers = list(spec, "/containers");
    if containers.is_empty() {
        causes.push(Cause::required(format!("{field}.containers"), ""));
    }
    let mut names = HashSet::new();
    for (lists, containers) in [("initContainers", list(spec, "/initContainers")), ("containers", containers)]
    {
        for (index, container) in containers.iter().enumerate() {
            let at = format!("{field}.{lists}[{index}]");
            causes.extend(validate_container(container, &at));
            let name = text(container, "/name");
            if !names.insert(name) {
                causes.push(Cause::duplicate(format!("{at}.name"), &name.into()));
            }
        }
    }
    causes
}

fn validate_container(container: &Value, field: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    let name = text(container, "/name");
    if name.is_empty() {
        causes.push(Cause::required(format!("{field}.name"), ""));
    } else if !metadata::is_label(name) || name.len() > 63 {
        causes.push(Cause::invalid(format!("{field}.name"), &name.into(), metadata::LABEL));
    }
    if text(container, "/image").is_empty() {
        causes.push(Cause::required(format!("{field}.image"), ""));
    }
    for (index, env) in list(container, "/env").iter().enumerate() {
        if text(env, "/name").is_empty() {
            causes.push(Cause::required(format!("{field}.env[{index}].name"), ""));
        }
    }
    causes
}

/// Validates an update of a pod. It checks only the immutable fields that this cluster relies on.
pub(crate) fn validate_update(old: &Value, new: &Value) -> Vec<Cause> {
    let mut causes = validate_spec(new.get("spec"), "spec");
    let mut immutable =
        vec!["containers", "initContainers", "restartPolicy", "volumes", "serviceAccountName"];
    if !text(old, "/spec/nodeName").is_empty() {
        immutable.push("nodeName");
    }
    causes.extend(validate_immutable(old, new, "spec", &immutable));
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_without_a_tag_is_always_pulled() {
        for image in ["a", "a:latest", "r:5000/a", "r/b/a"] {
            assert!(is_latest(image), "{image}");
        }
        for image in ["a:1", "r:5000/a:1", "a@sha256:0"] {
            assert!(!is_latest(image), "{image}");
        }
    }

    #[test]
    fn container_names_are_unique() {
        let spec = json!({"containers": [{"name": "a", "image": "i"}, {"name": "a", "image": "i", "env": [{"name": ""}]}]});
        assert_eq!(validate_spec(Some(&spec), "spec").len(), 2);
        assert_eq!(validate_spec(None, "spec").len(), 1);
    }

    #[test]
    fn pod_is_bound_only_once() {
        let pod =
            |node: &str| json!({"spec": {"nodeName": node, "containers": [{"name": "a", "image": "i"}]}});
        assert_eq!(validate_update(&pod(""), &pod("n")), []);
        assert_eq!(validate_update(&pod("n"), &pod("m")).len(), 1);
    }
}
