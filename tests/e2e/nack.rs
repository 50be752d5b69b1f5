//! `nats-config/nack.yaml`: it equals the JSON files, an API server with the CRDs of NACK accepts
//! it, and the dispatcher works with the streams that NACK creates from it.

use std::path::PathBuf;
use std::process::Command;

use dispatcher_tests::job_controller::{finished_status, managed_template};
use dispatcher_tests::nack::Mode;
use dispatcher_tests::test_env::{TestEnv, shipped_config};
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{Kubernetes, Nack, Nats, Options, only_on_kubernetes, or_skip, paths, until};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use serde_json::{Map, Value, json};

fn file() -> PathBuf {
    paths::workspace().join("nats-config/nack.yaml")
}

fn resources() -> Vec<Value> {
    serde_saphyr::from_multiple(&std::fs::read_to_string(file()).unwrap()).unwrap()
}

/// The resources by the name of their stream or consumer.
fn resources_by_name() -> Vec<(String, Value)> {
    let name = |resource: &Value| {
        let spec = &resource["spec"];
        spec["name"].as_str().or(spec["durableName"].as_str()).unwrap().to_owned()
    };
    resources().into_iter().map(|resource| (name(&resource), resource)).collect()
}

/// The name of a field of a resource in the API of the server, from the reference of the CRDs.
/// `None` if the field concerns NACK only.
fn server_name(field: &str) -> Option<&str> {
    Some(match field {
        "ackPolicy" => "ack_policy",
        "ackWait" => "ack_wait",
        "allowDirect" => "allow_direct",
        "allowRollup" => "allow_rollup_hdrs",
        "deliverPolicy" => "deliver_policy",
        "denyDelete" => "deny_delete",
        "discardPerSubject" => "discard_new_per_subject",
        "duplicateWindow" => "duplicate_window",
        "durableName" => "durable_name",
        "filterSubject" => "filter_subject",
        "maxAckPending" => "max_ack_pending",
        "maxAge" => "max_age",
        "maxBytes" => "max_bytes",
        "maxConsumers" => "max_consumers",
        "maxDeliver" => "max_deliver",
        "maxMsgSize" => "max_msg_size",
        "maxMsgs" => "max_msgs",
        "maxMsgsPerSubject" => "max_msgs_per_subject",
        "replayPolicy" => "replay_policy",
        "replicas" => "num_replicas",
        "subjectTransform" => "subject_transform",
        "preventDelete" | "streamName" => return None,
        same => same,
    })
}

/// Converts the value of a field to the format of the server.
fn server_value(field: &str, value: &Value) -> Value {
    let nanoseconds = |text: &str| -> u64 {
        let (number, unit) = text.split_at(text.find(char::is_alphabetic).unwrap());
        let milliseconds = match unit {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1000,
            "ms" => 1,
            other => panic!("unknown unit {other}"),
        };
        number.parse::<u64>().unwrap() * milliseconds * 1_000_000
    };
    match field {
        "ackWait" | "duplicateWindow" | "maxAge" => nanoseconds(value.as_str().unwrap()).into(),
        "republish" => {
            json!({"src": value["source"], "dest": value["destination"], "headers_only": false})
        }
        "subjectTransform" => json!({"src": value["source"], "dest": value["dest"]}),
        _ => value.clone(),
    }
}

#[test]
fn nack_resources_equal_the_json_files() {
    let named = resources_by_name();
    let mut files: Vec<String> = std::fs::read_dir(paths::workspace().join("nats-config"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    files.sort();
    let mut names: Vec<String> = named.iter().map(|(name, _)| name.clone()).collect();
    names.sort();
    assert_eq!(names, files);
    for (name, resource) in named {
        let fields = resource["spec"].as_object().unwrap().iter();
        let mut config: Map<String, Value> = fields
            .filter_map(|(field, value)| Some((server_name(field)?.to_owned(), server_value(field, value))))
            .collect();
        if let Some(durable) = config.get("durable_name").cloned() {
            assert_eq!(resource["spec"]["streamName"], "JOBS");
            config.insert("name".to_owned(), durable);
        }
        assert_eq!(Value::Object(config), shipped_config(&name), "{name} is stale: run `make nats-config`");
        assert_eq!(resource["spec"]["preventDelete"], true, "{name}");
    }
}

#[test]
fn shipped_nack_file_equals_the_output_of_nats_config() {
    let printed = Command::new(paths::built("dispatcher").unwrap())
        .args(["nats-config", "--nack", "--templates"])
        .arg(paths::workspace().join("deploy/templates"))
        .output()
        .unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert_eq!(
        std::fs::read_to_string(file()).unwrap(),
        printed,
        "nats-config/nack.yaml is stale: run `make nats-config`"
    );
}

/// A control plane with the CRDs of NACK.
async fn control_plane_with_crds() -> Result<Kubernetes, String> {
    let crds = paths::nack("crds.yaml")?;
    let kubernetes = Kubernetes::control_plane(Options::default()).await?;
    kubernetes.create_crds(&crds).await?;
    Ok(kubernetes)
}

async fn apply(kubernetes: &Kubernetes, path: &str) -> Result<String, String> {
    kubernetes.kubectl(&["apply", "--validate=strict", "-f", path]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn crds_of_nack_accept_each_resource_unchanged() {
    only_on_kubernetes!("the local cluster has no CRDs");
    let kubernetes = or_skip!(control_plane_with_crds().await);
    apply(&kubernetes, &file().display().to_string()).await.unwrap();
    for resource in resources() {
        let kind = format!("{}.jetstream.nats.io", resource["kind"].as_str().unwrap().to_lowercase());
        let name = resource["metadata"]["name"].as_str().unwrap();
        let stored = kubernetes.kubectl(&["get", &kind, name, "--output=json"]).await.unwrap();
        let stored: Value = serde_json::from_str(&stored).unwrap();
        for (field, value) in resource["spec"].as_object().unwrap() {
            assert_eq!(&stored["spec"][field], value, "{name}: {field}");
        }
    }

    // Proves that the validation is strict.
    let folder = paths::temp_dir("nack").unwrap();
    for (field, value, expected) in [
        ("maxAges", "0s", "unknown field \"spec.maxAges\""),
        ("discard", "never", "Unsupported value: \"never\""),
    ] {
        let mut resource = resources().remove(0);
        resource["spec"][field] = value.into();
        let path = folder.path().join("wrong.yaml");
        std::fs::write(&path, resource.to_string()).unwrap();
        let error = apply(&kubernetes, &path.display().to_string()).await.unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dispatcher_without_provisioning_works_with_streams_of_nack() {
    assert_works_with_nack(Mode::Default).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dispatcher_without_provisioning_works_with_streams_of_the_nack_control_loop() {
    assert_works_with_nack(Mode::ControlLoop).await;
}

async fn assert_works_with_nack(mode: Mode) {
    only_on_kubernetes!("the local cluster has no CRDs");
    let kubernetes = or_skip!(control_plane_with_crds().await);
    let env = TestEnv::new(Nats::start().await, kubernetes.namespace().await).await;
    let _nack = or_skip!(Nack::start(kubernetes.kubeconfig_path(), &env.nats.url, mode).await);
    let path = file().display().to_string();
    apply(&kubernetes, &path).await.unwrap();
    until_created(&env).await;

    // As in nats-config/README.md.
    let namespaces: Api<Namespace> = Api::all(env.namespace.client.clone());
    let uid = namespaces.get(&env.namespace.name).await.unwrap().metadata.uid.unwrap();
    let patch = json!({"spec": {"metadata": {"natsjobs.dev/namespace-uid": uid}}}).to_string();
    let patched = ["patch", "streams.jetstream.nats.io", "job-status", "--type=merge", "--patch", &patch];
    kubernetes.kubectl(&patched).await.unwrap();
    until("the uid on JOB_STATUS", TIMEOUT, || async {
        let found = env.config("JOB_STATUS").await["metadata"]["natsjobs.dev/namespace-uid"].clone();
        if found == uid { Ok(()) } else { Err(found) }
    })
    .await;

    let (_folder, templates) = managed_template();
    let dispatcher = env.dispatcher().templates(templates).arg("--no-provision").start().await;
    env.request(r#"{"foo":"x"}"#).await;
    env.job("simple-job-x").await;
    let status = finished_status("Complete", 0, "CompletionsReached", "done");
    env.set_status("simple-job-x", status).await;
    assert_eq!(env.outcome("simple-job-x").await["result"], "Complete");

    // The streams are kept when the resources are deleted.
    kubernetes.kubectl(&["delete", "--timeout=120s", "-f", &path]).await.unwrap();
    until_created(&env).await;
    assert_eq!(env.outcome("simple-job-x").await["result"], "Complete");
    assert_eq!(dispatcher.terminate().await, Some(0));
}

/// Waits until each stream and consumer matches its shipped file.
async fn until_created(env: &TestEnv) {
    for (name, _) in resources_by_name() {
        until(&format!("{name} to match its file"), TIMEOUT, || async {
            let differences = env.differences_from_shipped(&name).await;
            if differences.is_empty() { Ok(()) } else { Err(differences) }
        })
        .await;
    }
}
