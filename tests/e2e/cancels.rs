//! `cancel`: of a running Job, a queued request, a finished Job and an unknown one; over crashes too.

use dispatcher_tests::{or_skip, until};
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::asking::{Refused, ask, refused};
use dispatcher_tests::load_test::LoadTest as Run;
use dispatcher_tests::test_env::{TestEnv as World, header};
use dispatcher_tests::wait::TIMEOUT as PATIENCE;

async fn cancel(world: &World, query: Value) -> Result<Value, Refused> {
    ask(&world.client, "cancel", &[], &query.to_string()).await
}

async fn result(world: &World, query: Value) -> String {
    cancel(world, query).await.unwrap()["result"].as_str().unwrap().to_owned()
}

async fn until_nothing_is_written_down(world: &World) {
    until("an empty bucket", PATIENCE, || async {
        let stream = world.jetstream.get_stream("KV_JOB_CANCELS").await.map_err(|e| e.to_string())?;
        match stream.cached_info().state.messages {
            0 => Ok(()),
            left => Err(format!("{left} entries are left")),
        }
    })
    .await;
}

/// Requests stay in the queue. (Taken away, the consumer would be made again.)
async fn hold_the_queue(world: &World) {
    let until = json!({"pause_until": "2100-01-01T00:00:00Z"});
    let paused: Value =
        world.jetstream.request("CONSUMER.PAUSE.JOBS.dispatcher-simple", &until).await.unwrap();
    assert_eq!(paused["paused"], true, "{paused}");
}

/// The next start makes another one.
async fn let_the_queue_go(world: &World) {
    let queue = world.jetstream.get_stream("JOBS").await.unwrap();
    queue.delete_consumer("dispatcher-simple").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_job_is_deleted_and_its_outcome_is_cancelled() {
    let run = or_skip!(Run::start().await);
    for (name, query) in
        [("wait-a", json!({"name": "wait-a"})), ("wait-b", json!({"requestId": "of-wait-b"}))]
    {
        run.request(name, "ADDED").await;
        assert_eq!(result(&run.env, query).await, "deleted");
        assert_eq!(run.env.outcome(name).await["result"], "Cancelled");
        let again = result(&run.env, json!({ "name": name })).await;
        assert_eq!(again, "finished", "its outcome is told");
    }
    until_nothing_is_written_down(&run.env).await;
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_job_keeps_its_outcome_and_an_unknown_one_is_told() {
    let run = or_skip!(Run::start().await);
    run.request("done", "OUTCOME").await;
    assert_eq!(result(&run.env, json!({"name": "done"})).await, "finished");
    assert_eq!(run.env.outcome("done").await["result"], "Complete");
    let unknown = cancel(&run.env, json!({"name": "nobody"})).await;
    assert_eq!(refused(unknown), (404, "NotFound".to_owned()));
    let unknown = cancel(&run.env, json!({"requestId": "nobody"})).await;
    assert_eq!(refused(unknown), (404, "NotFound".to_owned()));
    for bad in [json!({}), json!({"name": "a", "requestId": "b"}), json!({"name": "a.b"})] {
        assert_eq!(refused(cancel(&run.env, bad).await), (400, "BadRequest".to_owned()));
    }
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queued_request_is_rejected_and_tomorrows_of_that_name_is_not() {
    let run = or_skip!(Run::start().await);
    hold_the_queue(&run.env).await;
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
    // A crash between: it is written down.
    run.dispatcher.kill().await;
    let_the_queue_go(&run.env).await;
    run.dispatcher.restart().await;
    for sequence in [by_name, by_id] {
        assert_eq!(header(&run.env.dead_letter(sequence).await, "Job-Error"), "Cancelled");
    }
    for (name, id) in [("wait-a", "three"), ("wait-b", "four")] {
        assert_eq!(run.env.until_last(name, "ADDED").await["requestId"], id);
    }
    until_nothing_is_written_down(&run.env).await;
    // The entries are gone: nothing is left that could concern a later one.
    publish("five", r#"{"foo":"x","name":"wait-c"}"#).await;
    run.env.until_last("wait-c", "ADDED").await;
    run.complete(&["wait-a", "wait-b", "wait-c"]).await;
    run.finish().await;
}

/// One who waits for a request that is cancelled is told so.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_waits_hears_that_its_request_is_cancelled() {
    let run = or_skip!(Run::start().await);
    let wait = [("Job-Wait", "outcome"), ("Nats-Msg-Id", "one")];
    let payload = r#"{"foo":"x","name":"wait-a"}"#;
    let call = ask(&run.env.client, "submit", &wait, payload);
    let stop = async {
        run.env.until_last("wait-a", "ADDED").await;
        assert_eq!(result(&run.env, json!({"name": "wait-a"})).await, "deleted");
    };
    let (answer, ()) = tokio::join!(call, stop);
    assert_eq!(answer.unwrap()["outcome"]["result"], "Cancelled", "a running one has an outcome");
}

/// The dispatcher dies between what is written down and the deletion: the next one finishes it. The entry is put there by
/// hand, as the crash would leave it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_down_is_done_by_whoever_comes_next() {
    let run = or_skip!(Run::start().await);
    for name in ["wait-there", "wait-gone", "wait-slipped"] {
        run.request(name, "ADDED").await;
    }
    run.env.until_queue_is_empty().await;
    run.dispatcher.kill().await;
    for name in ["wait-there", "wait-gone"] {
        let uid = run.env.job(name).await.metadata.uid.unwrap();
        let entry = json!({"cancel": "job", "template": "simple", "name": name, "uid": uid});
        put(&run.env, &format!("job.{uid}"), &entry).await;
    }
    // Cancelled while it was created: the Job slipped through.
    let entry = json!({"cancel": "name", "template": "simple", "name": "wait-slipped", "upTo": 1000});
    put(&run.env, "name.simple.wait-slipped", &entry).await;
    let delete = kube::api::DeleteParams::background();
    run.env.namespace.jobs.delete("wait-gone", &delete).await.unwrap();
    run.dispatcher.restart().await;
    for name in ["wait-there", "wait-gone", "wait-slipped"] {
        assert_eq!(run.env.outcome(name).await["result"], "Cancelled", "{name}");
    }
    until_nothing_is_written_down(&run.env).await;
    assert!(run.env.namespace.jobs.list(&ListParams::default()).await.unwrap().items.is_empty());
    run.finish().await;
}

async fn put(world: &World, key: &str, entry: &Value) {
    let subject = format!("$KV.JOB_CANCELS.{key}");
    world.jetstream.publish(subject, entry.to_string().into()).await.unwrap().await.unwrap();
}

/// Cancellations at any moment of a request's life, among others that go on: each request ends once.
#[tokio::test(flavor = "multi_thread")]
async fn cancelled_at_any_moment_each_request_still_ends_once() {
    let run = or_skip!(Run::start().await);
    let cancels = async {
        for n in 0..60 {
            let query = if n % 2 == 0 {
                json!({"name": format!("simple-job-{n}")})
            } else {
                json!({"requestId": format!("request-{n}")})
            };
            // Whatever it answers: it may not be published yet, or be over.
            let _ = cancel(&run.env, query).await;
        }
    };
    tokio::join!(run.load(0, 100), cancels);
    run.env.until_queue_is_empty().await;
    until_nothing_is_written_down(&run.env).await;
    run.finish().await;
}
