//! `submit` with `Job-Wait`: a Job as a remote call, over outages too.

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
const BRIEFLY: (&str, &str) = ("Job-Wait-Timeout", "1");

/// Says that the Job is over.
async fn end(env: &TestEnv, name: &str) {
    env.set_status(name, finished_status("Complete", 0, "CompletionsReached", "done")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_a_remote_call() {
    let env = or_skip!(TestEnv::start().await);
    let _dispatcher = env.dispatcher().start().await;
    let answer = call_service(&env.client, "submit", &[OUTCOME], r#"{"foo":"a"}"#).await.unwrap();
    assert_eq!((&answer["type"], &answer["name"]), (&json!("OUTCOME"), &json!("simple-job-a")));
    assert_eq!(answer["outcome"]["result"], "Complete");
    assert_eq!(env.last_event("simple-job-a").await.unwrap(), answer, "as it is stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_job_is_a_normal_answer() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    let call = call_service(&env.client, "submit", &[OUTCOME], r#"{"foo":"a"}"#);
    let fail = async {
        env.until_last("simple-job-a", "ADDED").await;
        env.set_status("simple-job-a", finished_status("Failed", 4, "BackoffLimitExceeded", "words")).await;
    };
    let (answer, ()) = tokio::join!(call, fail);
    let answer = answer.unwrap();
    assert_eq!(answer["outcome"]["result"], "Failed");
    assert_eq!(answer["outcome"]["reason"], "BackoffLimitExceeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_may_wait_until_the_job_is_there() {
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
async fn a_job_outlives_its_callers_patience_and_the_same_id_gets_the_stored_outcome() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    let order = ("Nats-Msg-Id", "order-1");
    let late = call_service(&env.client, "submit", &[OUTCOME, BRIEFLY, order], r#"{"foo":"a"}"#).await;
    let late = late.unwrap_err();
    assert_eq!((late.code, late.error.as_str()), (504, "TimedOut"));
    assert!(late.message.contains("jobs.simple.status.simple-job-a"), "{}", late.message);
    assert_eq!(late.headers.get("Job-Request-Id").unwrap().as_str(), "order-1");
    end(&env, "simple-job-a").await;
    let outcome = env.until_last("simple-job-a", "OUTCOME").await;
    for wait in [OUTCOME, CREATED] {
        let again = call_service(&env.client, "submit", &[wait, order], r#"{"foo":"a"}"#).await.unwrap();
        assert_eq!(again, outcome);
    }
}

/// Past JetStream's deduplication the request is stored anew; the outcome is that of its Job, also where the name has been
/// used since.
#[tokio::test(flavor = "multi_thread")]
async fn the_stored_outcome_is_found_when_the_name_was_used_again() {
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
async fn callers_that_wait_are_bounded() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let dispatcher = env.dispatcher().templates(templates).env("DISPATCHER_MAX_WAITERS", "1");
    let _dispatcher = dispatcher.start().await;
    let mut waits = pin!(call_service(&env.client, "submit", &[OUTCOME], r#"{"foo":"a"}"#));
    tokio::select! {
        answer = &mut waits => panic!("{answer:?}"),
        _ = env.until_last("simple-job-a", "ADDED") => {}
    }
    let second = async {
        let busy = call_service(&env.client, "submit", &[OUTCOME], r#"{"foo":"b"}"#).await;
        assert_eq!(code_and_error(busy), (503, "Overloaded".to_owned()));
        call_service(&env.client, "submit", &[], r#"{"foo":"b"}"#).await.expect("others are served");
        env.until_last("simple-job-b", "ADDED").await;
        end(&env, "simple-job-a").await;
    };
    let (answer, ()) = tokio::join!(waits, second);
    assert_eq!(answer.unwrap()["type"], "OUTCOME");
    call_service(&env.client, "submit", &[CREATED], r#"{"foo":"c"}"#).await.expect("the place is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_comes_while_nats_is_away_is_answered() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    let call = call_service(&env.client, "submit", &[OUTCOME], r#"{"foo":"a"}"#);
    let outage = async {
        env.until_last("simple-job-a", "ADDED").await;
        env.nats.kill().await;
        end(&env, "simple-job-a").await;
        env.nats.restart().await;
    };
    let (answer, ()) = tokio::join!(call, outage);
    assert_eq!(answer.unwrap()["outcome"]["result"], "Complete");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_that_stops_tells_its_callers_and_the_next_one_goes_on() {
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
    end(&env, "simple-job-a").await;
    let answer = call_service(&env.client, "submit", &order, r#"{"foo":"a"}"#).await.unwrap();
    assert_eq!(answer["type"], "OUTCOME");
}

/// A killed one tells nobody: the caller's own patience ends, and the same id gets the answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_dispatcher_loses_no_request_of_a_caller() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let dispatcher = env.dispatcher().templates(templates).start().await;
    let order = [OUTCOME, ("Nats-Msg-Id", "order-1")];
    let brief = Duration::from_secs(2);
    let call = try_call_service(&env.client, "jobs.simple.submit", &order, r#"{"foo":"a"}"#, brief);
    let kill = async {
        env.until_last("simple-job-a", "ADDED").await;
        dispatcher.kill().await;
    };
    let (answer, ()) = tokio::join!(call, kill);
    assert!(answer.is_err(), "{answer:?}");
    end(&env, "simple-job-a").await;
    dispatcher.restart().await;
    let answer = call_service(&env.client, "submit", &order, r#"{"foo":"a"}"#).await.unwrap();
    assert_eq!(answer["outcome"]["result"], "Complete");
}

/// Of two replicas one answers what the other one has published.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_the_callers_and_answer_what_another_has_done() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let one = env.dispatcher().templates(&templates).start().await;
    let two = env.dispatcher().templates(&templates).start().await;
    let call = async |n: usize| -> Result<Value, ServiceError> {
        let payload = json!({"foo": "x", "name": format!("job-{}", n % 40)}).to_string();
        call_service(&env.client, "submit", &[CREATED], &payload).await
    };
    let answers = join_all((0..80).map(call)).await;
    let (good, bad): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((good.len(), bad.len()), (40, 40), "each name is given once");
    assert!(bad.into_iter().all(|answer| code_and_error(answer) == (409, "NameTaken".to_owned())));
    let inbox = env.client.new_inbox();
    let counts = env.client.subscribe(inbox.clone()).await.unwrap();
    env.client.publish_with_reply("$SRV.STATS.dispatcher", inbox, "".into()).await.unwrap();
    let counts =
        tokio::time::timeout(TIMEOUT, counts.take(2).collect::<Vec<_>>()).await.expect("two answers");
    let served: Vec<u64> = counts.iter().map(|message| submitted(&message.payload)).collect();
    assert!(served.iter().all(|count| *count > 0), "both serve: {served:?}");
    for dispatcher in [one, two] {
        assert_eq!(dispatcher.terminate().await, Some(0), "{}", dispatcher.log());
    }
}

fn submitted(stats: &[u8]) -> u64 {
    let stats: Value = serde_json::from_slice(stats).unwrap();
    let endpoints = stats["endpoints"].as_array().unwrap().iter();
    endpoints.filter(|e| e["name"] == "submit-simple").filter_map(|e| e["num_requests"].as_u64()).sum()
}
