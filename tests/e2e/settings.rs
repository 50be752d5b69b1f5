//! Invalid settings. The dispatcher exits with code 2 and one line that names the setting; it never
//! panics.

use dispatcher_tests::kubernetes::is_local;
use dispatcher_tests::test_env::{TestEnv, shipped_config};
use dispatcher_tests::{Dispatcher, dispatcher::Builder, or_skip, paths};
use serde_json::{Value, json};

/// Asserts that the dispatcher exits with code 2 and one line with `setting` and `reason`.
pub(crate) async fn assert_refused(builder: Builder, setting: &str, reason: &str) {
    let dispatcher = builder.without_waiting().start().await;
    assert_eq!(dispatcher.wait().await, Some(2), "{}", dispatcher.log());
    let log = dispatcher.log();
    let lines: Vec<_> = log.lines().filter(|line| line.starts_with("dispatcher: ")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].starts_with(&format!("dispatcher: {setting}")), "{setting} is not named: {log}");
    assert!(lines[0].contains(reason), "{reason:?} is missing: {log}");
    assert!(!log.contains("panicked"), "{log}");
    assert!(log.lines().count() < 10, "too many lines: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_setting_is_named_in_one_line() {
    let env = or_skip!(TestEnv::start().await);
    let folder = paths::temp_dir("settings").unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("empty")).unwrap();
    std::fs::create_dir(path("bad")).unwrap();
    std::fs::write(path("bad").join("a.yaml"), "kind: simple\n").unwrap();
    let text = |name: &str| path(name).display().to_string();

    let dispatcher = || env.dispatcher();
    assert_refused(dispatcher().env("NATS_URL", "nats://[::1"), "NATS_URL", "invalid").await;
    assert_refused(dispatcher().env("NATS_CREDS", &text("none")), "NATS_CREDS", "No such file").await;
    assert_refused(dispatcher().env("KUBECONFIG", &text("none")), "KUBECONFIG", "none").await;
    assert_refused(dispatcher().env("DISPATCHER_NAMESPACE", "Not_One"), "DISPATCHER_NAMESPACE", "Not_One")
        .await;
    if !is_local() {
        // The local cluster does not enforce permissions.
        assert_refused(
            dispatcher().env("DISPATCHER_NAMESPACE", "kube-system"),
            "DISPATCHER_NAMESPACE",
            "forbidden",
        )
        .await;
    }
    for (variable, value, expected) in [
        ("DISPATCHER_CONCURRENCY", "abc", "expected a whole number from 1 to 1024"),
        ("DISPATCHER_MAX_WAIT", "0", "expected a whole number from 1 to 86400"),
        ("RUST_LOG", "dispatcher=loud", "allowed: `error`"),
    ] {
        let setting = format!("{variable}={value}");
        assert_refused(dispatcher().env(variable, value), &setting, expected).await;
    }
    assert_refused(dispatcher().templates(path("none")), "DISPATCHER_TEMPLATES", "No such file").await;
    assert_refused(dispatcher().templates(path("empty")), "DISPATCHER_TEMPLATES", ".yaml").await;
    assert_refused(dispatcher().templates(path("bad")), "DISPATCHER_TEMPLATES", "a.yaml: apiVersion").await;
    assert_refused(
        dispatcher().env("DISPATCHER_ADMIN_ADDR", env.nats.url.trim_start_matches("nats://")),
        "DISPATCHER_ADMIN_ADDR",
        "in use",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn misspelled_setting_is_refused_with_the_closest_name() {
    let env = or_skip!(TestEnv::start().await);
    let dispatcher = env.dispatcher().env("DISPATCHER_CONCURENCY", "8");
    assert_refused(dispatcher, "DISPATCHER_CONCURENCY", "DISPATCHER_CONCURRENCY").await;
    // Kubernetes injects these for a Service named `dispatcher`.
    let injected =
        [("DISPATCHER_SERVICE_HOST", "10.0.0.1"), ("DISPATCHER_PORT_8080_TCP", "tcp://10.0.0.1:8080")];
    let dispatcher =
        injected.iter().fold(env.dispatcher(), |builder, (name, value)| builder.env(name, value));
    assert_eq!(dispatcher.start().await.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_namespace_is_refused() {
    let env = or_skip!(TestEnv::start().await);
    let admin =
        or_skip!(dispatcher_tests::Kubernetes::shared().await).kubeconfig_path().display().to_string();
    let dispatcher = Dispatcher::builder_with(&env.nats.url, &admin, "unknown");
    assert_refused(dispatcher, "DISPATCHER_NAMESPACE", "\"unknown\"").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_nats_password_is_refused() {
    let folder = paths::temp_dir("accounts").unwrap();
    let users = r#"{user: default, password: ""}, {user: u, password: right}"#;
    let config = format!("accounts {{A {{jetstream: enabled, users: [{users}]}}}}\nno_auth_user: default\n");
    std::fs::write(folder.path().join("nats.conf"), config).unwrap();
    let config = folder.path().join("nats.conf").display().to_string();
    let nats = dispatcher_tests::Nats::process_with(&["--config", &config]).await;
    let kubernetes = or_skip!(dispatcher_tests::Kubernetes::shared().await);
    let namespace = kubernetes.namespace().await;
    let dispatcher = || Dispatcher::builder(&nats, &namespace).env("NATS_USER", "u");
    assert_refused(dispatcher().env("NATS_PASSWORD", "wrong"), "NATS_USER", "authorization").await;
    dispatcher().env("NATS_PASSWORD", "right").start().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_without_a_required_setting_is_refused_by_field() {
    for (stream, field, value, error) in [
        (
            "JOBS",
            "retention",
            json!("limits"),
            "stream JOBS: retention: found \"limits\", must be \"workqueue\"",
        ),
        ("JOBS", "storage", json!("memory"), "stream JOBS: storage"),
        ("JOBS", "discard_new_per_subject", json!(false), "stream JOBS: discard_new_per_subject"),
        ("JOB_STATUS", "subject_transform", Value::Null, "stream JOB_STATUS: subject_transform"),
        ("JOB_STATUS", "republish", Value::Null, "stream JOB_STATUS: republish"),
    ] {
        let env = or_skip!(TestEnv::start().await);
        let mut config = shipped_config(stream);
        config[field] = value;
        env.create_stream(&config).await;
        assert_refused(env.dispatcher(), error, "must be").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_provision_creates_no_stream() {
    let env = or_skip!(TestEnv::start().await);
    assert_refused(env.dispatcher().arg("--no-provision"), "stream JOBS", "--no-provision").await;
    assert!(env.jetstream.get_stream("JOBS").await.is_err());
    for stream in ["JOBS", "JOB_STATUS", "JOB_REJECTED", "KV_JOB_CANCELS"] {
        env.create_stream(&shipped_config(stream)).await;
    }
    assert_refused(env.dispatcher().arg("--no-provision"), "stream JOB_STATUS", "metadata").await;
    // A start with provisioning adds the missing parts. Later starts only verify.
    assert_eq!(env.dispatcher().start().await.terminate().await, Some(0));
    assert_eq!(env.dispatcher().arg("--no-provision").start().await.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn status_stream_of_another_namespace_is_refused_without_adopt() {
    let env = or_skip!(TestEnv::start().await);
    assert_eq!(env.dispatcher().start().await.terminate().await, Some(0));
    let kubernetes = or_skip!(dispatcher_tests::Kubernetes::shared().await);
    let other = kubernetes.namespace().await;
    let other_dispatcher = || Dispatcher::builder(&env.nats, &other);
    assert_refused(other_dispatcher(), "stream JOB_STATUS", "--adopt").await;
    assert_eq!(other_dispatcher().arg("--adopt").start().await.terminate().await, Some(0));
    assert_eq!(other_dispatcher().start().await.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn new_template_adds_its_subject_and_keeps_the_others() {
    let env = or_skip!(TestEnv::start().await);
    assert_eq!(env.dispatcher().start().await.terminate().await, Some(0));
    let folder = paths::temp_dir("templates").unwrap();
    let simple = std::fs::read_to_string(paths::workspace().join("deploy/templates/simple.yaml")).unwrap();
    std::fs::write(
        folder.path().join("other.yaml"),
        simple.replace("name: simple\nspec", "name: other\nspec"),
    )
    .unwrap();
    let _dispatcher = env.dispatcher().templates(folder.path()).start().await;
    let stream = env.jetstream.get_stream("JOBS").await.unwrap();
    let subjects = &stream.cached_info().config.subjects;
    assert_eq!(*subjects, ["jobs.memory.create", "jobs.simple.create", "jobs.other.create"]);
}

/// Finished Jobs of the shipped template have a TTL of 600 s.
#[tokio::test(flavor = "multi_thread")]
async fn ack_wait_longer_than_the_ttl_of_finished_jobs_is_refused() {
    let env = or_skip!(TestEnv::start().await);
    env.create_stream(&shipped_config("JOBS")).await;
    let mut config = shipped_config("dispatcher-simple");
    config["ack_wait"] = 700_000_000_000_u64.into();
    let subject = "CONSUMER.DURABLE.CREATE.JOBS.dispatcher-simple";
    let created: Value =
        env.jetstream.request(subject, &json!({"stream_name": "JOBS", "config": config})).await.unwrap();
    assert!(created["error"].is_null(), "{created}");
    assert_refused(env.dispatcher(), "DISPATCHER_TEMPLATES", "700").await;
}
