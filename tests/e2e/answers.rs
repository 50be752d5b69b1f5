//! `submit` and `get` without `Job-Wait`: every answer and every error.

use std::time::Duration;

use async_nats::jetstream::stream;
use dispatcher_tests::job_controller::{finished_status, managed_template};
use dispatcher_tests::or_skip;
use dispatcher_tests::test_env::{TestEnv, header, text};
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::service_client::{call_service, code_and_error};

#[tokio::test(flavor = "multi_thread")]
async fn submit_stores_the_request_and_returns_the_job_name() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    let accepted = call_service(&env.client, "submit", &[], r#"{"foo":"a"}"#).await.unwrap();
    assert_eq!(accepted["name"], "simple-job-a");
    assert_eq!(accepted["template"], "simple");
    assert_eq!(accepted["statusSubject"], "jobs.simple.status.simple-job-a");
    let event = env.until_last("simple-job-a", "ADDED").await;
    assert_eq!(event["requestId"], accepted["requestId"]);
    assert_eq!(event["requestSeq"], accepted["requestSeq"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn submit_refuses_an_invalid_request_and_names_the_field() {
    let env = or_skip!(TestEnv::start().await);
    let _dispatcher = env.dispatcher().start().await;
    let long = format!(r#"{{"foo":"{}"}}"#, "x".repeat(2000));
    for (payload, headers, expected, fragment) in [
        ("", &[][..], "InvalidJson", ""),
        ("{}", &[], "InvalidRequest", "`foo`"),
        (r#"{"foo":7}"#, &[], "InvalidRequest", "`foo`"),
        (&long, &[], "InvalidRequest", "1024"),
        (r#"{"foo":"Upper"}"#, &[], "InvalidName", "`foo`"),
        (r#"{"foo":"a","name":"a.b"}"#, &[], "InvalidName", "`name`"),
        (r#"{"foo":"a"}"#, &[("Nats-Msg-Id", "")], "InvalidRequestId", "Nats-Msg-Id"),
        (r#"{"foo":"a"}"#, &[("Job-Wait", "end")], "BadRequest", "Job-Wait"),
    ] {
        let error = call_service(&env.client, "submit", headers, payload).await.unwrap_err();
        assert_eq!((error.code, error.error.as_str()), (400, expected), "{payload}");
        assert!(error.message.contains(fragment), "{payload}: {}", error.message);
    }
    let queue = env.jetstream.get_stream("JOBS").await.unwrap();
    assert_eq!(queue.cached_info().state.last_sequence, 0, "a refused request is stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn submit_refuses_a_request_above_the_size_limit_of_the_stream() {
    let env = or_skip!(TestEnv::start().await);
    let _dispatcher = env.dispatcher().start().await;
    let spaces = " ".repeat(70_000);
    let answer = call_service(&env.client, "submit", &[], &format!("{{\"foo\":\"a\"{spaces}}}")).await;
    assert_eq!(code_and_error(answer), (413, "TooLarge".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_request_id_gets_the_same_answer_and_creates_one_job() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    let order = [("Nats-Msg-Id", "order-1")];
    let submit = async |payload| {
        let mut answer = call_service(&env.client, "submit", &order, payload).await.unwrap();
        // After the deduplication window, JetStream stores the repeated request again.
        answer.as_object_mut().unwrap().remove("requestSeq");
        answer
    };
    let first = submit(r#"{"foo":"a","fail":true}"#).await;
    assert_eq!(first, submit(r#"{ "fail": true, "foo": "a" }"#).await);
    env.until_last("simple-job-a", "ADDED").await;
    env.until_queue_is_empty().await;
    assert_eq!(first, submit(r#"{"foo":"a","fail":true}"#).await);
    env.until_queue_is_empty().await;
    let waiting = [order[0], ("Job-Wait", "created")];
    let other_request = call_service(&env.client, "submit", &waiting, r#"{"foo":"a"}"#).await;
    assert_eq!(code_and_error(other_request), (409, "RequestIdReused".to_owned()));
    // A request for another Job is recognized by JetStream alone, within its deduplication window.
    let mut queue = env.jetstream.get_stream("JOBS").await.unwrap();
    let config = queue.info().await.unwrap().config.clone();
    let long = stream::Config { duplicate_window: Duration::from_mins(2), ..config };
    env.jetstream.update_stream(long).await.unwrap();
    assert_eq!(first, submit(r#"{"foo":"a","fail":true}"#).await);
    let other_job = call_service(&env.client, "submit", &waiting, r#"{"foo":"b"}"#).await;
    assert_eq!(code_and_error(other_job), (409, "RequestIdReused".to_owned()));
    env.until_queue_is_empty().await;
    assert_eq!(env.namespace.jobs.list(&ListParams::default()).await.unwrap().items.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn submit_without_wait_accepts_a_taken_name_that_becomes_a_dead_letter() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    call_service(&env.client, "submit", &[], r#"{"foo":"a"}"#).await.unwrap();
    // If both requests were queued, either could create the Job.
    env.until_last("simple-job-a", "ADDED").await;
    let second = call_service(&env.client, "submit", &[], r#"{"foo":"a"}"#).await.unwrap();
    let dead_letter = env.dead_letter(second["requestSeq"].as_u64().unwrap()).await;
    assert_eq!(header(&dead_letter, "Job-Error"), "NameTaken");
    assert_eq!(header(&dead_letter, "Job-Request-Id"), text(&second["requestId"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn submit_distinguishes_a_full_queue_from_a_missing_stream() {
    let env = or_skip!(TestEnv::start().await);
    let dispatcher = env.dispatcher().start().await;
    let mut queue = env.jetstream.get_stream("JOBS").await.unwrap();
    let config = queue.info().await.unwrap().config.clone();
    let full = stream::Config { max_messages_per_subject: 1, ..config };
    env.jetstream.update_stream(full).await.unwrap();
    // Without its consumer the queue is not drained.
    queue.delete_consumer("dispatcher-simple").await.unwrap();
    call_service(&env.client, "submit", &[], r#"{"foo":"a"}"#).await.unwrap();
    let answer = call_service(&env.client, "submit", &[], r#"{"foo":"b"}"#).await;
    assert_eq!(code_and_error(answer), (429, "QueueFull".to_owned()));
    env.jetstream.delete_stream("JOBS").await.unwrap();
    let answer = call_service(&env.client, "submit", &[], r#"{"foo":"c"}"#).await;
    assert_eq!(code_and_error(answer), (503, "NotReady".to_owned()));
    assert_eq!(dispatcher.terminate().await, Some(0), "{}", dispatcher.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn get_distinguishes_the_last_event_a_queued_request_and_an_unknown_job() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let dispatcher = env.dispatcher().templates(templates).start().await;
    let get =
        async |name: &str| call_service(&env.client, "get", &[], &json!({ "name": name }).to_string()).await;

    assert_eq!(code_and_error(get("simple-job-a").await), (404, "NotFound".to_owned()));
    env.request(r#"{"foo":"a"}"#).await;
    let running = env.until_last("simple-job-a", "ADDED").await;
    assert_eq!(get("simple-job-a").await.unwrap(), running);
    env.set_status("simple-job-a", finished_status("Failed", 1, "BackoffLimitExceeded", "message")).await;
    env.outcome("simple-job-a").await;
    let done: Value = get("simple-job-a").await.unwrap();
    assert_eq!((&done["type"], &done["outcome"]["result"]), (&json!("OUTCOME"), &json!("Failed")));

    let queue = env.jetstream.get_stream("JOBS").await.unwrap();
    queue.delete_consumer("dispatcher-simple").await.unwrap();
    env.request(r#"{"foo":"other"}"#).await;
    env.request(r#"{"foo":"b"}"#).await;
    assert_eq!(code_and_error(get("simple-job-b").await), (404, "Queued".to_owned()));
    assert_eq!(code_and_error(get("simple-job-c").await), (404, "NotFound".to_owned()));
    for bad in ["", "{}", r#"{"name":"a.b"}"#, r#"{"name":"a","more":1}"#] {
        assert_eq!(
            code_and_error(call_service(&env.client, "get", &[], bad).await),
            (400, "BadRequest".to_owned()),
            "{bad}"
        );
    }
    assert_eq!(dispatcher.terminate().await, Some(0), "{}", dispatcher.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_service_answers_ping_info_and_stats() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let dispatcher = env.dispatcher().templates(templates).start().await;
    call_service(&env.client, "submit", &[], r#"{"foo":"a"}"#).await.unwrap();
    call_service(&env.client, "submit", &[], "{}").await.unwrap_err();
    let query = async |verb: &str| -> Value {
        let answer = env.client.request(format!("$SRV.{verb}.dispatcher"), "".into()).await.unwrap();
        serde_json::from_slice(&answer.payload).unwrap()
    };
    assert_eq!(query("PING").await["version"], env!("CARGO_PKG_VERSION"));
    let (info, stats) = (query("INFO").await, query("STATS").await);
    for endpoint_name in ["submit", "get"] {
        let find = |list: &Value| {
            let mut endpoints = list["endpoints"].as_array().unwrap().iter();
            endpoints
                .find(|e| e["subject"] == format!("jobs.simple.{endpoint_name}"))
                .cloned()
                .expect(endpoint_name)
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
    assert!(
        env.client.request("$SRV.PING.dispatcher", "".into()).await.is_err(),
        "the service still answers"
    );
}
