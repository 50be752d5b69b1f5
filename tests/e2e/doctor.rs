//! `dispatcher doctor`: a healthy set-up has no errors; each broken one has its finding and advice.
//! It changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use async_nats::jetstream;
use dispatcher_tests::job_controller::managed_template;
use dispatcher_tests::nats::Setup;
use dispatcher_tests::paths::NATS_VERSIONS;
use dispatcher_tests::test_env::{TestEnv, shipped_config};
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{Dispatcher, Kubernetes, Nats, only_on_kubernetes, or_skip, paths, until};
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::security::config_folder::{ConfigFolder, password_env};

/// A NATS without `JetStream` streams, and a namespace.
async fn env() -> Result<TestEnv, String> {
    Ok(TestEnv::new(Nats::process().await, Kubernetes::shared().await?.namespace().await).await)
}

/// Everything in NATS that a write would change.
async fn stored(context: &jetstream::Context) -> BTreeMap<String, Value> {
    let mut streams = context.streams();
    let mut stored = BTreeMap::new();
    while let Some(info) = streams.next().await {
        let info = info.unwrap();
        let (name, config) = (info.config.name.clone(), serde_json::to_value(&info.config).unwrap());
        let state = &info.state;
        let state = json!([state.last_sequence, state.messages, info.created.to_string()]);
        stored.insert(name, json!([config, state]));
    }
    stored
}

/// The consumers of all streams.
async fn consumers(context: &jetstream::Context) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for stream in ["JOBS", "JOB_STATUS", "JOB_REJECTED", "KV_JOB_CANCELS"] {
        let stream = context.get_stream(stream).await.unwrap();
        let mut names = stream.consumer_names();
        while let Some(name) = names.next().await {
            found.insert(name.unwrap());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn healthy_setup_has_no_errors_and_stays_unchanged() {
    for version in NATS_VERSIONS {
        let namespace = or_skip!(Kubernetes::shared().await).namespace().await;
        let env = TestEnv::new(Nats::process_of_version(version).await, namespace).await;
        let (_folder, templates) = managed_template();
        let dispatcher = env.dispatcher().templates(&templates).start().await;
        env.request(r#"{"foo":"a"}"#).await;
        env.until_last("simple-job-a", "ADDED").await;
        env.until_queue_is_empty().await;
        assert_eq!(dispatcher.terminate().await, Some(0));
        let sequence = env.request(r#"{"foo":"b"}"#).await;
        assert!(sequence > 0);
        // A purge would remove it.
        let kept = env.jetstream.publish("$KV.JOB_CANCELS.kept", "{}".into()).await.unwrap();
        kept.await.unwrap();
        let before = stored(&env.jetstream).await;
        let consumers_before = consumers(&env.jetstream).await;

        let report = env.dispatcher().templates(&templates).doctor().await;

        assert_eq!(report.code, Some(0), "{report:#?}");
        assert_eq!(stored(&env.jetstream).await, before);
        // Ephemeral consumers of the dispatcher end by themselves.
        assert!(consumers(&env.jetstream).await.is_subset(&consumers_before));
        report.assert(("warning", "kubernetes", "Lease"), "no dispatcher is running", "look at its pods");
        let queue = report.find("ok", "streams", "consumer dispatcher-simple");
        assert!(queue["message"].as_str().unwrap().starts_with("1 requests wait"), "{queue}");
        for (section, subject) in [
            ("configuration", "settings"),
            ("nats", "JetStream"),
            ("streams", "stream JOB_STATUS"),
            ("nats-permissions", "role"),
            ("kubernetes", "API server"),
            ("kubernetes-permissions", "Role"),
            ("templates", ".yaml"),
            ("clock", "the API server"),
            ("clock", "NATS"),
        ] {
            report.find("ok", section, subject);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn running_dispatcher_is_the_leader_and_there_is_no_warning() {
    let env = or_skip!(env().await);
    let _dispatcher = env.dispatcher().start().await;
    let leases: Api<Lease> = Api::namespaced(env.namespace.client.clone(), &env.namespace.name);
    until("a leader", TIMEOUT, || async { leases.get("dispatcher").await.ok()?.spec?.holder_identity }).await;
    let report = env.dispatcher().doctor().await;
    assert_eq!(report.code, Some(0), "{report:#?}");
    assert_eq!(report.of_severity("warning"), Vec::<&Value>::new());
    report.find("ok", "kubernetes", "Lease dispatcher");
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_before_the_first_start_is_healthy_and_nothing_is_created() {
    for version in NATS_VERSIONS {
        let namespace = or_skip!(Kubernetes::shared().await).namespace().await;
        let env = TestEnv::new(Nats::process_of_version(version).await, namespace).await;
        let report = env.dispatcher().doctor().await;
        assert_eq!(report.code, Some(0), "{report:#?}");
        let jobs = report.find("ok", "streams", "stream JOBS");
        assert_eq!(jobs["message"], "does not exist; the start creates it");
        assert_eq!(stored(&env.jetstream).await, BTreeMap::new());
        let report = env.dispatcher().arg("--no-provision").doctor().await;
        let missing = "and --no-provision forbids to create it";
        let create = "nats stream add --config DIRECTORY/JOBS.json";
        report.assert(("error", "streams", "stream JOBS"), missing, create);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn single_replica_in_a_cluster_is_named_and_the_streams_stay_unchanged() {
    let namespace = or_skip!(Kubernetes::shared().await).namespace().await;
    let env = TestEnv::new(Nats::cluster().await, namespace).await;
    for stream in ["JOBS", "JOB_STATUS", "JOB_REJECTED", "KV_JOB_CANCELS"] {
        let mut config = shipped_config(stream);
        config["num_replicas"] = if stream == "JOBS" { 1.into() } else { 3.into() };
        env.create_stream(&config).await;
    }
    env.request(r#"{"foo":"a"}"#).await;
    let before = stored(&env.jetstream).await;
    let report = env.dispatcher().doctor().await;
    assert_eq!(report.code, Some(0), "{report:#?}");
    assert_eq!(stored(&env.jetstream).await, before);
    report.assert(("warning", "streams", "stream JOBS"), "1 replica", "nats stream edit JOBS --replicas 3");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_with_a_prefix_are_checked() {
    let env = or_skip!(env().await);
    let blue = || env.dispatcher().env("DISPATCHER_PREFIX", "blue");
    let report = blue().doctor().await;
    assert_eq!(report.find("ok", "streams", "blue_JOBS")["message"], "does not exist; the start creates it");
    assert_eq!(blue().start().await.terminate().await, Some(0));
    let report = blue().doctor().await;
    assert_eq!(report.code, Some(0), "{report:#?}");
    let streams = ["blue_JOBS", "blue_JOB_STATUS", "blue_JOB_REJECTED", "KV_blue_JOB_CANCELS"];
    for stream in streams {
        report.find("ok", "streams", stream);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shipped_role_suffices_and_hides_only_the_limits_of_the_account() {
    let env = or_skip!(password_env(ConfigFolder::new().by_password("accounts.conf").await).await);
    assert_eq!(env.dispatcher().start().await.terminate().await, Some(0));
    let before = stored(&env.jetstream).await;
    let report = env.dispatcher().doctor().await;
    assert_eq!(report.code, Some(0), "{report:#?}");
    assert_eq!(stored(&env.jetstream).await, before);
    let hidden = report.find("skipped", "nats", "account");
    assert!(hidden["message"].as_str().unwrap().contains("nats account info"), "{hidden}");
    let untested: Vec<_> = report
        .of_severity("skipped")
        .into_iter()
        .filter(|finding| finding["section"] == "nats-permissions")
        .map(|finding| finding["subject"].clone())
        .collect();
    let expected = [
        "publish to $JS.API.STREAM.PURGE.KV_JOB_CANCELS",
        "publish to jobs.*.rejected.*",
        "publish to jobs.*.status._rejected",
    ];
    assert_eq!(untested, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_nats_url_hides_no_other_part() {
    let env = or_skip!(env().await);
    let report = env.dispatcher().env("NATS_URL", "nats://127.0.0.1:1").doctor().await;
    report.assert(("error", "nats", "nats://127.0.0.1:1"), "Connection refused", "check NATS_URL");
    report.find("skipped", "streams", "all checks");
    report.find("ok", "kubernetes-permissions", "Role");
    report.find("ok", "templates", "simple.yaml");
}

#[tokio::test(flavor = "multi_thread")]
async fn unreachable_api_server_hides_no_other_part() {
    let env = or_skip!(env().await);
    let folder = paths::temp_dir("doctor").unwrap();
    let kubeconfig = kubeconfig(&folder, 1);
    let report = env.dispatcher().env("KUBECONFIG", &kubeconfig).doctor().await;
    report.assert(("error", "kubernetes", "API server"), "onnect", "check the server address");
    report.find("ok", "nats", "JetStream");
    report.find("ok", "templates", "simple.yaml");
    let report = env.dispatcher().env("KUBECONFIG", "/nowhere").doctor().await;
    report.assert(("error", "kubernetes", "API server"), "/nowhere", "set KUBECONFIG");
}

/// A kubeconfig of a server without TLS at this port.
fn kubeconfig(folder: &tempfile::TempDir, port: u16) -> String {
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": format!("http://127.0.0.1:{port}")}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]});
    let path = folder.path().join("kubeconfig");
    std::fs::write(&path, config.to_string()).unwrap();
    path.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_login_is_told_from_an_unreadable_file() {
    let env = or_skip!(password_env(ConfigFolder::new().by_password("accounts.conf").await).await);
    let report = env.dispatcher().env("NATS_PASSWORD", "wrong").doctor().await;
    report.assert(
        ("error", "nats", "server"),
        "NATS_USER: cannot connect",
        "the server must know this login",
    );
    let without = || Dispatcher::builder(&env.nats, &env.namespace);
    let report = without().env("NATS_CREDS", "/nowhere").doctor().await;
    report.assert(
        ("error", "nats", "server"),
        "NATS_CREDS: /nowhere: No such file",
        "its file must be readable",
    );
}

/// A server whose only account has this block `jetstream`.
async fn nats_with_jetstream(setting: &str) -> Nats {
    let folder = paths::temp_dir("doctor").unwrap();
    let file = folder.path().join("nats.conf");
    let users = r#"[{user: u, password: ""}]"#;
    // The testbed itself waits for JetStream, by its own account.
    let tests = "T {jetstream: enabled, users: [{user: t, password: t}]}";
    let config =
        format!("accounts {{A {{jetstream: {setting}, users: {users}}}, {tests}}}\nno_auth_user: u\n");
    std::fs::write(&file, config).unwrap();
    let args = vec!["--config".to_owned(), file.display().to_string()];
    let options = async_nats::ConnectOptions::with_user_and_password("t".into(), "t".into());
    Nats::process_of(Setup { args, options, ..Setup::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn account_without_jetstream_is_named() {
    let namespace = or_skip!(Kubernetes::shared().await).namespace().await;
    let nats = nats_with_jetstream("disabled").await;
    let report = Dispatcher::builder(&nats, &namespace).doctor().await;
    report.assert(("error", "nats", "JetStream"), "", "jetstream: enabled");
    report.find("skipped", "streams", "all checks");
}

#[tokio::test(flavor = "multi_thread")]
async fn account_that_is_too_small_for_the_missing_streams_is_named() {
    let namespace = or_skip!(Kubernetes::shared().await).namespace().await;
    let nats = nats_with_jetstream("{max_mem: 64M, max_file: 2GB, max_streams: 10}").await;
    let report = Dispatcher::builder(&nats, &namespace).doctor().await;
    let left = "2.0 GiB are left, and the missing streams reserve 3.3 GiB";
    report.assert(("error", "nats", "account"), left, "raise max_file of the account");
}

#[tokio::test(flavor = "multi_thread")]
async fn denied_subjects_are_named_as_lines_of_the_role() {
    let folder = ConfigFolder::new();
    folder.edit("roles/dispatcher.conf", "\"$KV.JOB_CANCELS.>\"", "");
    folder.edit("roles/dispatcher.conf", "\"jobs.*.submit\"", "");
    let env = or_skip!(password_env(folder.by_password("accounts.conf").await).await);
    let report = env.dispatcher().doctor().await;
    let publish = ("error", "nats-permissions", "publish to $KV.JOB_CANCELS.>");
    report.assert(publish, "is denied", "add \"$KV.JOB_CANCELS.>\" to `publish`");
    let subscribe = ("error", "nats-permissions", "subscribe to jobs.*.submit");
    report.assert(subscribe, "is denied", "add \"jobs.*.submit\" to `subscribe`");
    let denied: Vec<_> = report.of_severity("error").into_iter().map(|finding| &finding["subject"]).collect();
    assert_eq!(denied.len(), 2, "{denied:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn role_without_provisioning_needs_the_flag() {
    let folder = ConfigFolder::new();
    folder.edit("accounts.conf", "roles/dispatcher.conf", "roles/dispatcher-no-provision.conf");
    let env = or_skip!(password_env(folder.by_password("accounts.conf").await).await);
    let report = env.dispatcher().doctor().await;
    let create = ("error", "nats-permissions", "STREAM.CREATE.JOBS");
    report.assert(create, "JOBS does not exist", "run with --no-provision");
    let report = env.dispatcher().arg("--no-provision").doctor().await;
    let denied = report.findings.iter().filter(|finding| finding["section"] == "nats-permissions");
    assert!(denied.clone().all(|finding| finding["severity"] != "error"), "{:?}", denied.collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn other_stream_on_the_subjects_is_named() {
    let env = or_skip!(env().await);
    env.create_stream(&json!({"name": "ALL", "subjects": ["jobs.>"], "storage": "file"})).await;
    let report = env.dispatcher().doctor().await;
    let captured = "captures jobs.simple.create, which JOBS needs";
    let findings = report.of_severity("error");
    let finding = findings.into_iter().find(|finding| finding["message"] == captured);
    let finding = finding.unwrap_or_else(|| panic!("{report:#?}"));
    assert_eq!(finding["subject"], "stream ALL");
    assert!(finding["advice"].as_str().unwrap().contains("nats stream edit ALL"), "{finding}");
    report.assert(("warning", "streams", "stream ALL"), "loses events", "source JOB_STATUS");
}

#[tokio::test(flavor = "multi_thread")]
async fn harmful_setting_is_named_with_the_command_to_change_it() {
    let env = or_skip!(env().await);
    let mut config = shipped_config("JOBS");
    config["max_age"] = json!(3_600_000_000_000_u64);
    config["max_bytes"] = json!(-1);
    env.create_stream(&config).await;
    let report = env.dispatcher().doctor().await;
    let stream = ("error", "streams", "stream JOBS");
    report.assert(stream, "max_age: found 3600000000000, must be unset", "nats stream edit JOBS");
    report.assert(("warning", "streams", "stream JOBS"), "max_bytes: found -1", "nats stream edit JOBS");
}

#[tokio::test(flavor = "multi_thread")]
async fn full_stream_of_requests_is_named() {
    let env = or_skip!(env().await);
    let mut config = shipped_config("JOBS");
    config["max_bytes"] = json!(1024 * 1024);
    env.create_stream(&config).await;
    for size in [60_000, 1000] {
        let fill = || async {
            let ack = env.jetstream.publish("jobs.simple.create", vec![b' '; size].into()).await.unwrap();
            ack.await.map(drop).map_err(|error| error.to_string())
        };
        until("the stream to be full", TIMEOUT, || async { fill().await.err() }).await;
    }
    let report = env.dispatcher().doctor().await;
    let stream = ("error", "streams", "stream JOBS");
    report.assert(
        stream,
        "of 1.0 MiB are used: new messages are refused",
        "nats stream edit JOBS --max-bytes",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn status_stream_of_another_namespace_is_named() {
    let env = or_skip!(env().await);
    assert_eq!(env.dispatcher().start().await.terminate().await, Some(0));
    let other = or_skip!(Kubernetes::shared().await).namespace().await;
    let report = Dispatcher::builder(&env.nats, &other).doctor().await;
    let stream = ("error", "streams", "stream JOB_STATUS");
    report.assert(stream, "belongs to another cluster's Jobs", "its own NATS account");
    let report = Dispatcher::builder(&env.nats, &other).arg("--adopt").doctor().await;
    assert_eq!(report.code, Some(0), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn queue_of_a_removed_template_is_named() {
    let env = or_skip!(env().await);
    assert_eq!(env.dispatcher().start().await.terminate().await, Some(0));
    env.publish_to("memory", json!({})).await.unwrap();
    let folder = paths::temp_dir("doctor").unwrap();
    let simple = paths::workspace().join("deploy/templates/simple.yaml");
    std::fs::copy(simple, folder.path().join("simple.yaml")).unwrap();
    let report = env.dispatcher().templates(folder.path()).doctor().await;
    assert_eq!(report.code, Some(0), "{report:#?}");
    let template = ("warning", "streams", "template memory");
    report.assert(template, "its queue has 1 requests", "nats consumer rm JOBS dispatcher-memory");
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_verb_is_named_with_the_role() {
    let env = or_skip!(env().await);
    env.namespace.revoke("patch").await;
    let name = &env.namespace.name;
    let subject = format!("patch jobs.batch in {name}");
    let report = until("the permission to be revoked", TIMEOUT, || async {
        let report = env.dispatcher().doctor().await;
        if report.code == Some(1) { Ok(report) } else { Err("it is still granted") }
    })
    .await;
    let permission = ("error", "kubernetes-permissions", subject.as_str());
    report.assert(permission, "is not granted", "add the verb patch on jobs");
    assert_eq!(report.of_severity("error").len(), 1, "{report:#?}");
    env.namespace.grant("patch").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_namespace_is_named() {
    let env = or_skip!(env().await);
    let admin = or_skip!(Kubernetes::shared().await).kubeconfig_path().display().to_string();
    let report = Dispatcher::builder_with(&env.nats.url, &admin, "unknown").doctor().await;
    let namespace = ("error", "kubernetes", "namespace unknown");
    report.assert(namespace, "does not exist", "kubectl create namespace unknown");
    let owner = report.find("skipped", "streams", "owner");
    assert!(owner["message"].as_str().unwrap().contains("uid of the namespace is unknown"), "{owner}");
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_definition_of_job_templates_is_named() {
    let kubernetes = or_skip!(Kubernetes::control_plane(dispatcher_tests::Options::default()).await);
    let env = TestEnv::new(Nats::process().await, kubernetes.namespace().await).await;
    let report = env.dispatcher().env("DISPATCHER_JOB_TEMPLATES", "true").doctor().await;
    let crd = ("error", "kubernetes", "CustomResourceDefinition");
    report.assert(crd, "is not installed", "kubectl apply -f deploy/base/crd.yaml");
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_template_is_named_by_field() {
    let env = or_skip!(env().await);
    let folder = paths::temp_dir("doctor").unwrap();
    let simple = std::fs::read_to_string(paths::workspace().join("deploy/templates/simple.yaml")).unwrap();
    std::fs::write(folder.path().join("good.yaml"), &simple).unwrap();
    let bad = simple.replace("name: simple\n", "name: other\n").replace("jobName:", "jobname:");
    std::fs::write(folder.path().join("bad.yaml"), bad).unwrap();
    let report = env.dispatcher().templates(folder.path()).doctor().await;
    report.assert(("error", "templates", "bad.yaml"), "spec", "dispatcher check");
    report.find("ok", "templates", "good.yaml");
}

#[tokio::test(flavor = "multi_thread")]
async fn clock_that_is_an_hour_ahead_is_named() {
    let library = or_skip!(paths::faketime()).display().to_string();
    let env = or_skip!(env().await);
    assert_eq!(env.dispatcher().start().await.terminate().await, Some(0));
    let skewed = env.dispatcher().env("LD_PRELOAD", &library).env("FAKETIME", "+3600s");
    let report = skewed.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").doctor().await;
    for of in ["the API server", "NATS"] {
        let advice = "synchronize the clock of this machine";
        report.assert(("error", "clock", of), &format!("s ahead of {of} (limit: 60 s"), advice);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_variables_are_named_and_the_rest_is_checked() {
    let env = or_skip!(env().await);
    let wrong = env.dispatcher().env("DISPATCHER_CONCURENCY", "8").env("DISPATCHER_MAX_WAIT", "1h");
    let report = wrong.doctor().await;
    let correct = "correct the name of the variable";
    report.assert(("error", "configuration", "DISPATCHER_CONCURENCY"), "DISPATCHER_CONCURRENCY", correct);
    let max_wait = ("error", "configuration", "DISPATCHER_MAX_WAIT=1h");
    report.assert(max_wait, "expected a whole number", "correct DISPATCHER_MAX_WAIT");
    report.find("ok", "nats", "JetStream");
    let conflict = env.dispatcher().env("NATS_TOKEN", "a").env("NATS_USER", "b").doctor().await;
    conflict.assert(("error", "configuration", "NATS_"), "cannot be set together", "correct NATS_");
    conflict.find("skipped", "nats", "all checks");
    conflict.find("ok", "kubernetes", "API server");
}

/// Serves connections with `greeting`, and answers what `reply` returns for each received text.
async fn serve(greeting: &'static str, reply: fn(&str) -> Option<String>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.write_all(greeting.as_bytes()).await;
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                    let answer = reply(&String::from_utf8_lossy(&buffer[..read]));
                    let _ = stream.write_all(answer.unwrap_or_default().as_bytes()).await;
                }
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn old_nats_server_is_named() {
    let env = or_skip!(env().await);
    let greeting = concat!(
        r#"INFO {"server_id":"A","version":"2.9.25","max_payload":1000,"proto":1,"headers":true}"#,
        "\r\n"
    );
    let pong = |received: &str| received.contains("PING").then(|| "PONG\r\n".to_owned());
    let port = serve(greeting, pong).await;
    let report = env.dispatcher().env("NATS_URL", &format!("nats://127.0.0.1:{port}")).doctor().await;
    let subjects = report.of_severity("error").into_iter().map(|finding| finding["message"].clone());
    let subjects: Vec<_> = subjects.collect();
    assert!(subjects.contains(&json!("nats-server 2.9.25 is not supported (2.10 or newer is needed)")));
    report.assert(("error", "nats", "server"), "2.9.25", "update nats-server to 2.10.26 or newer");
    let payload = report
        .of_severity("error")
        .into_iter()
        .find(|f| f["message"].as_str().unwrap().contains("max_payload"));
    assert!(payload.unwrap()["advice"].as_str().unwrap().contains("at least 16384 bytes"));
    report.find("error", "nats", "JetStream");
}

#[tokio::test(flavor = "multi_thread")]
async fn old_kubernetes_is_named() {
    let env = or_skip!(env().await);
    let answer = |received: &str| {
        let body = json!({"major": "1", "minor": "29", "gitVersion": "v1.29.9"}).to_string();
        let (status, body) = match received.starts_with("GET /version") {
            true => ("200 OK", body),
            false => {
                ("404 Not Found", json!({"kind": "Status", "status": "Failure", "code": 404}).to_string())
            }
        };
        let length = body.len();
        Some(format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        ))
    };
    let port = serve("", answer).await;
    let folder = paths::temp_dir("doctor").unwrap();
    let report = env.dispatcher().env("KUBECONFIG", &kubeconfig(&folder, port)).doctor().await;
    report.assert(("error", "kubernetes", "API server"), "v1.29.9 is not supported", "update the cluster");
}

#[tokio::test(flavor = "multi_thread")]
async fn administrator_sees_quotas_policies_and_referenced_objects() {
    only_on_kubernetes!("the local cluster has no quotas, policies and priority classes");
    let kubernetes = or_skip!(Kubernetes::control_plane(dispatcher_tests::Options::default()).await);
    let env = TestEnv::new(Nats::process().await, kubernetes.namespace().await).await;
    let quotas: Api<ResourceQuota> = Api::namespaced(env.namespace.client.clone(), &env.namespace.name);
    let quota = json!({"metadata": {"name": "none"}, "spec": {"hard": {"count/jobs.batch": "0"}}});
    quotas.create(&PostParams::default(), &serde_json::from_value(quota).unwrap()).await.unwrap();
    until("the quota to have a status", TIMEOUT, || async {
        quotas.get("none").await.ok()?.status?.used.filter(|used| used.contains_key("count/jobs.batch"))
    })
    .await;
    let folder = paths::temp_dir("doctor").unwrap();
    let simple = std::fs::read_to_string(paths::workspace().join("deploy/templates/simple.yaml")).unwrap();
    let template = simple
        .replace("serviceAccountName: job", "serviceAccountName: absent\n          priorityClassName: high");
    std::fs::write(folder.path().join("simple.yaml"), template).unwrap();

    let admin = kubernetes.kubeconfig_path().display().to_string();
    let doctor = Dispatcher::builder_with(&env.nats.url, &admin, &env.namespace.name);
    let report = doctor.templates(folder.path()).doctor().await;

    let quota = ("warning", "kubernetes", "quota none");
    report.assert(quota, "count/jobs.batch is exhausted (limit: 0)", "edit resourcequota none");
    report.assert(
        ("warning", "kubernetes", "admission policy"),
        "no Validating",
        "deploy/base/admission.yaml",
    );
    let excess = ("warning", "kubernetes-permissions", "excess");
    report.assert(excess, "may read Secrets", "a ServiceAccount of its own");
    report.assert(
        ("error", "templates", "ServiceAccount absent"),
        "does not exist",
        "create it in the namespace",
    );
    report.assert(
        ("error", "templates", "PriorityClass high"),
        "does not exist",
        "kubectl get priorityclasses",
    );
    // The account of the dispatcher may read none of them.
    let report = env.dispatcher().templates(folder.path()).doctor().await;
    for (section, subject) in [
        ("kubernetes", "admission policy"),
        ("kubernetes", "quotas"),
        ("templates", "referenced serviceaccounts"),
        ("templates", "referenced priorityclasses"),
    ] {
        report.find("skipped", section, subject);
    }
    assert_eq!(report.code, Some(0), "{report:#?}");
}
