//! How values change the objects of the chart.

use std::collections::BTreeSet;

use dispatcher_tests::manifests::{Helm, chart};
use dispatcher_tests::{or_skip, paths};
use serde_json::{Value, json};

use super::{environment, find, pod, rendered};

/// YAML reads `1234`, `on` and `null` as something else than text.
#[tokio::test]
async fn names_stay_text() {
    let helm = or_skip!(Helm::offline());
    for name in ["1234", "on", "null", "1e3"] {
        let set = format!("jobs.namespace.name={name}");
        let objects = helm
            .template_as(name, "0755", &["--set-string", &set, "--set-string", "fullnameOverride=99"])
            .await;
        let objects = objects.unwrap();
        assert!(find(&objects, "Namespace", name).is_some(), "{name}: {objects:?}");
        let role = find(&objects, "Role", "99").unwrap();
        assert_eq!(role["metadata"]["namespace"], name);
        assert!(role["rules"].to_string().contains(&format!(r#""resourceNames":["{name}"]"#)), "{role}");
        assert_eq!(find(&objects, "Deployment", "99").unwrap()["metadata"]["namespace"], "0755");
    }
}

#[tokio::test]
async fn names_of_two_releases_differ() {
    let helm = or_skip!(Helm::offline());
    let jobs = ["--set", "jobs.namespace.name=team-jobs"];
    let long = "a-long-release-name-with-forty-five-characters";
    for (release, name) in [("team", "team-dispatcher"), ("my-dispatcher", "my-dispatcher"), (long, long)] {
        let objects = helm.template_as(release, "team", &jobs).await.unwrap();
        let name = if name == long { "a-long-release-name-with-forty-five-characters-dis" } else { name };
        let deployment =
            find(&objects, "Deployment", name).unwrap_or_else(|| panic!("{release}: {objects:?}"));
        assert_eq!(deployment["spec"]["selector"]["matchLabels"], json!({"app.kubernetes.io/name": name}));
        assert!(find(&objects, "ValidatingAdmissionPolicy", &format!("{name}-jobs")).is_some());
        let policy = find(&objects, "ValidatingAdmissionPolicy", &format!("{name}-jobs")).unwrap();
        let user = format!("request.userInfo.username == 'system:serviceaccount:team:{name}'");
        assert_eq!(policy["spec"]["matchConditions"][0]["expression"], user);
    }
}

#[tokio::test]
async fn templates_are_files_of_maps_and_of_strings() {
    let helm = or_skip!(Helm::offline());
    let document = json!({"apiVersion": "natsjobs.dev/v1alpha1", "kind": "JobTemplate", "metadata": {"name": "simple"}, "spec": {"jobName": "${{x}}-${id}", "limits": {"maxActive": 3_000_000}}});
    let text = "kind: JobTemplate # {{ not a template of Helm }}\n";
    let values = json!({"templates": {"simple.yaml": document, "text.yml": text}});
    let before = rendered(&helm, &json!({})).await.unwrap();
    let objects = rendered(&helm, &values).await.unwrap();
    let data = &find(&objects, "ConfigMap", "dispatcher-templates").unwrap()["data"];
    assert_eq!(data.as_object().unwrap().len(), 3, "{data}");
    assert_eq!(data["text.yml"], text);
    let simple: Value = serde_saphyr::from_str(data["simple.yaml"].as_str().unwrap()).unwrap();
    assert_eq!(simple, document, "a file of the values replaces a shipped one");
    // A change replaces the pods, unless the values forbid it.
    let checksum = |objects: &[Value]| pod(objects)["metadata"]["annotations"]["checksum/templates"].clone();
    assert!(checksum(&objects).is_string() && checksum(&objects) != checksum(&before));
    let kept = rendered(&helm, &json!({"restartOnChange": false})).await.unwrap();
    assert_eq!(checksum(&kept), Value::Null);
}

#[tokio::test]
async fn secrets_are_mounted_where_the_settings_point() {
    let helm = or_skip!(Helm::offline());
    let values = json!({
        "nats": {
            "user": "dispatcher",
            "credentials": {"secret": "login", "password": "pass"},
            "tls": {"secret": "certificates", "ca": "ca.crt", "cert": "tls.crt", "key": "tls.key"},
        },
        "submitterKey": {"secret": "signing", "key": "key"},
    });
    let objects = rendered(&helm, &values).await.unwrap();
    let environment = environment(&objects);
    let pod = &pod(&objects)["spec"];
    for (variable, secret, key) in [
        ("NATS_PASSWORD_FILE", "login", "pass"),
        ("NATS_CA", "certificates", "ca.crt"),
        ("NATS_CERT", "certificates", "tls.crt"),
        ("NATS_KEY", "certificates", "tls.key"),
        ("DISPATCHER_SUBMITTER_KEY", "signing", "key"),
    ] {
        let volumes = pod["volumes"].as_array().unwrap();
        let volume = volumes.iter().find(|volume| volume["secret"]["secretName"] == secret).unwrap();
        let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
        let mount = mounts.iter().find(|mount| mount["name"] == volume["name"]).unwrap();
        assert_eq!(environment[variable], format!("{}/{key}", mount["mountPath"].as_str().unwrap()));
    }
    assert_eq!(environment["NATS_USER"], "dispatcher");
    assert_eq!(pod["securityContext"]["fsGroup"], 65532);
}

#[tokio::test]
async fn network_policy_opens_the_ports_of_the_nats_url() {
    let helm = or_skip!(Helm::offline());
    for (url, ports) in [
        ("nats://nats.nats.svc:4222", vec![4222]),
        ("tls://a.example.com:4443, tls://b.example.com:4444/", vec![4443, 4444]),
        ("nats.example.com", vec![4222]),
        ("wss://nats.example.com", vec![443]),
        ("nats://[fd00::1]:4333,nats://[fd00::2]", vec![4333, 4222]),
    ] {
        let objects = rendered(&helm, &json!({"nats": {"url": url}})).await.unwrap();
        let policy = find(&objects, "NetworkPolicy", "dispatcher").unwrap();
        let open: BTreeSet<u64> = policy["spec"]["egress"][0]["ports"]
            .as_array()
            .unwrap()
            .iter()
            .map(|port| port["port"].as_u64().unwrap())
            .collect();
        let expected: BTreeSet<u64> = ports.into_iter().chain([53, 443, 6443]).collect();
        assert_eq!(open, expected, "{url}");
    }
}

#[tokio::test]
async fn replicas_select_disruption_budget_and_spread() {
    let helm = or_skip!(Helm::offline());
    for (replicas, several) in [(0, false), (1, false), (2, true), (5, true)] {
        let objects = rendered(&helm, &json!({"replicas": replicas})).await.unwrap();
        assert_eq!(find(&objects, "PodDisruptionBudget", "dispatcher").is_some(), several, "{replicas}");
        let spread = &pod(&objects)["spec"]["topologySpreadConstraints"];
        assert_eq!(spread.is_array(), several, "{replicas}");
        assert_eq!(find(&objects, "Deployment", "dispatcher").unwrap()["spec"]["replicas"], replicas);
    }
}

#[tokio::test]
async fn switches_remove_their_objects_only() {
    let helm = or_skip!(Helm::offline());
    let all = rendered(&helm, &json!({})).await.unwrap();
    for (values, kinds) in [
        (
            json!({"admissionPolicy": {"enabled": false}}),
            &["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"][..],
        ),
        (
            json!({"networkPolicy": {"enabled": false}, "jobs": {"networkPolicy": {"enabled": false}}}),
            &["NetworkPolicy"],
        ),
        (json!({"jobs": {"quota": {"enabled": false}}}), &["ResourceQuota"]),
        (json!({"jobs": {"limitRange": {"enabled": false}}}), &["LimitRange"]),
        (json!({"jobs": {"namespace": {"create": false}}}), &["Namespace"]),
        (json!({"crds": {"enabled": false}}), &["CustomResourceDefinition"]),
        (json!({"jobTemplates": {"aggregateRoles": false}}), &["ClusterRole"]),
        (json!({"rbac": {"create": false}}), &["Role", "RoleBinding", "ClusterRole"]),
        (json!({"podDisruptionBudget": {"enabled": false}}), &["PodDisruptionBudget"]),
    ] {
        let left = rendered(&helm, &values).await.unwrap();
        let expected: Vec<_> =
            all.iter().filter(|object| !kinds.contains(&object["kind"].as_str().unwrap())).cloned().collect();
        assert_eq!(left, expected, "{values}");
        assert!(left.len() < all.len(), "{values}");
    }
}

#[tokio::test]
async fn labels_annotations_and_scheduling_reach_the_pods() {
    let helm = or_skip!(Helm::offline());
    let values = json!({
        "commonLabels": {"team": "a"}, "commonAnnotations": {"owner": "b"},
        "podLabels": {"pod": "c"}, "podAnnotations": {"prometheus.io/scrape": null},
        "nodeSelector": {"disk": "ssd"}, "priorityClassName": "high", "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["x"]}],
        "tolerations": [{"key": "jobs", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}},
        "imagePullSecrets": [{"name": "registry"}], "image": {"digest": "sha256:0123"},
        "lease": {"name": "other", "namespace": "leases"},
    });
    let objects = rendered(&helm, &values).await.unwrap();
    // All releases of a cluster share the CustomResourceDefinition.
    for object in objects.iter().filter(|object| object["kind"] != "CustomResourceDefinition") {
        assert_eq!(object["metadata"]["labels"]["team"], "a", "{object}");
        assert_eq!(object["metadata"]["annotations"]["owner"], "b", "{object}");
    }
    let pod = pod(&objects);
    assert_eq!(
        pod["metadata"]["labels"],
        json!({"app.kubernetes.io/name": "dispatcher", "team": "a", "pod": "c"})
    );
    assert_eq!(pod["metadata"]["annotations"]["prometheus.io/scrape"], Value::Null);
    for field in
        ["nodeSelector", "priorityClassName", "hostAliases", "tolerations", "affinity", "imagePullSecrets"]
    {
        assert_eq!(pod["spec"][field], values[field], "{field}");
    }
    assert_eq!(pod["spec"]["containers"][0]["image"], "dispatcher@sha256:0123");
    assert_eq!(environment(&objects)["DISPATCHER_LEASE_NAMESPACE"], "leases");
    let lease = find(&objects, "Role", "dispatcher-lease").unwrap();
    assert_eq!(lease["metadata"]["namespace"], "leases");
    assert!(lease["rules"].to_string().contains(r#"["other"]"#), "{lease}");
    assert!(!find(&objects, "Role", "dispatcher").unwrap()["rules"].to_string().contains("leases"));
}

#[tokio::test]
async fn custom_resource_definitions_have_a_switch() {
    let helm = or_skip!(Helm::offline());
    let folder = paths::temp_dir("chart").unwrap();
    let copied = std::process::Command::new("cp").arg("-r").arg(chart()).arg(folder.path()).status().unwrap();
    assert!(copied.success());
    let copy = folder.path().join("chart");
    std::fs::create_dir_all(copy.join("files/crds")).unwrap();
    let crd = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata:\n  name: things.example.org\n";
    std::fs::write(copy.join("files/crds/things.yaml"), crd).unwrap();
    let copy = copy.display().to_string();
    let [with, without] = ["crds.enabled=true", "crds.enabled=false"]
        .map(|set| ["template", "dispatcher", &copy, "--set", set].map(str::to_owned));
    assert!(helm.run(&with).await.unwrap().contains("things.example.org"));
    assert!(!helm.run(&without).await.unwrap().contains("things.example.org"));
}
