//! `submit` and `get` without waiting: every answer, and every error.

use async_nats::jetstream::stream;
use dispatcher_tests::or_skip;
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::asking::{ask, refused};
use dispatcher_tests::job_controller::{finished_status as finished, managed_template};
use dispatcher_tests::test_env::{TestEnv as World, header, text};

#[tokio::test(flavor = "multi_thread")]
async fn a_submitted_request_is_stored_and_told_under_which_name() {
    let world = or_skip!(World::start().await);
    let (_folder, templates) = managed_template();
    let _dispatcher = world.dispatcher().templates(templates).start().await;
    let accepted = ask(&world.client, "submit", &[], r#"{"foo":"a"}"#).await.unwrap();
    assert_eq!(accepted["name"], "simple-job-a");
    assert_eq!(accepted["template"], "simple");
    assert_eq!(accepted["statusSubject"], "jobs.simple.status.simple-job-a");
    let event = world.until_last("simple-job-a", "ADDED").await;
    assert_eq!(event["requestId"], accepted["requestId"]);
    assert_eq!(event["requestSeq"], accepted["requestSeq"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_is_refused_with_field_and_reason_and_not_stored() {
    let world = or_skip!(World::start().await);
    let _dispatcher = world.dispatcher().start().await;
    let long = format!(r#"{{"foo":"{}"}}"#, "x".repeat(2000));
    for (payload, headers, word, names) in [
        ("", &[][..], "InvalidJson", "nothing"),
        ("{}", &[], "InvalidRequest", "`foo`"),
        (r#"{"foo":7}"#, &[], "InvalidRequest", "`foo`"),
        (&long, &[], "InvalidRequest", "1024"),
        (r#"{"foo":"Upper"}"#, &[], "InvalidName", "`foo`"),
        (r#"{"foo":"a","name":"a.b"}"#, &[], "InvalidName", "`name`"),
        (r#"{"foo":"a"}"#, &[("Nats-Msg-Id", "")], "InvalidRequestId", "Nats-Msg-Id"),
        (r#"{"foo":"a"}"#, &[("Job-Wait", "end")], "BadRequest", "Job-Wait"),
    ] {
        let error = ask(&world.client, "submit", headers, payload).await.unwrap_err();
        assert_eq!((error.code, error.word.as_str()), (400, word), "{payload}");
        assert!(error.message.contains(names), "{payload}: {}", error.message);
    }
    let queue = world.jetstream.get_stream("JOBS").await.unwrap();
    assert_eq!(queue.cached_info().state.last_sequence, 0, "none is stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_larger_than_the_stream_takes_is_refused() {
    let world = or_skip!(World::start().await);
    let _dispatcher = world.dispatcher().start().await;
    let spaces = " ".repeat(70_000);
    let answer = ask(&world.client, "submit", &[], &format!("{{\"foo\":\"a\"{spaces}}}")).await;
    assert_eq!(refused(answer), (400, "TooLarge".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_id_twice_gets_the_same_answer_and_one_job() {
    let world = or_skip!(World::start().await);
    let (_folder, templates) = managed_template();
    let _dispatcher = world.dispatcher().templates(templates).start().await;
    let order = [("Nats-Msg-Id", "order-1")];
    let first = ask(&world.client, "submit", &order, r#"{"foo":"a","fail":true}"#).await.unwrap();
    let again = ask(&world.client, "submit", &order, r#"{ "fail": true, "foo": "a" }"#).await.unwrap();
    assert_eq!(first, again);
    world.until_last("simple-job-a", "ADDED").await;
    world.until_queue_is_empty().await;
    let later = ask(&world.client, "submit", &order, r#"{"foo":"a","fail":true}"#).await.unwrap();
    assert_eq!(first, later, "also when the request is done");
    for other in [r#"{"foo":"a"}"#, r#"{"foo":"b"}"#] {
        let answer = ask(&world.client, "submit", &order, other).await;
        assert_eq!(refused(answer), (409, "RequestIdReused".to_owned()), "it would never be stored");
    }
    assert_eq!(world.namespace.jobs.list(&ListParams::default()).await.unwrap().items.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_name_is_not_known_when_the_request_is_stored() {
    let world = or_skip!(World::start().await);
    let (_folder, templates) = managed_template();
    let _dispatcher = world.dispatcher().templates(templates).start().await;
    ask(&world.client, "submit", &[], r#"{"foo":"a"}"#).await.unwrap();
    // Of two that are stored either may come first.
    world.until_last("simple-job-a", "ADDED").await;
    let second = ask(&world.client, "submit", &[], r#"{"foo":"a"}"#).await.unwrap();
    let letter = world.dead_letter(second["requestSeq"].as_u64().unwrap()).await;
    assert_eq!(header(&letter, "Job-Error"), "NameTaken");
    assert_eq!(header(&letter, "Job-Request-Id"), text(&second["requestId"]));
}

/// A template whose queue is full, and one that nobody takes requests of.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_and_an_absent_one_are_told_apart() {
    let world = or_skip!(World::start().await);
    let dispatcher = world.dispatcher().start().await;
    let mut queue = world.jetstream.get_stream("JOBS").await.unwrap();
    let config = queue.info().await.unwrap().config.clone();
    let full = stream::Config { max_messages_per_subject: 1, ..config };
    world.jetstream.update_stream(full).await.unwrap();
    // Nothing is taken out: the consumer is paused, so to speak, by its absence.
    queue.delete_consumer("dispatcher-simple").await.unwrap();
    ask(&world.client, "submit", &[], r#"{"foo":"a"}"#).await.unwrap();
    let answer = ask(&world.client, "submit", &[], r#"{"foo":"b"}"#).await;
    assert_eq!(refused(answer), (429, "QueueFull".to_owned()));
    world.jetstream.delete_stream("JOBS").await.unwrap();
    let answer = ask(&world.client, "submit", &[], r#"{"foo":"c"}"#).await;
    assert_eq!(refused(answer), (503, "NotReady".to_owned()));
    assert_eq!(dispatcher.terminate().await, Some(0), "{}", dispatcher.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn get_tells_the_last_event_a_queued_request_and_an_unknown_job_apart() {
    let world = or_skip!(World::start().await);
    let (_folder, templates) = managed_template();
    let dispatcher = world.dispatcher().templates(templates).start().await;
    let get = async |name: &str| ask(&world.client, "get", &[], &json!({ "name": name }).to_string()).await;

    assert_eq!(refused(get("simple-job-a").await), (404, "NotFound".to_owned()));
    world.request(r#"{"foo":"a"}"#).await;
    let running = world.until_last("simple-job-a", "ADDED").await;
    assert_eq!(get("simple-job-a").await.unwrap(), running);
    world.set_status("simple-job-a", finished("Failed", 1, "BackoffLimitExceeded", "words")).await;
    world.outcome("simple-job-a").await;
    let done: Value = get("simple-job-a").await.unwrap();
    assert_eq!((&done["type"], &done["outcome"]["result"]), (&json!("OUTCOME"), &json!("Failed")));

    let queue = world.jetstream.get_stream("JOBS").await.unwrap();
    queue.delete_consumer("dispatcher-simple").await.unwrap();
    world.request(r#"{"foo":"other"}"#).await;
    world.request(r#"{"foo":"b"}"#).await;
    assert_eq!(refused(get("simple-job-b").await), (404, "Queued".to_owned()));
    assert_eq!(refused(get("simple-job-c").await), (404, "NotFound".to_owned()));
    for bad in ["", "{}", r#"{"name":"a.b"}"#, r#"{"name":"a","more":1}"#] {
        assert_eq!(
            refused(ask(&world.client, "get", &[], bad).await),
            (400, "BadRequest".to_owned()),
            "{bad}"
        );
    }
    assert_eq!(dispatcher.terminate().await, Some(0), "{}", dispatcher.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_micro_service_can_be_found_described_and_counted() {
    let world = or_skip!(World::start().await);
    let (_folder, templates) = managed_template();
    let dispatcher = world.dispatcher().templates(templates).start().await;
    ask(&world.client, "submit", &[], r#"{"foo":"a"}"#).await.unwrap();
    ask(&world.client, "submit", &[], "{}").await.unwrap_err();
    let of = async |verb: &str| -> Value {
        let answer = world.client.request(format!("$SRV.{verb}.dispatcher"), "".into()).await.unwrap();
        serde_json::from_slice(&answer.payload).unwrap()
    };
    assert_eq!(of("PING").await["version"], env!("CARGO_PKG_VERSION"));
    let (info, stats) = (of("INFO").await, of("STATS").await);
    for verb in ["submit", "get"] {
        let find = |list: &Value| {
            let mut endpoints = list["endpoints"].as_array().unwrap().iter();
            endpoints.find(|e| e["subject"] == format!("jobs.simple.{verb}")).cloned().expect(verb)
        };
        let endpoint = find(&info);
        assert_eq!(endpoint["queue_group"], "dispatcher");
        for schema in ["request_schema", "response_schema"] {
            let schema: Value = serde_json::from_str(endpoint["metadata"][schema].as_str().unwrap()).unwrap();
            assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        }
        find(&stats);
    }
    let stats = stats["endpoints"].as_array().unwrap().iter().find(|e| e["name"] == "submit-simple").unwrap();
    assert_eq!((&stats["num_requests"], &stats["num_errors"]), (&json!(2), &json!(1)));
    assert_eq!(dispatcher.terminate().await, Some(0));
    assert!(world.client.request("$SRV.PING.dispatcher", "".into()).await.is_err(), "it is gone");
}
