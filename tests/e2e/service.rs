//! The service as an operator sees it: settings, readiness, streams, deployment.

use dispatcher_tests::{Kubernetes, only_on_kubernetes, or_skip, paths};
use serde_json::Value;

use dispatcher_tests::job_controller::managed_template;
use dispatcher_tests::test_env::{TestEnv as World, shipped_config as shipped};

#[tokio::test(flavor = "multi_thread")]
async fn it_is_live_and_ready_and_ends_gracefully() {
    let world = or_skip!(World::start().await);
    let dispatcher = world.dispatcher().start().await;
    assert_eq!(dispatcher.get("/livez").await.unwrap(), (200, "ok\n".to_owned()));
    assert_eq!(dispatcher.get("/readyz").await.unwrap(), (200, "ready\n".to_owned()));
    assert_eq!(dispatcher.terminate().await, Some(0), "{}", dispatcher.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_tells_each_change_and_the_end_of_watching() {
    let world = or_skip!(World::start().await);
    let (_folder, templates) = managed_template();
    let dispatcher =
        world.dispatcher().templates(templates).env("DISPATCHER_LOG_FORMAT", "text").start().await;
    world.request(r#"{"foo":"log"}"#).await;
    world.job("simple-job-log").await;
    world
        .set_status(
            "simple-job-log",
            dispatcher_tests::job_controller::finished_status("Complete", 0, "CompletionsReached", "done"),
        )
        .await;
    world.outcome("simple-job-log").await;
    assert_eq!(dispatcher.terminate().await, Some(0));
    let log = dispatcher.log();
    assert!(log.contains(r#"Job "simple-job-log" status responded by watcher: {"#), "{log}");
    assert!(log.contains("Watching is over gracefully."), "{log}");
    assert!(!log.contains('\u{1b}'), "no colours in a file");
}

/// The shipped files, what `dispatcher nats-config` prints, and what the dispatcher creates are the same.
#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_streams_are_those_that_it_creates() {
    let printed = std::process::Command::new(paths::built("dispatcher").unwrap())
        .args(["nats-config", "--templates"])
        .arg(paths::workspace().join("deploy/templates"))
        .output()
        .unwrap();
    let printed: serde_json::Map<String, Value> = serde_json::from_slice(&printed.stdout).expect("JSON");
    let files = std::fs::read_dir(paths::workspace().join("nats-config")).unwrap();
    let mut files: Vec<_> = files
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    files.sort();
    assert_eq!(files, printed.keys().cloned().collect::<Vec<_>>());

    let world = or_skip!(World::start().await);
    let dispatcher = world.dispatcher().start().await;
    for (name, config) in &printed {
        assert_eq!(&shipped(name), config, "nats-config/{name}.json is stale: make nats-config");
        assert_eq!(world.differences_from_shipped(name).await, Vec::<String>::new(), "{name}");
    }
    assert_eq!(dispatcher.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_made_from_the_shipped_files_are_taken_as_they_are() {
    let world = or_skip!(World::start().await);
    for name in ["JOBS", "JOB_STATUS", "JOB_REJECTED"] {
        world.create_stream(&shipped(name)).await;
    }
    let (_folder, templates) = managed_template();
    let _dispatcher = world.dispatcher().templates(templates).start().await;
    world.request(r#"{"foo":"a"}"#).await;
    world.until_last("simple-job-a", "ADDED").await;
}

/// `kubectl apply -k deploy`, as the README says. (That it runs from its image is another matter: none is loaded here.)
#[tokio::test(flavor = "multi_thread")]
async fn the_deployment_is_accepted_by_kubernetes() {
    only_on_kubernetes!("the local cluster has no Deployments");
    let kubernetes = or_skip!(Kubernetes::shared().await);
    let folder = paths::workspace().join("deploy").display().to_string();
    let applied = kubernetes.kubectl(&["apply", "-k", &folder]).await.unwrap();
    for object in
        ["namespace/jobs", "role.rbac.authorization.k8s.io/dispatcher", "deployment.apps/dispatcher"]
    {
        assert!(applied.contains(object), "{applied}");
    }
    kubernetes.kubectl(&["delete", "--wait=false", "-k", &folder]).await.unwrap();
}
