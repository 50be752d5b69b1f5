//! `submit` with `Job-Wait`: a Job as a remote call, over outages too.

use std::{pin::pin, time::Duration};

use dispatcher_tests::or_skip;
use futures::{StreamExt, future::join_all};
use serde_json::{Value, json};

use crate::asking::{Refused, ask, refused, try_ask};
use dispatcher_tests::job_controller::{finished_status as finished, managed_template};
use dispatcher_tests::test_env::TestEnv as World;
use dispatcher_tests::wait::TIMEOUT as PATIENCE;

const CREATED: (&str, &str) = ("Job-Wait", "created");
const OUTCOME: (&str, &str) = ("Job-Wait", "outcome");
const BRIEFLY: (&str, &str) = ("Job-Wait-Timeout", "1");

/// Says that the Job is over.
async fn end(world: &World, name: &str) {
    world.set_status(name, finished("Complete", 0, "CompletionsReached", "done")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_a_remote_call() {
    let world = or_skip!(World::start().await);
    let _dispatcher = world.dispatcher().start().await;
    let answer = ask(&world.client, "submit", &[OUTCOME], r#"{"foo":"a"}"#).await.unwrap();
    assert_eq!((&answer["type"], &answer["name"]), (&json!("OUTCOME"), &json!("simple-job-a")));
    assert_eq!(answer["outcome"]["result"], "Complete");
    assert_eq!(world.last_event("simple-job-a").await.unwrap(), answer, "as it is stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_job_is_a_normal_answer() {
    let world = or_skip!(World::start().await);
    let (_folder, templates) = managed_template();
    let _dispatcher = world.dispatcher().templates(templates).start().await;
    let call = ask(&world.client, "submit", &[OUTCOME], r#"{"foo":"a"}"#);
    let fail = async {
        world.until_last("simple-job-a", "ADDED").await;
        world.set_status("simple-job-a", finished("Failed", 4, "BackoffLimitExceeded", "words")).await;
    };
    let (answer, ()) = tokio::join!(call, fail);
    let answer = answer.unwrap();
    assert_eq!(answer["outcome"]["result"], "Failed");
    assert_eq!(answer["outcome"]["reason"], "BackoffLimitExceeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_may_wait_until_the_job_is_there() {
    let world = or_skip!(World::start().await);
    let (_folder, templates) = managed_template();
    let _dispatcher = world.dispatcher().templates(templates).start().await;
    let answer = ask(&world.client, "submit", &[CREATED], r#"{"foo":"a"}"#).await.unwrap();
    assert_eq!((&answer["type"], &answer["name"]), (&json!("ADDED"), &json!("simple-job-a")));
    let taken = ask(&world.client, "submit", &[CREATED], r#"{"foo":"a"}"#).await.unwrap_err();
    assert_eq!((taken.code, taken.word.as_str()), (409, "NameTaken"));
    assert!(taken.message.contains("generateName"), "{}", taken.message);
    assert_eq!(taken.headers.get("Job-Name").unwrap().as_str(), "simple-job-a");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_outlives_its_callers_patience_and_the_same_id_gets_the_stored_outcome() {
    let world = or_skip!(World::start().await);
    let (_folder, templates) = managed_template();
    let _dispatcher = world.dispatcher().templates(templates).start().await;
    let order = ("Nats-Msg-Id", "order-1");
    let late = ask(&world.client, "submit", &[OUTCOME, BRIEFLY, order], r#"{"foo":"a"}"#).await;
    let late = late.unwrap_err();
    assert_eq!((late.code, late.word.as_str()), (504, "TimedOut"));
    assert!(late.message.contains("jobs.simple.status.simple-job-a"), "{}", late.message);
    assert_eq!(late.headers.get("Job-Request-Id").unwrap().as_str(), "order-1");
    end(&world, "simple-job-a").await;
    let outcome = world.until_last("simple-job-a", "OUTCOME").await;
    for wait in [OUTCOME, CREATED] {
        let again = ask(&world.client, "submit", &[wait, order], r#"{"foo":"a"}"#).await.unwrap();
        assert_eq!(again, outcome);
    }
}

/// Past JetStream's deduplication the request is stored anew; the outcome is that of its Job, also where the name has been
/// used since.
#[tokio::test(flavor = "multi_thread")]
async fn the_stored_outcome_is_found_when_the_name_was_used_again() {
    let world = or_skip!(World::start().await);
    world.create_streams_without_deduplication().await;
    let (_folder, templates) = managed_template();
    let _dispatcher = world.dispatcher().templates(templates).start().await;
    for id in ["order-1", "order-2"] {
        world.request_with_id(id, r#"{"foo":"a"}"#).await;
        world.until_last("simple-job-a", "ADDED").await;
        let delete = kube::api::DeleteParams::background();
        world.namespace.jobs.delete("simple-job-a", &delete).await.unwrap();
        world.outcome("simple-job-a").await;
    }
    let first = [OUTCOME, ("Nats-Msg-Id", "order-1")];
    let answer = ask(&world.client, "submit", &first, r#"{"foo":"a"}"#).await.unwrap();
    assert_eq!((&answer["type"], &answer["requestId"]), (&json!("OUTCOME"), &json!("order-1")));
    let answer = ask(&world.client, "submit", &first, r#"{"foo":"a","fail":true}"#).await;
    assert_eq!(refused(answer), (409, "RequestIdReused".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_wait_are_bounded() {
    let world = or_skip!(World::start().await);
    let (_folder, templates) = managed_template();
    let dispatcher = world.dispatcher().templates(templates).env("DISPATCHER_MAX_WAITERS", "1");
    let _dispatcher = dispatcher.start().await;
    let mut waits = pin!(ask(&world.client, "submit", &[OUTCOME], r#"{"foo":"a"}"#));
    tokio::select! {
        answer = &mut waits => panic!("{answer:?}"),
        _ = world.until_last("simple-job-a", "ADDED") => {}
    }
    let second = async {
        let busy = ask(&world.client, "submit", &[OUTCOME], r#"{"foo":"b"}"#).await;
        assert_eq!(refused(busy), (503, "Overloaded".to_owned()));
        ask(&world.client, "submit", &[], r#"{"foo":"b"}"#).await.expect("others are served");
        world.until_last("simple-job-b", "ADDED").await;
        end(&world, "simple-job-a").await;
    };
    let (answer, ()) = tokio::join!(waits, second);
    assert_eq!(answer.unwrap()["type"], "OUTCOME");
    ask(&world.client, "submit", &[CREATED], r#"{"foo":"c"}"#).await.expect("the place is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_comes_while_nats_is_away_is_answered() {
    let world = or_skip!(World::start().await);
    let (_folder, templates) = managed_template();
    let _dispatcher = world.dispatcher().templates(templates).start().await;
    let call = ask(&world.client, "submit", &[OUTCOME], r#"{"foo":"a"}"#);
    let outage = async {
        world.until_last("simple-job-a", "ADDED").await;
        world.nats.kill().await;
        end(&world, "simple-job-a").await;
        world.nats.restart().await;
    };
    let (answer, ()) = tokio::join!(call, outage);
    assert_eq!(answer.unwrap()["outcome"]["result"], "Complete");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_that_stops_tells_its_callers_and_the_next_one_goes_on() {
    let world = or_skip!(World::start().await);
    let (_folder, templates) = managed_template();
    let dispatcher = world.dispatcher().templates(templates).start().await;
    let order = [OUTCOME, ("Nats-Msg-Id", "order-1")];
    let call = ask(&world.client, "submit", &order, r#"{"foo":"a"}"#);
    let stop = async {
        world.until_last("simple-job-a", "ADDED").await;
        assert_eq!(dispatcher.terminate().await, Some(0), "{}", dispatcher.log());
    };
    let (answer, ()) = tokio::join!(call, stop);
    assert_eq!(refused(answer), (503, "NotReady".to_owned()));
    dispatcher.restart().await;
    end(&world, "simple-job-a").await;
    let answer = ask(&world.client, "submit", &order, r#"{"foo":"a"}"#).await.unwrap();
    assert_eq!(answer["type"], "OUTCOME");
}

/// A killed one tells nobody: the caller's own patience ends, and the same id gets the answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_dispatcher_loses_no_request_of_a_caller() {
    let world = or_skip!(World::start().await);
    let (_folder, templates) = managed_template();
    let dispatcher = world.dispatcher().templates(templates).start().await;
    let order = [OUTCOME, ("Nats-Msg-Id", "order-1")];
    let brief = Duration::from_secs(2);
    let call = try_ask(&world.client, "jobs.simple.submit", &order, r#"{"foo":"a"}"#, brief);
    let kill = async {
        world.until_last("simple-job-a", "ADDED").await;
        dispatcher.kill().await;
    };
    let (answer, ()) = tokio::join!(call, kill);
    assert!(answer.is_err(), "{answer:?}");
    end(&world, "simple-job-a").await;
    dispatcher.restart().await;
    let answer = ask(&world.client, "submit", &order, r#"{"foo":"a"}"#).await.unwrap();
    assert_eq!(answer["outcome"]["result"], "Complete");
}

/// Of two replicas one answers what the other one has published.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_the_callers_and_answer_what_another_has_done() {
    let world = or_skip!(World::start().await);
    let (_folder, templates) = managed_template();
    let one = world.dispatcher().templates(&templates).start().await;
    let two = world.dispatcher().templates(&templates).start().await;
    let call = async |n: usize| -> Result<Value, Refused> {
        let payload = json!({"foo": "x", "name": format!("job-{}", n % 40)}).to_string();
        ask(&world.client, "submit", &[CREATED], &payload).await
    };
    let answers = join_all((0..80).map(call)).await;
    let (good, bad): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((good.len(), bad.len()), (40, 40), "each name is given once");
    assert!(bad.into_iter().all(|answer| refused(answer) == (409, "NameTaken".to_owned())));
    let inbox = world.client.new_inbox();
    let counts = world.client.subscribe(inbox.clone()).await.unwrap();
    world.client.publish_with_reply("$SRV.STATS.dispatcher", inbox, "".into()).await.unwrap();
    let counts =
        tokio::time::timeout(PATIENCE, counts.take(2).collect::<Vec<_>>()).await.expect("two answers");
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
