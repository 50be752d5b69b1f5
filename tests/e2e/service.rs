//! Health endpoints, shutdown, logs, streams and deployment.

use dispatcher_tests::job_controller::managed_template;
use dispatcher_tests::test_env::{TestEnv, shipped_config};
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{Kubernetes, only_on_kubernetes, or_skip, paths, until};
use serde_json::{Value, json};

use crate::in_cluster::SHIPPED_NAMESPACES;

#[tokio::test(flavor = "multi_thread")]
async fn dispatcher_is_live_and_ready_and_stops_gracefully() {
    let env = or_skip!(TestEnv::start().await);
    let dispatcher = env.dispatcher().start().await;
    assert_eq!(dispatcher.get("/livez").await.unwrap(), (200, "ok\n".to_owned()));
    assert_eq!(dispatcher.get("/readyz").await.unwrap(), (200, "ready\n".to_owned()));
    assert_eq!(dispatcher.terminate().await, Some(0), "{}", dispatcher.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn verbose_readiness_lists_every_component() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let dispatcher = env.dispatcher().templates(templates).start().await;
    let (code, body) = dispatcher.get("/readyz?verbose").await.unwrap();
    assert_eq!(code, 200, "{body}");
    for component in ["nats", "streams", "watch", "resync", "status retire", "cancellation jobs", "micro"] {
        assert!(body.lines().any(|line| line == format!("[+]{component} ok")), "{component}: {body}");
    }
    env.jetstream.delete_stream("JOB_STATUS").await.unwrap();
    until("/readyz?verbose to report the stream", TIMEOUT, || async {
        let (code, body) = dispatcher.get("/readyz?verbose").await?;
        let reported = body.lines().any(|line| line.starts_with("[-]") && line.contains("JOB_STATUS"));
        if code == 503 && reported { Ok(()) } else { Err(format!("{code} {body}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_endpoint_reports_leader_and_synced() {
    let env = or_skip!(TestEnv::start().await);
    let dispatcher = env.dispatcher().start().await;
    let (code, body) = dispatcher.get("/leader").await.unwrap();
    let leader: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((code, leader), (200, json!({"leader": true, "synced": true})));
}

#[tokio::test(flavor = "multi_thread")]
async fn log_has_one_line_for_each_status_event() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let dispatcher = env.dispatcher().templates(templates).env("DISPATCHER_LOG_FORMAT", "text");
    let dispatcher = dispatcher.env("RUST_LOG", "info,dispatcher=debug").start().await;
    env.request(r#"{"foo":"log"}"#).await;
    env.job("simple-job-log").await;
    env.set_status(
        "simple-job-log",
        dispatcher_tests::job_controller::finished_status("Complete", 0, "CompletionsReached", "done"),
    )
    .await;
    env.outcome("simple-job-log").await;
    assert_eq!(dispatcher.terminate().await, Some(0));
    let log = dispatcher.log();
    let line = |event: &str| {
        let event = format!("event=\"{event}\"");
        let of_job = |line: &&str| line.contains(&event) && line.contains("job=\"simple-job-log\"");
        log.lines().find(of_job).unwrap_or_else(|| panic!("no line with {event}: {log}"))
    };
    assert!(line("ADDED").contains("resource_version="), "{log}");
    assert!(line("MODIFIED").contains("resource_version="), "{log}");
    assert!(line("OUTCOME").contains("result=Complete"), "{log}");
    assert!(!log.contains("\"conditions\""), "a whole status object in the log: {log}");
    assert!(!log.contains('\u{1b}'), "colors in a log file");
}

/// The files also equal the output of `dispatcher nats-config`.
#[tokio::test(flavor = "multi_thread")]
async fn shipped_stream_files_match_the_streams_that_the_dispatcher_creates() {
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

    let env = or_skip!(TestEnv::start().await);
    let dispatcher = env.dispatcher().start().await;
    for (name, config) in &printed {
        assert_eq!(&shipped_config(name), config, "nats-config/{name}.json is stale: run `make nats-config`");
        assert_eq!(env.differences_from_shipped(name).await, Vec::<String>::new(), "{name}");
    }
    assert_eq!(dispatcher.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_created_from_the_shipped_files_are_accepted() {
    let env = or_skip!(TestEnv::start().await);
    for name in ["JOBS", "JOB_STATUS", "JOB_REJECTED"] {
        env.create_stream(&shipped_config(name)).await;
    }
    let (_folder, templates) = managed_template();
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    env.request(r#"{"foo":"a"}"#).await;
    env.until_last("simple-job-a", "ADDED").await;
}

/// Applies `deploy/`. The pods do not start, since their image is not loaded.
#[tokio::test(flavor = "multi_thread")]
async fn shipped_manifests_are_accepted_by_kubernetes() {
    only_on_kubernetes!("the local cluster has no Deployments");
    let kubernetes = or_skip!(Kubernetes::shared().await);
    let _exclusive = SHIPPED_NAMESPACES.lock().await;
    let folder = paths::workspace().join("deploy");
    let applied = kubernetes.kubectl(&["apply", "-k", &folder.display().to_string()]).await.unwrap();
    for object in
        ["namespace/jobs", "role.rbac.authorization.k8s.io/dispatcher", "deployment.apps/dispatcher"]
    {
        assert!(applied.contains(object), "{applied}");
    }
    // Waits: the next holder of the lock applies the same namespaces.
    kubernetes.delete_overlay(&folder).await.unwrap();
}
