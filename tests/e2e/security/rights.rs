//! The dispatcher's own permissions: it does all that it does under them, and needs each.

use async_nats::jetstream::{self, consumer::PullConsumer};
use dispatcher_tests::{Nats, or_skip, paths, until};
use futures::StreamExt;
use serde_json::{Value, json};

use super::place::{Place, client, make_consumer_of_reader, make_streams, say, world};
use crate::asking::ask;
use dispatcher_tests::test_env::{TestEnv as World, header};
use dispatcher_tests::wait::TIMEOUT as PATIENCE;

/// What JetStream of the dispatcher's account is called in the readers'.
const API: &str = "JS.DISPATCHER.API";

/// The subjects that a role may publish to, and those that it may subscribe to.
pub(super) fn allowed(role: &str) -> (Vec<String>, Vec<String>) {
    let path = paths::workspace().join(format!("nats-config/roles/{role}.conf"));
    let text = std::fs::read_to_string(path).unwrap();
    let lines =
        text.lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n");
    let (publish, subscribe) = lines.split_once("\nsubscribe:").expect("publish first, then subscribe");
    let subjects = |text: &str| text.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    (subjects(publish), subjects(subscribe))
}

/// Whether a subject is one of a pattern's.
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

/// What the dispatcher has published and subscribed to, by the server's log of the protocol.
fn done(nats: &Nats, operations: &[&str]) -> Vec<String> {
    let log = nats.log();
    let lines = log.lines().filter(|line| line.contains("rust:dispatcher"));
    let done = lines.filter_map(|line| {
        let (operation, rest) = line.split_once("<<- [")?.1.split_once(' ')?;
        let subject = rest.split([' ', ']']).next()?;
        operations.contains(&operation).then(|| subject.to_owned())
    });
    done.collect()
}

fn violations(nats: &Nats) -> Vec<String> {
    nats.log().lines().filter(|line| line.contains("Violation")).map(str::to_owned).collect()
}

/// The main job, as a submitter and a reader see it: one Job that ends well, one request that is rejected.
async fn main_job(world: &World, job: &str) {
    let (submitter, reader) = (client(&world.nats, "submitter").await, client(&world.nats, "reader").await);
    let mut live = reader.subscribe("jobs.*.status.>").await.unwrap();
    reader.flush().await.unwrap();
    let name = format!("simple-job-{job}");
    let publisher = jetstream::new(submitter.clone());
    let stored =
        publisher.publish("jobs.simple.create", json!({ "foo": job }).to_string().into()).await.unwrap();
    stored.await.expect("the PubAck comes through");
    let bad = publisher.publish("jobs.simple.create", "{}".into()).await.unwrap().await.unwrap().sequence;
    assert_eq!(world.outcome(&name).await["result"], "Complete");
    assert_eq!(header(&world.dead_letter(bad).await, "Job-Error"), "InvalidRequest");
    // The reader: live, by direct get, and by the consumer.
    let mut seen = vec![];
    while seen.last().map(String::as_str) != Some("OUTCOME") {
        let message = tokio::time::timeout(PATIENCE, live.next()).await.expect("an event").unwrap();
        if message.subject.ends_with(&name) {
            seen.push(message.headers.unwrap().get("Job-Event").unwrap().to_string());
        }
    }
    let context = jetstream::with_prefix(reader.clone(), API);
    let stream = context.get_stream_no_info("JOB_STATUS").await.unwrap();
    let last = stream.direct_get_last_for_subject(format!("jobs.simple.status.{name}")).await.unwrap();
    assert_eq!(header(&last, "Job-Event"), "OUTCOME");
    let stream = context.get_stream_no_info("JOB_REJECTED").await.unwrap();
    let last = stream.direct_get_last_for_subject("jobs.simple.rejected").await.unwrap();
    assert_eq!(&last.payload[..], b"{}");
    assert_eq!(by_consumer(&context, &name).await, seen);
    // The micro service, from another account and from the own one.
    let query = json!({"foo": format!("{job}-asked")}).to_string();
    let answer = ask(&submitter, "submit", &[("Job-Wait", "outcome")], &query).await.unwrap();
    assert_eq!(answer["outcome"]["result"], "Complete");
    let last = ask(&world.client, "get", &[], &json!({ "name": name }).to_string()).await.unwrap();
    assert_eq!(last["type"], "OUTCOME");
    let info = submitter.request("$SRV.INFO.dispatcher", "".into()).await.unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&info.payload).unwrap()["name"], "dispatcher");
}

/// The types of all events of a Job, as the consumer `reader` has them; each acknowledged.
async fn by_consumer(context: &jetstream::Context, name: &str) -> Vec<String> {
    let consumer: PullConsumer = context.get_consumer_from_stream("reader", "JOB_STATUS").await.unwrap();
    let mut types = vec![];
    while types.last().map(String::as_str) != Some("OUTCOME") {
        let mut batch = consumer.fetch().max_messages(1).messages().await.unwrap();
        while let Some(message) = batch.next().await {
            let message = message.unwrap();
            message.double_ack().await.expect("the acknowledgement is confirmed");
            if message.subject.ends_with(name) {
                types.push(message.headers.as_ref().unwrap().get("Job-Event").unwrap().to_string());
            }
        }
    }
    types
}

/// What is seldom done: requests that no client can read, and questions after a rejection.
async fn seldom(world: &World) {
    let headers = "NATS/1.0\r\nno colon\r\n\r\n";
    let sizes = format!("{} {}", headers.len(), headers.len() + 2);
    let illegible = format!("HPUB jobs.simple.create {sizes}\r\n{headers}{{}}\r\n");
    say(&world.nats, "submitter", illegible.as_bytes()).await.unwrap();
    until("the request to be rejected", PATIENCE, || async {
        let letters = world.dead_letters().await;
        letters.iter().any(|letter| header(letter, "Job-Error") == "InvalidHeaders").then_some(())
    })
    .await;
    // A Job that fails again and again, until it is cancelled.
    world.request(r#"{"foo":"cancel-me","fail":true}"#).await;
    world.job("simple-job-cancel-me").await;
    ask(&world.client, "cancel", &[], r#"{"name":"simple-job-cancel-me"}"#).await.unwrap();
    assert_eq!(world.outcome("simple-job-cancel-me").await["result"], "Cancelled");
    until("the cancel to be forgotten", PATIENCE, || async {
        let bucket = world.jetstream.get_stream("KV_JOB_CANCELS").await.map_err(|e| e.to_string())?;
        match bucket.cached_info().state.messages {
            0 => Ok(()),
            left => Err(format!("{left} are left")),
        }
    })
    .await;
    // A name that is taken, asked for twice: what became of the first is looked up among the dead letters.
    let headers = [("Nats-Msg-Id", "taken"), ("Job-Wait", "created")];
    for _ in 0..2 {
        let refused = ask(&world.client, "submit", &headers, r#"{"foo":"first"}"#).await.unwrap_err();
        assert_eq!(refused.word, "NameTaken", "{}", refused.message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_provisions_and_does_its_job_and_needs_each_permission() {
    let world = or_skip!(world(Place::new().by_password("accounts.conf").await).await);
    let dispatcher = world.dispatcher().start().await;
    make_consumer_of_reader(&world).await;
    main_job(&world, "first").await;
    seldom(&world).await;
    assert_eq!(dispatcher.terminate().await, Some(0));
    // A stream that lacks what a start adds.
    for (stream, change) in [("JOBS", "subjects"), ("JOB_STATUS", "metadata")] {
        let config = world.jetstream.get_stream(stream).await.unwrap().cached_info().config.clone();
        let mut config = serde_json::to_value(config).unwrap();
        config[change] = if change == "subjects" { json!(["jobs.simple.create"]) } else { json!({}) };
        let made: Value = world.jetstream.request(format!("STREAM.UPDATE.{stream}"), &config).await.unwrap();
        assert!(made["error"].is_null(), "{made}");
    }
    let dispatcher = world.dispatcher().start().await;
    assert_eq!(dispatcher.terminate().await, Some(0));
    assert_eq!(violations(&world.nats), Vec::<String>::new());
    needs_each(&world.nats, "dispatcher");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_provision_it_needs_no_right_to_change_streams() {
    let place = Place::new();
    place.edit("accounts.conf", "roles/dispatcher.conf", "roles/dispatcher-no-provision.conf");
    let world = or_skip!(world(place.by_password("accounts.conf").await).await);
    make_streams(&world).await;
    make_consumer_of_reader(&world).await;
    let dispatcher = world.dispatcher().arg("--no-provision").start().await;
    main_job(&world, "first").await;
    seldom(&world).await;
    assert_eq!(dispatcher.terminate().await, Some(0));
    assert_eq!(violations(&world.nats), Vec::<String>::new());
    needs_each(&world.nats, "dispatcher-no-provision");
}

/// Done only when the connection was lost while a consumer was in use: is it still there? It is deleted and made anew.
const SELDOM: [&str; 4] = [
    "$JS.API.CONSUMER.INFO.JOB_STATUS.*",
    "$JS.API.CONSUMER.INFO.JOB_REJECTED.*",
    "$JS.API.CONSUMER.INFO.KV_JOB_CANCELS.*",
    "$JS.API.CONSUMER.DELETE.KV_JOB_CANCELS.*",
];

fn needs_each(nats: &Nats, role: &str) {
    let (publish, subscribe) = allowed(role);
    let published = done(nats, &["PUB", "HPUB"]);
    let subscribed = done(nats, &["SUB"]);
    assert!(published.len() > 20 && !subscribed.is_empty(), "the log tells: {published:?}");
    let unused = |patterns: Vec<String>, subjects: &[String]| {
        let used = |pattern: &String| {
            SELDOM.contains(&pattern.as_str()) || subjects.iter().any(|subject| matches(pattern, subject))
        };
        patterns.into_iter().filter(|pattern| !used(pattern)).collect::<Vec<_>>()
    };
    assert_eq!(unused(publish, &published), Vec::<String>::new(), "not needed to publish");
    // `$SRV.>` stands for what it subscribes to of it.
    assert_eq!(unused(subscribe, &subscribed), Vec::<String>::new(), "not needed to subscribe");
}

#[test]
fn what_it_may_without_provision_it_may_with_it() {
    let (more, less) = (allowed("dispatcher"), allowed("dispatcher-no-provision"));
    assert!(less.0.iter().all(|subject| more.0.contains(subject)) && less.0.len() < more.0.len());
    assert_eq!(less.1, more.1);
}
