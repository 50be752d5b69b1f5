//! The objects of `deploy/` as kustomize builds them: limits, network policies, and the image.

use dispatcher_tests::manifests::kustomize;
use dispatcher_tests::{or_skip, paths};
use serde_json::{Value, json};

/// The objects of an overlay.
async fn objects(overlay: &str) -> Vec<Value> {
    kustomize(&paths::workspace().join("deploy").join(overlay)).await.unwrap()
}

fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

#[tokio::test]
async fn shipped_network_policies_open_only_named_sources_and_dns() {
    or_skip!(paths::kubernetes());
    let objects = objects("with-nats").await;
    let jobs = &find(&objects, "NetworkPolicy", "jobs")["spec"];
    assert_eq!((&jobs["podSelector"], &jobs["policyTypes"]), (&json!({}), &json!(["Ingress", "Egress"])));
    assert_eq!(jobs["ingress"], Value::Null, "Jobs accept connections");
    let ports: Vec<_> =
        jobs["egress"][0]["ports"].as_array().unwrap().iter().map(|port| &port["port"]).collect();
    assert_eq!((jobs["egress"].as_array().unwrap().len(), ports), (1, vec![&json!(53), &json!(53)]));
    for (name, sources) in [("dispatcher", 1), ("nats", 2)] {
        let rules = find(&objects, "NetworkPolicy", name)["spec"]["ingress"].as_array().unwrap();
        for rule in rules {
            let from = rule["from"].as_array().unwrap_or_else(|| panic!("{name}: a rule names no sources"));
            assert_eq!(from.len(), sources, "{name}: {rule}");
        }
    }
}

#[tokio::test]
async fn shipped_limits_are_the_settings_of_the_dispatcher() {
    or_skip!(paths::kubernetes());
    for overlay in [".", "with-nats", "ha", "nats-tls", "examples/my-template"] {
        let objects = objects(overlay).await;
        let limits = find(&objects, "ConfigMap", "dispatcher-limits")["data"].as_object().unwrap();
        for setting in [
            "ALLOWED_IMAGES",
            "ALLOWED_SERVICE_ACCOUNTS",
            "DEFAULT_ACTIVE_DEADLINE_SECONDS",
            "ALLOWED_CSI_DRIVERS",
        ] {
            assert!(limits.contains_key(&format!("DISPATCHER_{setting}")), "{overlay}: {setting}");
        }
        let container =
            &find(&objects, "Deployment", "dispatcher")["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(
            container["envFrom"],
            json!([{"configMapRef": {"name": "dispatcher-limits"}}]),
            "{overlay}"
        );
        let binding = find(&objects, "ValidatingAdmissionPolicyBinding", "dispatcher-jobs");
        assert_eq!(binding["spec"]["paramRef"]["name"], "dispatcher-limits", "{overlay}");
        assert_eq!(
            binding["spec"]["matchResources"]["namespaceSelector"]["matchLabels"],
            json!({"kubernetes.io/metadata.name": "jobs"}),
            "{overlay}"
        );
    }
}

#[test]
fn every_shipped_template_limits_its_unfinished_jobs() {
    for file in ["simple.yaml", "memory.yaml"] {
        let text = std::fs::read_to_string(paths::workspace().join("deploy/templates").join(file)).unwrap();
        let template = dispatcher_core::template::Template::parse(&text).unwrap();
        assert!(template.max_active.is_some(), "{file}: no maxActive");
    }
}
