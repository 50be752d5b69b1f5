//! Settings that are wrong: one line that names the setting and exit code 2, never a panic; or not ready, with the reason.

use dispatcher_tests::kubernetes::is_local;
use dispatcher_tests::{Dispatcher, dispatcher::Builder, or_skip, paths, ports};
use serde_json::{Value, json};

use crate::world::{World, shipped};

/// The service refuses to start: exit code 2, and one line names `setting` and says `why`.
pub(crate) async fn refuses(builder: Builder, setting: &str, why: &str) {
    let dispatcher = builder.without_waiting().start().await;
    assert_eq!(dispatcher.wait().await, Some(2), "{}", dispatcher.log());
    let log = dispatcher.log();
    let lines: Vec<_> = log.lines().filter(|line| line.starts_with("dispatcher: ")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].starts_with(&format!("dispatcher: {setting}")), "names {setting}: {log}");
    assert!(lines[0].contains(why), "says {why}: {log}");
    assert!(!log.contains("panicked"), "{log}");
    assert!(log.lines().count() < 10, "a few lines: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_wrong_setting_is_named_in_one_line() {
    let world = or_skip!(World::start().await);
    let folder = paths::temp_dir("settings").unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("empty")).unwrap();
    std::fs::create_dir(at("bad")).unwrap();
    std::fs::write(at("bad").join("a.yaml"), "kind: simple\n").unwrap();
    let no_server = format!("nats://127.0.0.1:{}", ports::free());
    let nowhere = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": format!("http://127.0.0.1:{}", ports::free())}}],
        "users": [{"name": "u", "user": {}}], "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    std::fs::write(at("kubeconfig"), nowhere.to_string()).unwrap();
    let text = |name: &str| at(name).display().to_string();

    let dispatcher = || world.dispatcher();
    refuses(dispatcher().env("NATS_URL", &no_server), "NATS_URL", "cannot connect to nats://127.0.0.1:")
        .await;
    refuses(dispatcher().env("NATS_CREDS", &text("none")), "NATS_CREDS", "No such file").await;
    refuses(dispatcher().env("KUBECONFIG", &text("none")), "KUBECONFIG", "none").await;
    refuses(dispatcher().env("KUBECONFIG", &text("kubeconfig")), "KUBECONFIG", "cannot be reached").await;
    refuses(
        dispatcher().env("DISPATCHER_NAMESPACE", "Not_One"),
        "DISPATCHER_NAMESPACE",
        "not a valid namespace name",
    )
    .await;
    if !is_local() {
        // The local cluster knows no rights.
        refuses(
            dispatcher().env("DISPATCHER_NAMESPACE", "kube-system"),
            "DISPATCHER_NAMESPACE",
            "missing permission",
        )
        .await;
    }
    refuses(dispatcher().templates(at("none")), "DISPATCHER_TEMPLATES", "cannot be read").await;
    refuses(dispatcher().templates(at("empty")), "DISPATCHER_TEMPLATES", "holds no template").await;
    refuses(dispatcher().templates(at("bad")), "DISPATCHER_TEMPLATES", "spec").await;
    refuses(
        dispatcher().env("DISPATCHER_ADMIN_ADDR", world.nats.url.trim_start_matches("nats://")),
        "DISPATCHER_ADMIN_ADDR",
        "in use",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_namespace_is_named() {
    let world = or_skip!(World::start().await);
    let admin =
        or_skip!(dispatcher_tests::Kubernetes::shared().await).kubeconfig_path().display().to_string();
    let dispatcher = Dispatcher::builder_with(&world.nats.url, &admin, "nowhere");
    refuses(dispatcher, "DISPATCHER_NAMESPACE", "namespace \"nowhere\" does not exist").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_named() {
    let folder = paths::temp_dir("accounts").unwrap();
    let users = r#"{user: anybody, password: ""}, {user: u, password: right}"#;
    let config = format!("accounts {{A {{jetstream: enabled, users: [{users}]}}}}\nno_auth_user: anybody\n");
    std::fs::write(folder.path().join("nats.conf"), config).unwrap();
    let config = folder.path().join("nats.conf").display().to_string();
    let nats = dispatcher_tests::Nats::process_with(&["--config", &config]).await;
    let kubernetes = or_skip!(dispatcher_tests::Kubernetes::shared().await);
    let namespace = kubernetes.namespace().await;
    let dispatcher = || Dispatcher::builder(&nats, &namespace).env("NATS_USER", "u");
    refuses(dispatcher().env("NATS_PASSWORD", "wrong"), "NATS_USER", "authorization").await;
    dispatcher().env("NATS_PASSWORD", "right").start().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_on_which_no_promise_can_rest_is_refused_by_field() {
    for (stream, field, value, setting) in [
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
        let world = or_skip!(World::start().await);
        let mut config = shipped(stream);
        config[field] = value;
        world.make_stream(&config).await;
        refuses(world.dispatcher(), setting, "must be").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_provision_creates_nothing() {
    let world = or_skip!(World::start().await);
    refuses(world.dispatcher().arg("--no-provision"), "stream JOBS", "is not there").await;
    assert!(world.jetstream.get_stream("JOBS").await.is_err());
    for stream in ["JOBS", "JOB_STATUS", "JOB_REJECTED", "KV_JOB_CANCELS"] {
        world.make_stream(&shipped(stream)).await;
    }
    refuses(world.dispatcher().arg("--no-provision"), "stream JOB_STATUS", "metadata").await;
    // A start that may provision adds what lacks; from then on verifying is enough.
    assert_eq!(world.dispatcher().start().await.terminate().await, Some(0));
    assert_eq!(world.dispatcher().arg("--no-provision").start().await.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_stream_of_another_namespace_is_refused_unless_adopted() {
    let world = or_skip!(World::start().await);
    assert_eq!(world.dispatcher().start().await.terminate().await, Some(0));
    let kubernetes = or_skip!(dispatcher_tests::Kubernetes::shared().await);
    let other = kubernetes.namespace().await;
    let elsewhere = || Dispatcher::builder(&world.nats, &other);
    refuses(elsewhere(), "stream JOB_STATUS", "tells of another cluster's Jobs").await;
    assert_eq!(elsewhere().arg("--adopt").start().await.terminate().await, Some(0));
    assert_eq!(elsewhere().start().await.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_kind_adds_its_subject_and_keeps_the_others() {
    let world = or_skip!(World::start().await);
    assert_eq!(world.dispatcher().start().await.terminate().await, Some(0));
    let folder = paths::temp_dir("kinds").unwrap();
    let simple = std::fs::read_to_string(paths::workspace().join("deploy/templates/simple.yaml")).unwrap();
    std::fs::write(
        folder.path().join("other.yaml"),
        simple.replace("name: simple\nspec", "name: other\nspec"),
    )
    .unwrap();
    let _dispatcher = world.dispatcher().templates(folder.path()).start().await;
    let stream = world.jetstream.get_stream("JOBS").await.unwrap();
    let subjects = &stream.cached_info().config.subjects;
    assert_eq!(*subjects, ["jobs.memory.create", "jobs.simple.create", "jobs.other.create"]);
}

/// The shipped template keeps finished Jobs for 600 s.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_waits_longer_than_finished_jobs_stay_is_refused() {
    let world = or_skip!(World::start().await);
    world.make_stream(&shipped("JOBS")).await;
    let mut config = shipped("dispatcher-simple");
    config["ack_wait"] = 700_000_000_000_u64.into();
    let subject = "CONSUMER.DURABLE.CREATE.JOBS.dispatcher-simple";
    let made: Value =
        world.jetstream.request(subject, &json!({"stream_name": "JOBS", "config": config})).await.unwrap();
    assert!(made["error"].is_null(), "{made}");
    refuses(world.dispatcher(), "DISPATCHER_TEMPLATES", "must be more than 700").await;
}
