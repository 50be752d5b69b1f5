//! Settings of streams and consumers that an operator changes: what can harm a request or an event
//! is refused at start by name, and makes a running dispatcher not ready. Nothing else does.

use async_nats::jetstream::stream;
use dispatcher_tests::job_controller::managed_template;
use dispatcher_tests::nats::Setup;
use dispatcher_tests::paths::NATS_VERSIONS;
use dispatcher_tests::test_env::{TestEnv, header, shipped_config};
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{Dispatcher, Nats, or_skip, paths, until};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::service_client::{call_service, code_and_error};
use crate::settings::assert_refused;

const HOUR: u64 = 3_600_000_000_000;

/// Updates a stream, or a consumer of `JOBS`, and returns the configuration before.
async fn edit(env: &TestEnv, name: &str, changes: &Value) -> Value {
    let before = env.config(name).await;
    let mut after = before.clone();
    for (field, value) in changes.as_object().unwrap() {
        after[field] = value.clone();
    }
    replace(env, name, &after).await.unwrap_or_else(|error| panic!("{name} {changes}: {error}"));
    before
}

async fn replace(env: &TestEnv, name: &str, config: &Value) -> Result<(), String> {
    let (subject, body) = match name.strip_prefix("dispatcher-") {
        None => (format!("STREAM.UPDATE.{name}"), config.clone()),
        Some(_) => (
            format!("CONSUMER.DURABLE.CREATE.JOBS.{name}"),
            json!({"stream_name": "JOBS", "config": config, "action": "update"}),
        ),
    };
    let answer: Value = env.jetstream.request(subject, &body).await.map_err(|e| e.to_string())?;
    if answer["error"].is_null() { Ok(()) } else { Err(answer["error"].to_string()) }
}

/// Waits until `/readyz?verbose` has this status and contains the text.
async fn until_readyz(dispatcher: &Dispatcher, status: u16, text: &str) {
    until(&format!("/readyz?verbose to answer {status} with {text:?}"), TIMEOUT, || async {
        let answer = dispatcher.get("/readyz?verbose").await?;
        if answer.0 == status && answer.1.contains(text) { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
}

/// Each change, and the field that the dispatcher names.
fn harmful() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        ("JOBS", json!({"allow_rollup_hdrs": true}), "allow_rollup_hdrs: found true, must be unset"),
        ("JOBS", json!({"max_age": HOUR}), "max_age: found 3600000000000, must be unset"),
        ("JOBS", json!({"no_ack": true}), "no_ack: found true"),
        ("JOBS", json!({"republish": {"src": ">", "dest": "copy.>"}}), "republish: found {"),
        ("JOBS", json!({"subjects": ["jobs.*.create"]}), "subjects: found [\"jobs.*.create\"]"),
        (
            "JOB_STATUS",
            json!({"max_age": 6_000_000_000_u64, "duplicate_window": 6_000_000_000_u64}),
            "max_age: found 6000000000, must be at least",
        ),
        ("JOB_STATUS", json!({"max_msg_size": 1000}), "max_msg_size: found 1000"),
        ("JOB_STATUS", json!({"discard": "new"}), "discard: found \"new\", must be \"old\""),
        ("JOB_STATUS", json!({"sources": [{"name": "JOB_REJECTED"}]}), "sources: found ["),
        ("JOB_REJECTED", json!({"max_msg_size": 1000}), "max_msg_size: found 1000"),
        ("KV_JOB_CANCELS", json!({"max_age": HOUR}), "max_age: found 3600000000000"),
        ("dispatcher-simple", json!({"headers_only": true}), "headers_only: found true"),
        ("dispatcher-simple", json!({"max_deliver": 5}), "max_deliver: found 5, must be -1"),
        ("dispatcher-simple", json!({"max_ack_pending": 1}), "max_ack_pending: found 1"),
    ]
}

/// Those that NATS 2.10 does not have.
fn harmful_since_2_11() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        ("JOBS", json!({"allow_msg_ttl": true}), "allow_msg_ttl: found true, must be unset"),
        ("JOBS", json!({"allow_atomic": true}), "allow_atomic: found true"),
        ("JOBS", json!({"subject_delete_marker_ttl": HOUR, "allow_rollup_hdrs": true}), "delete_marker"),
        (
            "JOB_STATUS",
            json!({"allow_msg_schedules": true, "allow_rollup_hdrs": true}),
            "allow_msg_schedules",
        ),
        (
            "dispatcher-simple",
            json!({"priority_groups": ["a"], "priority_policy": "overflow"}),
            "priority_groups: found [\"a\"]",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn harmful_setting_is_refused_at_start_by_name() {
    for version in NATS_VERSIONS {
        let kubernetes = or_skip!(dispatcher_tests::Kubernetes::shared().await);
        let nats = Nats::process_of_version(version).await;
        let newer = if version.starts_with("2.10.") { vec![] } else { harmful_since_2_11() };
        let changes: Vec<_> = harmful().into_iter().chain(newer).collect();
        refuse_each(&TestEnv::new(nats, kubernetes.namespace().await).await, &changes).await;
    }
}

async fn refuse_each(env: &TestEnv, changes: &[(&'static str, Value, &'static str)]) {
    assert_eq!(env.dispatcher().start().await.terminate().await, Some(0));
    for (name, changes, text) in changes {
        let before = edit(env, name, changes).await;
        let object = if name.starts_with("dispatcher-") { "consumer" } else { "stream" };
        assert_refused(env.dispatcher(), &format!("{object} {name}"), text).await;
        recreate(env, name, &before).await;
    }
    assert_eq!(env.dispatcher().start().await.terminate().await, Some(0));
}

/// Deletes a stream or a consumer, and creates it again. The server does not take back some
/// settings.
async fn recreate(env: &TestEnv, name: &str, config: &Value) {
    if !name.starts_with("dispatcher-") {
        env.jetstream.delete_stream(name).await.unwrap();
        env.create_stream(config).await;
    }
    if name == "JOBS" || name.starts_with("dispatcher-") {
        let jobs = env.jetstream.get_stream_no_info("JOBS").await.unwrap();
        let _ = jobs.delete_consumer("dispatcher-simple").await;
        let consumer = shipped_config("dispatcher-simple");
        let body = json!({"stream_name": "JOBS", "config": consumer, "action": "create"});
        let subject = "CONSUMER.DURABLE.CREATE.JOBS.dispatcher-simple";
        let answer: Value = env.jetstream.request(subject, &body).await.unwrap();
        assert!(answer["error"].is_null(), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn harmful_setting_makes_a_running_dispatcher_not_ready_until_it_is_taken_back() {
    let env = or_skip!(TestEnv::start().await);
    let dispatcher = env.dispatcher().start().await;
    let changes = harmful();
    let newer = harmful_since_2_11();
    for (name, changes, text) in
        [&changes[0], &changes[1], &changes[5], &changes[9], &changes[12]].into_iter().chain(&newer[1..2])
    {
        let before = edit(&env, name, changes).await;
        until_readyz(&dispatcher, 503, text).await;
        until_readyz(&dispatcher, 503, name).await;
        replace(&env, name, &before).await.unwrap();
        until_readyz(&dispatcher, 200, "readyz check passed").await;
    }
    let schedules = &newer[3];
    edit(&env, schedules.0, &schedules.1).await;
    until_readyz(&dispatcher, 503, schedules.2).await;
}

/// A submitter could otherwise remove the queued requests of others by one header.
#[tokio::test(flavor = "multi_thread")]
async fn settings_that_let_one_client_harm_another_are_warnings() {
    let env = or_skip!(TestEnv::start().await);
    let dispatcher = env.dispatcher().start().await;
    until_readyz(&dispatcher, 200, "[+]streams ok").await;
    for (name, changes, text) in [
        ("JOBS", json!({"duplicate_window": 120_000_000_000_u64}), "duplicate_window: found 120000000000"),
        ("JOBS", json!({"max_bytes": -1}), "max_bytes: found -1, must be limited"),
        ("JOB_REJECTED", json!({"max_bytes": -1}), "max_bytes: found -1, must be limited"),
    ] {
        let before = edit(&env, name, &changes).await;
        until_readyz(&dispatcher, 200, &format!("[!]streams stream {name}: {text}")).await;
        let (_, metrics) = dispatcher.get("/metrics").await.unwrap();
        assert!(metrics.contains("dispatcher_component_warnings{component=\"streams\"} 1\n"), "{metrics}");
        replace(&env, name, &before).await.unwrap();
    }
    let warnings = dispatcher.log().lines().filter(|line| line.contains("an operator should change")).count();
    assert_eq!(warnings, 3, "one log line for each: {}", dispatcher.log());
    assert_eq!(dispatcher.terminate().await, Some(0));
    assert_eq!(env.dispatcher().start().await.terminate().await, Some(0), "warnings do not stop a start");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_the_operator_leave_the_dispatcher_ready() {
    let env = or_skip!(TestEnv::start().await);
    assert_eq!(env.dispatcher().start().await.terminate().await, Some(0));
    for name in ["JOBS", "JOB_STATUS", "JOB_REJECTED", "KV_JOB_CANCELS"] {
        edit(
            &env,
            name,
            &json!({"description": "ours", "compression": "s2", "max_bytes": 500_000_000, "deny_delete": true}),
        )
        .await;
    }
    edit(&env, "JOB_STATUS", &json!({"max_age": 24 * HOUR, "max_msgs_per_subject": 50})).await;
    let dispatcher = env.dispatcher().start().await;
    env.request(r#"{"foo":"a"}"#).await;
    env.outcome("simple-job-a").await;
    until_readyz(&dispatcher, 200, "[+]streams ok").await;
    let (_, body) = dispatcher.get("/readyz?verbose").await.unwrap();
    assert!(!body.contains("[!]"), "{body}");
    assert_eq!(env.config("JOBS").await["description"], "ours", "the dispatcher changed it");
}

/// An operator turns on markers for expired subjects. The marker is stored in the Job's subject.
#[tokio::test(flavor = "multi_thread")]
async fn delete_marker_is_no_event() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    for marker in [&[("Nats-Marker-Reason", "MaxAge")][..], &[("KV-Operation", "DEL")]] {
        let mut headers = async_nats::HeaderMap::new();
        marker.iter().for_each(|(name, value)| headers.insert(*name, *value));
        let sent =
            env.jetstream.publish_with_headers("dispatcher.event.simple.gone", headers, "".into()).await;
        sent.unwrap().await.unwrap();
        let answer = call_service(&env.client, "get", &[], r#"{"name":"gone"}"#).await;
        assert_eq!(code_and_error(answer), (404, "NotFound".to_owned()));
    }
    // A request of that name becomes a Job, and its events follow the marker.
    env.request(r#"{"foo":"x","name":"gone"}"#).await;
    until("the event after the marker", TIMEOUT, || async {
        let answer = call_service(&env.client, "get", &[], r#"{"name":"gone"}"#).await;
        answer.is_ok_and(|event| event["type"] == "ADDED").then_some(())
    })
    .await;
}

/// A stream that captures the republished subjects checks the fence header of each event against its
/// own sequences. One that sources `JOB_STATUS` does not.
#[tokio::test(flavor = "multi_thread")]
async fn stream_on_the_status_subjects_is_reported_and_a_source_gets_every_event() {
    for version in NATS_VERSIONS {
        let kubernetes = or_skip!(dispatcher_tests::Kubernetes::shared().await);
        let nats = Nats::process_of_version(version).await;
        report_and_source(&TestEnv::new(nats, kubernetes.namespace().await).await).await;
    }
}

async fn report_and_source(env: &TestEnv) {
    let dispatcher = env.dispatcher().start().await;
    env.request(r#"{"foo":"first"}"#).await;
    env.outcome("simple-job-first").await;
    let capture = json!({"name": "AUDIT", "subjects": ["jobs.*.status.*"], "storage": "file"});
    env.create_stream(&capture).await;
    until_readyz(&dispatcher, 200, "[!]streams stream AUDIT captures jobs.*.status.* and loses events").await;
    env.jetstream.delete_stream("AUDIT").await.unwrap();

    let source = json!({"name": "AUDIT", "sources": [{"name": "JOB_STATUS"}], "storage": "file"});
    env.create_stream(&source).await;
    env.request(r#"{"foo":"second"}"#).await;
    env.outcome("simple-job-second").await;
    until("the copy to have every event", TIMEOUT, || async {
        let mut counts = vec![];
        for stream in ["JOB_STATUS", "AUDIT"] {
            let stream = env.jetstream.get_stream(stream).await.map_err(|e| e.to_string())?;
            counts.push(stream.cached_info().state.messages);
        }
        if counts[0] == counts[1] { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;
    let copy = env.jetstream.get_stream("AUDIT").await.unwrap();
    let last = copy.get_last_raw_message_by_subject("jobs.simple.status.simple-job-second").await.unwrap();
    assert_eq!(header(&last, "Job-Event"), "OUTCOME");
    until("the warning to end", TIMEOUT, || async {
        let (_, body) = dispatcher.get("/readyz?verbose").await?;
        if body.contains("[!]") { Err(body) } else { Ok(()) }
    })
    .await;
}

/// The server refuses a stream without space. The error names the setting.
#[tokio::test(flavor = "multi_thread")]
async fn too_small_store_is_refused_with_the_needed_space() {
    let nats = Nats::process_configured("jetstream {max_file_store: 1GB}\n").await;
    let kubernetes = or_skip!(dispatcher_tests::Kubernetes::shared().await);
    let env = TestEnv::new(nats, kubernetes.namespace().await).await;
    assert_refused(env.dispatcher(), "stream JOBS", "max_file_store").await;
    // Smaller streams that exist already are accepted.
    for name in ["JOBS", "JOB_STATUS", "JOB_REJECTED", "KV_JOB_CANCELS"] {
        let mut config = shipped_config(name);
        config["max_bytes"] = 100_000_000.into();
        env.create_stream(&config).await;
    }
    let _: stream::Config = env.jetstream.get_stream("JOBS").await.unwrap().cached_info().config.clone();
    assert_eq!(env.dispatcher().start().await.terminate().await, Some(0));
}

/// The limits are set before a start and while a dispatcher runs. The server refuses each pull that
/// asks for more.
#[tokio::test(flavor = "multi_thread")]
async fn pull_limits_of_a_consumer_are_obeyed() {
    for version in NATS_VERSIONS {
        let kubernetes = or_skip!(dispatcher_tests::Kubernetes::shared().await);
        let env = TestEnv::new(Nats::process_of_version(version).await, kubernetes.namespace().await).await;
        let (_folder, templates) = managed_template();
        let dispatcher = env.dispatcher().templates(templates).start().await;
        for (round, limits) in [
            json!({"max_batch": 10}),
            json!({"max_batch": 1, "max_expires": 2_000_000_000_u64}),
            json!({"max_batch": 10, "max_bytes": 100_000}),
        ]
        .iter()
        .enumerate()
        {
            edit(&env, "dispatcher-simple", limits).await;
            for restart in [false, true] {
                let name = format!("limited-{round}-{restart}");
                env.request(json!({"foo": "x", "name": name}).to_string()).await;
                env.until_last(&name, "ADDED").await;
                env.until_queue_is_empty().await;
                until_readyz(&dispatcher, 200, "readyz check passed").await;
                if !restart {
                    assert_eq!(dispatcher.terminate().await, Some(0));
                    dispatcher.restart().await;
                }
            }
        }
        let log = dispatcher.log();
        let warnings = log.lines().filter(|line| line.contains("\"WARN\"")).count();
        assert!(warnings <= 6, "{version}: one warning for each change: {log}");
    }
}

/// Nothing tells a running pull loop of this setting, and the consumer still answers.
#[tokio::test(flavor = "multi_thread")]
async fn consumer_that_refuses_each_pull_is_tried_with_growing_delays() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let dispatcher = env.dispatcher().templates(templates).start().await;
    let groups = json!({"priority_groups": ["a"], "priority_policy": "overflow"});
    let before = edit(&env, "dispatcher-simple", &groups).await;
    until_readyz(&dispatcher, 503, "[-]intake simple consumer dispatcher-simple").await;
    let pulls = env.client.subscribe("$JS.API.CONSUMER.MSG.NEXT.JOBS.dispatcher-simple").await.unwrap();
    let lines = || dispatcher.log().lines().filter(|line| line.contains("intake simple")).count();
    let logged = lines();
    // The duration of the fault.
    let end = tokio::time::sleep(std::time::Duration::from_secs(10));
    let pulls = pulls.take_until(Box::pin(end)).count().await;
    assert!(pulls < 20, "{pulls} pulls in 10 s");
    assert!(lines() <= logged + 2, "{}", dispatcher.log());
    replace(&env, "dispatcher-simple", &before).await.unwrap();
    env.request(r#"{"foo":"a"}"#).await;
    env.until_last("simple-job-a", "ADDED").await;
    until_readyz(&dispatcher, 200, "readyz check passed").await;
}

/// The lines of `nats-config/README.md` that copy the status events into another account.
fn documented_copy() -> (Vec<String>, Vec<String>, Value) {
    let readme = std::fs::read_to_string(paths::workspace().join("nats-config/README.md")).unwrap();
    let section =
        readme.split("### Copies of the status events").nth(1).unwrap().split("\n#").next().unwrap();
    let block =
        |marker: &str, nth: usize| section.split(marker).nth(nth).unwrap().split("```").next().unwrap();
    let lines = |nth| block("```text\n", nth).lines().map(str::to_owned).collect();
    (lines(1), lines(2), serde_json::from_str(block("```json\n", 1)).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn documented_source_in_another_account_gets_every_event() {
    let (exports, imports, copy) = documented_copy();
    let (exports, imports) = (exports.join("\n"), imports.join("\n"));
    let accounts = format!(
        "accounts {{\nDISPATCHER {{jetstream: enabled, users: [{{user: d, password: \"\"}}]\nexports: [\n{exports}\n]}}\n\
         AUDIT {{jetstream: enabled, users: [{{user: a, password: a}}]\nimports: [\n{imports}\n]}}\n}}\n\
         no_auth_user: d\n"
    );
    for version in NATS_VERSIONS {
        let folder = paths::temp_dir("accounts").unwrap();
        let config = folder.path().join("nats.conf");
        std::fs::write(&config, &accounts).unwrap();
        let args = vec!["--config".to_owned(), config.display().to_string()];
        let setup = Setup { args, version: Some(version), ..Setup::default() };
        let nats = Nats::process_of(setup).await;
        let kubernetes = or_skip!(dispatcher_tests::Kubernetes::shared().await);
        let env = TestEnv::new(nats, kubernetes.namespace().await).await;
        let _dispatcher = env.dispatcher().start().await;
        let options = async_nats::ConnectOptions::with_user_and_password("a".into(), "a".into());
        let audit = async_nats::jetstream::new(options.connect(&env.nats.url).await.unwrap());
        env.request(r#"{"foo":"before"}"#).await;
        env.outcome("simple-job-before").await;

        let created: Value = audit.request("STREAM.CREATE.AUDIT", &copy).await.unwrap();
        assert!(created["error"].is_null(), "{version}: {created}");
        env.request(r#"{"foo":"after"}"#).await;
        env.outcome("simple-job-after").await;

        until("the copy to have every event", TIMEOUT, || async {
            let original = env.jetstream.get_stream("JOB_STATUS").await.map_err(|e| e.to_string())?;
            let copy = audit.get_stream("AUDIT").await.map_err(|e| e.to_string())?;
            let counts = [&original, &copy].map(|stream| stream.cached_info().state.messages);
            if counts[0] == counts[1] { Ok(()) } else { Err(format!("{counts:?}")) }
        })
        .await;
    }
}
