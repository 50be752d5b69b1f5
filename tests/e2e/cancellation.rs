//! `cancel` of a running Job, a queued request, a finished Job and an unknown Job, also after
//! crashes.

use dispatcher_tests::load_test::LoadTest;
use dispatcher_tests::test_env::{TestEnv, header};
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{or_skip, until};
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::service_client::{ServiceError, call_service, code_and_error};

async fn cancel(env: &TestEnv, query: Value) -> Result<Value, ServiceError> {
    call_service(&env.client, "cancel", &[], &query.to_string()).await
}

async fn result(env: &TestEnv, query: Value) -> String {
    cancel(env, query).await.unwrap()["result"].as_str().unwrap().to_owned()
}

async fn until_no_cancellation_is_stored(env: &TestEnv) {
    until("JOB_CANCELS to be empty", TIMEOUT, || async {
        let stream = env.jetstream.get_stream("KV_JOB_CANCELS").await.map_err(|e| e.to_string())?;
        match stream.cached_info().state.messages {
            0 => Ok(()),
            left => Err(format!("{left} entries left")),
        }
    })
    .await;
}

/// Pauses the consumer. A deleted consumer would be recreated.
pub(crate) async fn pause_queue(env: &TestEnv) {
    let until = json!({"pause_until": "2100-01-01T00:00:00Z"});
    let paused: Value = env.jetstream.request("CONSUMER.PAUSE.JOBS.dispatcher-simple", &until).await.unwrap();
    assert_eq!(paused["paused"], true, "{paused}");
}

/// Deletes the paused consumer; the next start of the dispatcher creates a new one.
async fn resume_queue(env: &TestEnv) {
    let queue = env.jetstream.get_stream("JOBS").await.unwrap();
    queue.delete_consumer("dispatcher-simple").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_running_job_is_deleted_and_its_outcome_is_cancelled() {
    let run = or_skip!(LoadTest::start().await);
    for (name, query) in
        [("wait-a", json!({"name": "wait-a"})), ("wait-b", json!({"requestId": "of-wait-b"}))]
    {
        run.request(name, "ADDED").await;
        assert_eq!(result(&run.env, query).await, "deleted");
        assert_eq!(run.env.outcome(name).await["result"], "Cancelled");
        let repeated = result(&run.env, json!({ "name": name })).await;
        assert_eq!(repeated, "finished", "the outcome is published");
    }
    until_no_cancellation_is_stored(&run.env).await;
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_reports_a_finished_job_and_refuses_an_unknown_one() {
    let run = or_skip!(LoadTest::start().await);
    run.request("done", "OUTCOME").await;
    assert_eq!(result(&run.env, json!({"name": "done"})).await, "finished");
    assert_eq!(run.env.outcome("done").await["result"], "Complete");
    let unknown = cancel(&run.env, json!({"name": "unknown"})).await;
    assert_eq!(code_and_error(unknown), (404, "NotFound".to_owned()));
    let unknown = cancel(&run.env, json!({"requestId": "unknown"})).await;
    assert_eq!(code_and_error(unknown), (404, "NotFound".to_owned()));
    for bad in [json!({}), json!({"name": "a", "requestId": "b"}), json!({"name": "a.b"})] {
        assert_eq!(code_and_error(cancel(&run.env, bad).await), (400, "BadRequest".to_owned()));
    }
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_queued_request_is_rejected_and_a_later_one_of_the_same_name_is_not() {
    let run = or_skip!(LoadTest::start().await);
    pause_queue(&run.env).await;
    let publish =
        async |id: &str, payload: &str| run.recorder.publish("simple", payload, Some(id)).await.unwrap();
    let by_name = publish("one", r#"{"foo":"x","name":"wait-a"}"#).await;
    let by_id = publish("two", r#"{"foo":"x","name":"wait-b"}"#).await;
    for _ in 0..2 {
        assert_eq!(result(&run.env, json!({"name": "wait-a"})).await, "pending");
    }
    assert_eq!(result(&run.env, json!({"requestId": "two"})).await, "pending");
    publish("three", r#"{"foo":"x","name":"wait-a"}"#).await;
    publish("four", r#"{"foo":"x","name":"wait-b"}"#).await;
    // The cancellations survive a crash.
    run.dispatcher.kill().await;
    resume_queue(&run.env).await;
    run.dispatcher.restart().await;
    for sequence in [by_name, by_id] {
        assert_eq!(header(&run.env.dead_letter(sequence).await, "Job-Error"), "Cancelled");
    }
    for (name, id) in [("wait-a", "three"), ("wait-b", "four")] {
        assert_eq!(run.env.until_last(name, "ADDED").await["requestId"], id);
    }
    until_no_cancellation_is_stored(&run.env).await;
    // No stored cancellation affects a later request.
    publish("five", r#"{"foo":"x","name":"wait-c"}"#).await;
    run.env.until_last("wait-c", "ADDED").await;
    run.complete(&["wait-a", "wait-b", "wait-c"]).await;
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn caller_that_waits_for_the_outcome_gets_the_cancellation() {
    let run = or_skip!(LoadTest::start().await);
    let wait = [("Job-Wait", "outcome"), ("Nats-Msg-Id", "one")];
    let payload = r#"{"foo":"x","name":"wait-a"}"#;
    let call = call_service(&run.env.client, "submit", &wait, payload);
    let cancel = async {
        run.env.until_last("wait-a", "ADDED").await;
        assert_eq!(result(&run.env, json!({"name": "wait-a"})).await, "deleted");
    };
    let (answer, ()) = tokio::join!(call, cancel);
    assert_eq!(answer.unwrap()["outcome"]["result"], "Cancelled");
}

/// The test stores the entries itself, as a dispatcher leaves them that crashes before the
/// deletion.
#[tokio::test(flavor = "multi_thread")]
async fn stored_cancellation_is_completed_after_a_restart() {
    let run = or_skip!(LoadTest::start().await);
    for name in ["wait-present", "wait-deleted", "wait-raced"] {
        run.request(name, "ADDED").await;
    }
    run.env.until_queue_is_empty().await;
    run.dispatcher.kill().await;
    for name in ["wait-present", "wait-deleted"] {
        let uid = run.env.job(name).await.metadata.uid.unwrap();
        let entry = json!({"cancel": "job", "template": "simple", "name": name, "uid": uid});
        put(&run.env, &format!("job.{uid}"), &entry).await;
    }
    // A cancellation of a queued request whose Job was created at the same moment.
    let entry = json!({"cancel": "name", "template": "simple", "name": "wait-raced", "upTo": 1000});
    put(&run.env, "name.simple.wait-raced", &entry).await;
    let delete = kube::api::DeleteParams::background();
    run.env.namespace.jobs.delete("wait-deleted", &delete).await.unwrap();
    run.dispatcher.restart().await;
    for name in ["wait-present", "wait-deleted", "wait-raced"] {
        assert_eq!(run.env.outcome(name).await["result"], "Cancelled", "{name}");
    }
    until_no_cancellation_is_stored(&run.env).await;
    assert!(run.env.namespace.jobs.list(&ListParams::default()).await.unwrap().items.is_empty());
    run.finish().await;
}

async fn put(env: &TestEnv, key: &str, entry: &Value) {
    let subject = format!("$KV.JOB_CANCELS.{key}");
    env.jetstream.publish(subject, entry.to_string().into()).await.unwrap().await.unwrap();
}

/// Cancels requests in every state, while other requests continue.
#[tokio::test(flavor = "multi_thread")]
async fn requests_cancelled_at_any_moment_end_exactly_once() {
    let run = or_skip!(LoadTest::start().await);
    let cancellations = async {
        for n in 0..60 {
            let query = if n % 2 == 0 {
                json!({"name": format!("simple-job-{n}")})
            } else {
                json!({"requestId": format!("request-{n}")})
            };
            // The answer varies: the request may not be published yet, or the Job may have
            // finished.
            let _ = cancel(&run.env, query).await;
        }
    };
    tokio::join!(run.load(0, 100), cancellations);
    run.env.until_queue_is_empty().await;
    until_no_cancellation_is_stored(&run.env).await;
    run.finish().await;
}
