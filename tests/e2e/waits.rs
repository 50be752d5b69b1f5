//! `submit` with `Job-Wait`: a call that returns the outcome of its Job, also during outages.

use std::{pin::pin, time::Duration};

use dispatcher_tests::job_controller::{finished_status, managed_template};
use dispatcher_tests::or_skip;
use dispatcher_tests::test_env::TestEnv;
use dispatcher_tests::wait::TIMEOUT;
use futures::{StreamExt, future::join_all};
use serde_json::{Value, json};

use crate::service_client::{ServiceError, call_service, code_and_error, try_call_service};

const CREATED: (&str, &str) = ("Job-Wait", "created");
const OUTCOME: (&str, &str) = ("Job-Wait", "outcome");
const ONE_SECOND: (&str, &str) = ("Job-Wait-Timeout", "1");

/// Completes a Job.
async fn complete(env: &TestEnv, name: &str) {
    env.set_status(name, finished_status("Complete", 0, "CompletionsReached", "done")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn submit_returns_the_outcome() {
    let env = or_skip!(TestEnv::start().await);
    let _dispatcher = env.dispatcher().start().await;
    let answer = call_service(&env.client, "submit", &[OUTCOME], r#"{"foo":"a"}"#).await.unwrap();
    assert_eq!((&answer["type"], &answer["name"]), (&json!("OUTCOME"), &json!("simple-job-a")));
    assert_eq!(answer["outcome"]["result"], "Complete");
    assert_eq!(
        env.last_event("simple-job-a").await.unwrap(),
        answer,
        "the answer differs from the stored event"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_outcome_is_not_a_service_error() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    let call = call_service(&env.client, "submit", &[OUTCOME], r#"{"foo":"a"}"#);
    let fail = async {
        env.until_last("simple-job-a", "ADDED").await;
        env.set_status("simple-job-a", finished_status("Failed", 4, "BackoffLimitExceeded", "message")).await;
    };
    let (answer, ()) = tokio::join!(call, fail);
    let answer = answer.unwrap();
    assert_eq!(answer["outcome"]["result"], "Failed");
    assert_eq!(answer["outcome"]["reason"], "BackoffLimitExceeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn submit_returns_the_created_job() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    let answer = call_service(&env.client, "submit", &[CREATED], r#"{"foo":"a"}"#).await.unwrap();
    assert_eq!((&answer["type"], &answer["name"]), (&json!("ADDED"), &json!("simple-job-a")));
    let taken = call_service(&env.client, "submit", &[CREATED], r#"{"foo":"a"}"#).await.unwrap_err();
    assert_eq!((taken.code, taken.error.as_str()), (409, "NameTaken"));
    assert!(taken.message.contains("generateName"), "{}", taken.message);
    assert_eq!(taken.headers.get("Job-Name").unwrap().as_str(), "simple-job-a");
}

#[tokio::test(flavor = "multi_thread")]
async fn submit_timeout_keeps_the_job_and_the_same_request_id_gets_the_outcome() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    let order = ("Nats-Msg-Id", "order-1");
    let timed_out =
        call_service(&env.client, "submit", &[OUTCOME, ONE_SECOND, order], r#"{"foo":"a"}"#).await;
    let timed_out = timed_out.unwrap_err();
    assert_eq!((timed_out.code, timed_out.error.as_str()), (504, "TimedOut"));
    assert!(timed_out.message.contains("jobs.simple.status.simple-job-a"), "{}", timed_out.message);
    assert_eq!(timed_out.headers.get("Job-Request-Id").unwrap().as_str(), "order-1");
    complete(&env, "simple-job-a").await;
    let outcome = env.until_last("simple-job-a", "OUTCOME").await;
    for wait in [OUTCOME, CREATED] {
        let repeated = call_service(&env.client, "submit", &[wait, order], r#"{"foo":"a"}"#).await.unwrap();
        assert_eq!(repeated, outcome);
    }
}

/// After the deduplication window the repeated request is stored again, and its name was reused.
#[tokio::test(flavor = "multi_thread")]
async fn stored_outcome_is_found_after_the_name_was_reused() {
    let env = or_skip!(TestEnv::start().await);
    env.create_streams_without_deduplication().await;
    let (_folder, templates) = managed_template();
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    for id in ["order-1", "order-2"] {
        env.request_with_id(id, r#"{"foo":"a"}"#).await;
        env.until_last("simple-job-a", "ADDED").await;
        let delete = kube::api::DeleteParams::background();
        env.namespace.jobs.delete("simple-job-a", &delete).await.unwrap();
        env.outcome("simple-job-a").await;
    }
    let first = [OUTCOME, ("Nats-Msg-Id", "order-1")];
    let answer = call_service(&env.client, "submit", &first, r#"{"foo":"a"}"#).await.unwrap();
    assert_eq!((&answer["type"], &answer["requestId"]), (&json!("OUTCOME"), &json!("order-1")));
    let answer = call_service(&env.client, "submit", &first, r#"{"foo":"a","fail":true}"#).await;
    assert_eq!(code_and_error(answer), (409, "RequestIdReused".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn number_of_waiting_callers_is_limited() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let dispatcher = env.dispatcher().templates(templates).env("DISPATCHER_MAX_WAITERS", "1");
    let _dispatcher = dispatcher.start().await;
    let mut waiting = pin!(call_service(&env.client, "submit", &[OUTCOME], r#"{"foo":"a"}"#));
    tokio::select! {
        answer = &mut waiting => panic!("{answer:?}"),
        _ = env.until_last("simple-job-a", "ADDED") => {}
    }
    let second = async {
        let overloaded = call_service(&env.client, "submit", &[OUTCOME], r#"{"foo":"b"}"#).await;
        assert_eq!(code_and_error(overloaded), (503, "Overloaded".to_owned()));
        call_service(&env.client, "submit", &[], r#"{"foo":"b"}"#)
            .await
            .expect("a call without wait is refused");
        env.until_last("simple-job-b", "ADDED").await;
        complete(&env, "simple-job-a").await;
    };
    let (answer, ()) = tokio::join!(waiting, second);
    assert_eq!(answer.unwrap()["type"], "OUTCOME");
    call_service(&env.client, "submit", &[CREATED], r#"{"foo":"c"}"#)
        .await
        .expect("the waiter is still counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn outcome_during_a_nats_outage_is_returned() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    let call = call_service(&env.client, "submit", &[OUTCOME], r#"{"foo":"a"}"#);
    let outage = async {
        env.until_last("simple-job-a", "ADDED").await;
        env.nats.kill().await;
        complete(&env, "simple-job-a").await;
        env.nats.restart().await;
    };
    let (answer, ()) = tokio::join!(call, outage);
    assert_eq!(answer.unwrap()["outcome"]["result"], "Complete");
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_answers_waiting_callers_with_not_ready() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let dispatcher = env.dispatcher().templates(templates).start().await;
    let order = [OUTCOME, ("Nats-Msg-Id", "order-1")];
    let call = call_service(&env.client, "submit", &order, r#"{"foo":"a"}"#);
    let stop = async {
        env.until_last("simple-job-a", "ADDED").await;
        assert_eq!(dispatcher.terminate().await, Some(0), "{}", dispatcher.log());
    };
    let (answer, ()) = tokio::join!(call, stop);
    assert_eq!(code_and_error(answer), (503, "NotReady".to_owned()));
    dispatcher.restart().await;
    complete(&env, "simple-job-a").await;
    let answer = call_service(&env.client, "submit", &order, r#"{"foo":"a"}"#).await.unwrap();
    assert_eq!(answer["type"], "OUTCOME");
}

/// The caller of a killed dispatcher times out and repeats the request with the same id.
#[tokio::test(flavor = "multi_thread")]
async fn request_of_a_caller_survives_a_killed_dispatcher() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let dispatcher = env.dispatcher().templates(templates).start().await;
    let order = [OUTCOME, ("Nats-Msg-Id", "order-1")];
    let timeout = Duration::from_secs(2);
    let call = try_call_service(&env.client, "jobs.simple.submit", &order, r#"{"foo":"a"}"#, timeout);
    let kill = async {
        env.until_last("simple-job-a", "ADDED").await;
        dispatcher.kill().await;
    };
    let (answer, ()) = tokio::join!(call, kill);
    assert!(answer.is_err(), "{answer:?}");
    complete(&env, "simple-job-a").await;
    dispatcher.restart().await;
    let answer = call_service(&env.client, "submit", &order, r#"{"foo":"a"}"#).await.unwrap();
    assert_eq!(answer["outcome"]["result"], "Complete");
}

/// A replica also answers calls for Jobs that the other replica has published.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_calls_and_return_events_of_each_other() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let one = env.dispatcher().templates(&templates).start().await;
    let two = env.dispatcher().templates(&templates).start().await;
    let call = async |n: usize| -> Result<Value, ServiceError> {
        let payload = json!({"foo": "x", "name": format!("job-{}", n % 40)}).to_string();
        call_service(&env.client, "submit", &[CREATED], &payload).await
    };
    let answers = join_all((0..80).map(call)).await;
    let (created, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((created.len(), refused.len()), (40, 40));
    assert!(refused.into_iter().all(|answer| code_and_error(answer) == (409, "NameTaken".to_owned())));
    let inbox = env.client.new_inbox();
    let statistics = env.client.subscribe(inbox.clone()).await.unwrap();
    env.client.publish_with_reply("$SRV.STATS.dispatcher", inbox, "".into()).await.unwrap();
    let statistics = tokio::time::timeout(TIMEOUT, statistics.take(2).collect::<Vec<_>>())
        .await
        .expect("a replica sent no statistics");
    let served: Vec<u64> = statistics.iter().map(|message| submitted(&message.payload)).collect();
    assert!(served.iter().all(|count| *count > 0), "a replica served no call: {served:?}");
    for dispatcher in [one, two] {
        assert_eq!(dispatcher.terminate().await, Some(0), "{}", dispatcher.log());
    }
}

fn submitted(stats: &[u8]) -> u64 {
    let stats: Value = serde_json::from_slice(stats).unwrap();
    let endpoints = stats["endpoints"].as_array().unwrap().iter();
    endpoints.filter(|e| e["name"] == "submit-simple").filter_map(|e| e["num_requests"].as_u64()).sum()
}
