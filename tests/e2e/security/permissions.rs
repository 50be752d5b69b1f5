//! The NATS permissions of the dispatcher: they suffice for all its work, and each of them is
//! needed.

use async_nats::jetstream::{self, consumer::PullConsumer};
use dispatcher_tests::test_env::{TestEnv, header};
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{Nats, or_skip, paths, until};
use futures::StreamExt;
use serde_json::{Value, json};

use super::config_folder::{
    ConfigFolder, client, create_reader_consumer, create_streams, options, password_env, passwords,
    send_operation,
};
use crate::console::until_board_contains;
use crate::service_client::call_service;

/// The prefix of the dispatcher's `JetStream` API in the account of the readers.
const API: &str = "JS.DISPATCHER.API";

/// The subjects that a role may publish to, and the subjects that it may subscribe to.
pub(super) fn allowed(role: &str) -> (Vec<String>, Vec<String>) {
    let path = paths::workspace().join(format!("nats-config/roles/{role}.conf"));
    let text = std::fs::read_to_string(path).unwrap();
    let lines =
        text.lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n");
    let (publish, subscribe) =
        lines.split_once("\nsubscribe:").expect("the role has no subscribe permissions");
    let subjects = |text: &str| text.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    (subjects(publish), subjects(subscribe))
}

/// Whether a subject matches a pattern.
fn matches(pattern: &str, subject: &str) -> bool {
    let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
    loop {
        match (pattern.next(), subject.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some(p), Some(s)) if p == "*" || p == s => {}
            _ => return false,
        }
    }
}

/// The subjects of these operations of the dispatcher, from the protocol log of the server.
fn used_subjects(nats: &Nats, operations: &[&str]) -> Vec<String> {
    let log = nats.log();
    let lines = log.lines().filter(|line| line.contains("rust:dispatcher"));
    let subjects = lines.filter_map(|line| {
        let (operation, rest) = line.split_once("<<- [")?.1.split_once(' ')?;
        let subject = rest.split([' ', ']']).next()?;
        operations.contains(&operation).then(|| subject.to_owned())
    });
    subjects.collect()
}

fn violations(nats: &Nats) -> Vec<String> {
    nats.log().lines().filter(|line| line.contains("Violation")).map(str::to_owned).collect()
}

/// Uses everything that submitters and readers use: a Job that completes and a rejected request.
async fn play_common_operations(env: &TestEnv, job: &str) {
    let (submitter, reader) = (client(&env.nats, "submitter").await, client(&env.nats, "reader").await);
    let mut live = reader.subscribe("jobs.*.status.>").await.unwrap();
    reader.flush().await.unwrap();
    let name = format!("simple-job-{job}");
    let publisher = jetstream::new(submitter.clone());
    let stored =
        publisher.publish("jobs.simple.create", json!({ "foo": job }).to_string().into()).await.unwrap();
    stored.await.expect("no PubAck");
    let bad = publisher.publish("jobs.simple.create", "{}".into()).await.unwrap().await.unwrap().sequence;
    assert_eq!(env.outcome(&name).await["result"], "Complete");
    assert_eq!(header(&env.dead_letter(bad).await, "Job-Error"), "InvalidRequest");
    // The reader uses a subscription, a direct get and a consumer.
    let mut seen = vec![];
    while seen.last().map(String::as_str) != Some("OUTCOME") {
        let message = tokio::time::timeout(TIMEOUT, live.next()).await.expect("no event").unwrap();
        if message.subject.ends_with(&name) {
            seen.push(message.headers.unwrap().get("Job-Event").unwrap().to_string());
        }
    }
    let context = jetstream::with_prefix(reader.clone(), API);
    let stream = context.get_stream_no_info("JOB_STATUS").await.unwrap();
    let last = stream.direct_get_last_for_subject(format!("jobs.simple.status.{name}")).await.unwrap();
    assert_eq!(header(&last, "Job-Event"), "OUTCOME");
    let stream = context.get_stream_no_info("JOB_REJECTED").await.unwrap();
    let last = stream.direct_get_last_for_subject(format!("jobs.simple.rejected.{bad}")).await.unwrap();
    assert_eq!(&last.payload[..], b"{}");
    assert_eq!(consume_event_types(&context, &name).await, seen);
    // The NATS service, from another account and from the account of the dispatcher.
    let query = json!({"foo": format!("{job}-submitted")}).to_string();
    let answer = call_service(&submitter, "submit", &[("Job-Wait", "outcome")], &query).await.unwrap();
    assert_eq!(answer["outcome"]["result"], "Complete");
    let last = call_service(&env.client, "get", &[], &json!({ "name": name }).to_string()).await.unwrap();
    assert_eq!(last["type"], "OUTCOME");
    let info = submitter.request("$SRV.INFO.dispatcher", "".into()).await.unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&info.payload).unwrap()["name"], "dispatcher");
}

/// Reads the event types of a Job through the consumer `reader`, and acknowledges each message.
async fn consume_event_types(context: &jetstream::Context, name: &str) -> Vec<String> {
    let consumer: PullConsumer = context.get_consumer_from_stream("reader", "JOB_STATUS").await.unwrap();
    let mut types = vec![];
    while types.last().map(String::as_str) != Some("OUTCOME") {
        let mut batch = consumer.fetch().max_messages(1).messages().await.unwrap();
        while let Some(message) = batch.next().await {
            let message = message.unwrap();
            message.double_ack().await.expect("the acknowledgement is not confirmed");
            if message.subject.ends_with(name) {
                types.push(message.headers.as_ref().unwrap().get("Job-Event").unwrap().to_string());
            }
        }
    }
    types
}

/// Uses the rare operations: a poison message, a cancellation, and a repeated rejected request.
async fn play_rare_operations(env: &TestEnv) {
    let headers = "NATS/1.0\r\nno colon\r\n\r\n";
    let sizes = format!("{} {}", headers.len(), headers.len() + 2);
    let poison = format!("HPUB jobs.simple.create {sizes}\r\n{headers}{{}}\r\n");
    send_operation(&env.nats, "submitter", poison.as_bytes()).await.unwrap();
    until("the poison message to be rejected", TIMEOUT, || async {
        let dead_letters = env.dead_letters().await;
        dead_letters
            .iter()
            .any(|dead_letter| header(dead_letter, "Job-Error") == "InvalidHeaders")
            .then_some(())
    })
    .await;
    // A Job that keeps failing until it is cancelled.
    env.request(r#"{"foo":"cancel-me","fail":true}"#).await;
    env.job("simple-job-cancel-me").await;
    call_service(&env.client, "cancel", &[], r#"{"name":"simple-job-cancel-me"}"#).await.unwrap();
    assert_eq!(env.outcome("simple-job-cancel-me").await["result"], "Cancelled");
    until("JOB_CANCELS to be empty", TIMEOUT, || async {
        let bucket = env.jetstream.get_stream("KV_JOB_CANCELS").await.map_err(|e| e.to_string())?;
        match bucket.cached_info().state.messages {
            0 => Ok(()),
            left => Err(format!("{left} entries left")),
        }
    })
    .await;
    // The repeated request is looked up among the dead letters.
    let headers = [("Nats-Msg-Id", "taken"), ("Job-Wait", "created")];
    for _ in 0..2 {
        let error = call_service(&env.client, "submit", &headers, r#"{"foo":"first"}"#).await.unwrap_err();
        assert_eq!(error.error, "NameTaken", "{}", error.message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dispatcher_with_provisioning_uses_each_granted_permission() {
    let env = or_skip!(password_env(ConfigFolder::new().by_password("accounts.conf").await).await);
    let dispatcher = env.dispatcher().start().await;
    create_reader_consumer(&env).await;
    play_common_operations(&env, "first").await;
    play_rare_operations(&env).await;
    assert_eq!(dispatcher.terminate().await, Some(0));
    // A start adds a missing subject and missing metadata.
    for (stream, change) in [("JOBS", "subjects"), ("JOB_STATUS", "metadata")] {
        let config = env.jetstream.get_stream(stream).await.unwrap().cached_info().config.clone();
        let mut config = serde_json::to_value(config).unwrap();
        config[change] = if change == "subjects" { json!(["jobs.simple.create"]) } else { json!({}) };
        let updated: Value = env.jetstream.request(format!("STREAM.UPDATE.{stream}"), &config).await.unwrap();
        assert!(updated["error"].is_null(), "{updated}");
    }
    let dispatcher = env.dispatcher().start().await;
    assert_eq!(dispatcher.terminate().await, Some(0));
    assert_eq!(violations(&env.nats), Vec::<String>::new());
    assert_each_is_used(&env.nats, "dispatcher");
}

#[tokio::test(flavor = "multi_thread")]
async fn dispatcher_without_provisioning_uses_each_granted_permission() {
    let config = ConfigFolder::new();
    config.edit("accounts.conf", "roles/dispatcher.conf", "roles/dispatcher-no-provision.conf");
    let env = or_skip!(password_env(config.by_password("accounts.conf").await).await);
    create_streams(&env).await;
    create_reader_consumer(&env).await;
    let dispatcher = env.dispatcher().arg("--no-provision").start().await;
    play_common_operations(&env, "first").await;
    play_rare_operations(&env).await;
    assert_eq!(dispatcher.terminate().await, Some(0));
    assert_eq!(violations(&env.nats), Vec::<String>::new());
    assert_each_is_used(&env.nats, "dispatcher-no-provision");
}

#[tokio::test(flavor = "multi_thread")]
async fn console_needs_no_further_permission() {
    let env = or_skip!(password_env(ConfigFolder::new().by_password("accounts.conf").await).await);
    let dispatcher = env.dispatcher().env("DISPATCHER_CONSOLE", "read").start().await;
    let rejected = env.request("{}").await;
    env.dead_letter(rejected).await;
    env.request(r#"{"foo":"shown","name":"shown"}"#).await;
    env.until_last("shown", "OUTCOME").await;
    for (path, expected) in [
        ("/console/api/history?template=simple&name=shown", "\"OUTCOME\""),
        ("/console/api/dead-letters", "\"InvalidRequest\""),
    ] {
        let (status, body) = dispatcher.get(path).await.unwrap();
        assert!(status == 200 && body.contains(expected), "{path}: {status} {body}");
    }
    until_board_contains(dispatcher.admin_url.trim_start_matches("http://"), "\"state\":\"Complete\"");
    assert_eq!(violations(&env.nats), Vec::<String>::new());
}

/// Used only after the connection was lost during a scan, when its consumer is looked up and
/// recreated, on a server with the other form of ack subjects, or when a template is deleted.
const RARELY_USED: [&str; 5] = [
    "$JS.ACK.*.*.JOBS.>",
    "$JS.API.CONSUMER.DELETE.JOBS.*",
    "$JS.API.CONSUMER.INFO.JOB_STATUS.*",
    "$JS.API.CONSUMER.INFO.KV_JOB_CANCELS.*",
    "$JS.API.CONSUMER.DELETE.KV_JOB_CANCELS.*",
];

fn assert_each_is_used(nats: &Nats, role: &str) {
    let (publish, subscribe) = allowed(role);
    let published = used_subjects(nats, &["PUB", "HPUB"]);
    let subscribed = used_subjects(nats, &["SUB"]);
    assert!(
        published.len() > 20 && !subscribed.is_empty(),
        "the protocol log has few operations: {published:?}"
    );
    let unused = |patterns: Vec<String>, subjects: &[String]| {
        let used = |pattern: &String| {
            RARELY_USED.contains(&pattern.as_str())
                || subjects.iter().any(|subject| matches(pattern, subject))
        };
        patterns.into_iter().filter(|pattern| !used(pattern)).collect::<Vec<_>>()
    };
    assert_eq!(unused(publish, &published), Vec::<String>::new(), "granted and never published to");
    assert_eq!(unused(subscribe, &subscribed), Vec::<String>::new(), "granted and never subscribed to");
}

#[test]
fn permissions_without_provisioning_are_a_subset() {
    let (more, less) = (allowed("dispatcher"), allowed("dispatcher-no-provision"));
    assert!(less.0.iter().all(|subject| more.0.contains(subject)) && less.0.len() < more.0.len());
    assert_eq!(less.1, more.1);
}

/// With this flag, the subjects of acks also contain the domain and the account.
#[tokio::test(flavor = "multi_thread")]
async fn acks_of_both_forms_are_permitted() {
    let folder = ConfigFolder::new();
    folder.write("flags.conf", "feature_flags { js_ack_fc_v2: true }\n");
    let files = ["flags.conf", "accounts.conf"];
    let nats = folder.serve(&files, &passwords(), options("administrator")).await;
    let env = or_skip!(password_env(nats).await);
    let dispatcher = env.dispatcher().start().await;
    create_reader_consumer(&env).await;
    play_common_operations(&env, "first").await;
    env.until_queue_is_empty().await;
    let (_, readyz) = dispatcher.get("/readyz").await.unwrap();
    assert_eq!(readyz, "ready\n");
    assert!(env.nats.log().contains("$JS.ACK._."), "the server does not use the other form");
    assert_eq!(violations(&env.nats), Vec::<String>::new());
    assert_eq!(dispatcher.terminate().await, Some(0));
}

/// Otherwise each request would be delivered again every minute without a sign of it.
#[tokio::test(flavor = "multi_thread")]
async fn dispatcher_that_may_not_acknowledge_is_not_ready() {
    let folder = ConfigFolder::new();
    folder.edit("roles/dispatcher.conf", "\"$JS.ACK.JOBS.>\"", "");
    let env = or_skip!(password_env(folder.by_password("accounts.conf").await).await);
    let dispatcher = env.dispatcher().start().await;
    env.request(r#"{"foo":"a"}"#).await;
    until("/readyz to name the ack", TIMEOUT, || async {
        let (status, body) = dispatcher.get("/readyz").await?;
        if status == 503 && body.contains("the ack is not confirmed") { Ok(()) } else { Err(body) }
    })
    .await;
    env.until_last("simple-job-a", "OUTCOME").await;
}
