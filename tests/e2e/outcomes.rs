//! A request becomes a Job, each of its states is published, and the outcome follows from its
//! conditions.

use std::collections::BTreeSet;

use async_nats::jetstream::consumer::{DeliverPolicy, pull::OrderedConfig};
use dispatcher_tests::job_controller::{START_TIME, finished_status, managed_template};
use dispatcher_tests::test_env::{TestEnv, event, header, text};
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{or_skip, until};
use futures::{StreamExt, future::join_all};
use k8s_openapi::api::batch::v1::Job;
use kube::api::{ListParams, LogParams};
use serde_json::{Value, json};

/// Waits until a Job is retired: its outcome label has this result.
async fn until_retired(env: &TestEnv, name: &str, result: &str) -> Job {
    until(&format!("the outcome label {result} of {name}"), TIMEOUT, || async {
        let job = env.namespace.jobs.get(name).await.map_err(|error| error.to_string())?;
        match job.metadata.labels.as_ref().and_then(|labels| labels.get("natsjobs.dev/outcome")) {
            Some(label) if label == result => Ok(job),
            label => Err(format!("{label:?}")),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn successful_job_has_all_events_the_outcome_label_and_a_ttl() {
    let env = or_skip!(TestEnv::start().await);
    let _dispatcher = env.dispatcher().start().await;
    let sequence = env.request(r#"{"foo":"good"}"#).await;
    let outcome = env.outcome("simple-job-good").await;
    assert_eq!(outcome["result"], "Complete", "{outcome}");
    assert_eq!((outcome["succeeded"].clone(), outcome["failed"].clone()), (json!(1), json!(0)));

    // All events in order, with the fields and headers of the protocol.
    let history = env.history("simple-job-good").await;
    let events: Vec<Value> = history.iter().map(event).collect();
    let types: Vec<_> = events.iter().map(|e| text(&e["type"])).collect();
    assert_eq!(types.first().unwrap(), "ADDED");
    assert_eq!(types.last().unwrap(), "OUTCOME");
    assert!(
        types.len() > 2 && types[1..types.len() - 1].iter().all(|t| t == "MODIFIED" || t == "ATTEMPT"),
        "{types:?}"
    );
    let job = env.job("simple-job-good").await;
    for (message, event) in history.iter().zip(&events) {
        assert_eq!(event["template"], "simple");
        assert_eq!(event["name"], "simple-job-good");
        assert_eq!(event["namespace"], env.namespace.name.as_str());
        assert_eq!(event["uid"].as_str(), job.metadata.uid.as_deref());
        assert_eq!(event["requestSeq"], sequence);
        assert_eq!(header(message, "Job-Event"), text(&event["type"]));
        assert_eq!(header(message, "Job-Uid"), text(&event["uid"]));
        assert_eq!(header(message, "Job-Request-Id"), text(&event["requestId"]));
        assert_eq!(header(message, "Job-Resource-Version"), text(&event["resourceVersion"]));
    }
    let versions: Vec<u64> = events.iter().map(|e| text(&e["resourceVersion"]).parse().unwrap()).collect();
    assert!(versions.windows(2).all(|w| w[0] <= w[1]), "{versions:?}");
    let before = events.iter().rfind(|event| event["type"] == "MODIFIED").unwrap();
    let conditions = before["status"]["conditions"].as_array().unwrap();
    assert!(
        conditions.iter().any(|c| c["type"] == "Complete"),
        "the last MODIFIED has no final condition: {before}"
    );

    // The pod has the parameter. The Job has its labels, and a TTL after the outcome is stored.
    let pods = env.namespace.pods.list(&ListParams::default()).await.unwrap();
    let log =
        env.namespace.pods.logs(pods.items[0].metadata.name.as_ref().unwrap(), &LogParams::default()).await;
    assert_eq!(log.unwrap(), "Simple Job with foo=\"good\" is done.\n");
    assert_eq!(pods.items[0].metadata.labels.as_ref().unwrap()["natsjobs.dev/template"], "simple");
    let job = until_retired(&env, "simple-job-good", "Complete").await;
    assert_eq!(job.spec.unwrap().ttl_seconds_after_finished, Some(600));
    assert_eq!(job.metadata.annotations.unwrap()["natsjobs.dev/request-seq"], sequence.to_string());
    env.until_queue_is_empty().await;
}

/// With `backoffLimit: 3` Kubernetes waits 10, 20 and 40 s between the attempts, so this test takes
/// at least 75 s on a real cluster.
#[tokio::test(flavor = "multi_thread")]
async fn outcome_of_a_failed_job_has_reason_and_message_of_its_condition() {
    let env = or_skip!(TestEnv::start().await);
    let _dispatcher = env.dispatcher().sleep_seconds("0.1").start().await;
    env.request(r#"{"foo":"bad","fail":"yes"}"#).await;
    until("the Job to have failed", TIMEOUT * 2, || async {
        let status = env.namespace.jobs.get("simple-job-bad").await.ok()?.status?;
        status.conditions?.iter().any(|c| c.type_ == "Failed" && c.status == "True").then_some(())
    })
    .await;
    let outcome = env.outcome("simple-job-bad").await;
    assert_eq!(outcome["result"], "Failed", "{outcome}");
    assert_eq!(outcome["reason"], "BackoffLimitExceeded");
    assert_eq!(outcome["message"], "Job has reached the specified backoff limit");
    assert!(outcome["failed"].as_u64().unwrap() >= 3, "{outcome}");
}

#[tokio::test(flavor = "multi_thread")]
async fn outcome_follows_from_conditions_and_not_from_pod_counts() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    for failed in [3, 4] {
        let name = format!("simple-job-{failed}");
        env.request(json!({"foo": failed.to_string()}).to_string()).await;
        env.job(&name).await;
        // All pods have failed, but without a condition there is no outcome.
        let status = json!({"startTime": START_TIME, "failed": failed, "ready": 0, "terminating": 0});
        env.set_status(&name, status).await;
        until("the failed pods in the last event", TIMEOUT, || async {
            let last = env.last_event(&name).await;
            last.as_ref().is_some_and(|l| l["status"]["failed"] == failed).then_some(()).ok_or(last)
        })
        .await;
        assert_eq!(env.last_event(&name).await.unwrap()["type"], "MODIFIED");
        let message = "Job has reached the specified backoff limit";
        env.set_status(&name, finished_status("Failed", failed, "BackoffLimitExceeded", message)).await;
        let outcome = env.outcome(&name).await;
        assert_eq!((&outcome["result"], &outcome["failed"]), (&json!("Failed"), &json!(failed)));
        assert_eq!(
            (&outcome["reason"], &outcome["message"]),
            (&json!("BackoffLimitExceeded"), &json!(message))
        );
        until_retired(&env, &name, "Failed").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn late_consumer_replays_the_whole_history() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    let mut live = env.client.subscribe("jobs.simple.status.*").await.unwrap();
    env.client.flush().await.unwrap();
    env.request(r#"{"foo":"late"}"#).await;
    env.job("simple-job-late").await;
    env.set_status("simple-job-late", json!({"startTime": START_TIME, "active": 1, "ready": 0})).await;
    env.set_status("simple-job-late", finished_status("Complete", 0, "CompletionsReached", "done")).await;
    env.outcome("simple-job-late").await;

    // A consumer created after the outcome gets the same messages as the live subscriber.
    let config = OrderedConfig {
        deliver_policy: DeliverPolicy::All,
        filter_subject: "jobs.simple.status.simple-job-late".to_owned(),
        ..OrderedConfig::default()
    };
    let stream = env.jetstream.get_stream("JOB_STATUS").await.unwrap();
    let mut replay = stream.create_consumer(config).await.unwrap().messages().await.unwrap();
    loop {
        let replayed = tokio::time::timeout(TIMEOUT, replay.next()).await.unwrap().unwrap().unwrap();
        let received = tokio::time::timeout(TIMEOUT, live.next()).await.unwrap().unwrap();
        assert_eq!(replayed.payload, received.payload);
        assert_eq!(replayed.subject, received.subject);
        if serde_json::from_slice::<Value>(&replayed.payload).unwrap()["type"] == "OUTCOME" {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_concurrent_jobs_each_get_one_outcome_despite_a_rejected_request() {
    const JOBS: usize = 200;
    let env = or_skip!(TestEnv::start().await);
    let _dispatcher = env.dispatcher().sleep_seconds("0").start().await;
    let requests = (0..=JOBS).map(|n| {
        let payload =
            if n == JOBS / 2 { r#"{"foo":7}"#.to_owned() } else { json!({"foo": n.to_string()}).to_string() };
        env.request(payload)
    });
    let sequences: BTreeSet<u64> = join_all(requests).await.into_iter().collect();
    assert_eq!(sequences.len(), JOBS + 1);
    env.until_queue_is_empty().await;
    assert_eq!(env.dead_letters().await.len(), 1);
    let names: Vec<_> = (0..=JOBS).filter(|n| *n != JOBS / 2).map(|n| format!("simple-job-{n}")).collect();
    until("all outcomes", TIMEOUT * 3, || async {
        let open =
            join_all(names.iter().map(|name| async {
                env.last_event(name).await.is_none_or(|last| last["type"] != "OUTCOME")
            }));
        match open.await.into_iter().filter(|open| *open).count() {
            0 => Ok(()),
            open => Err(format!("{open} Jobs without outcome")),
        }
    })
    .await;
    for name in &names {
        let events: Vec<Value> = env.history(name).await.iter().map(event).collect();
        let types: Vec<_> = events.iter().map(|e| text(&e["type"])).collect();
        assert_eq!(types.iter().filter(|t| *t == "OUTCOME").count(), 1, "{name}: {types:?}");
        assert_eq!((types[0].as_str(), types[types.len() - 1].as_str()), ("ADDED", "OUTCOME"), "{name}");
        let states = events.iter().filter(|event| event["type"] != "ATTEMPT" && event["type"] != "STALLED");
        let versions: Vec<u64> = states.map(|e| text(&e["resourceVersion"]).parse().unwrap()).collect();
        let (published, outcome) = versions.split_at(versions.len() - 1);
        assert!(
            published.windows(2).all(|w| w[0] < w[1]) && published.last() <= outcome.first(),
            "{name}: {versions:?}"
        );
        assert_eq!(events.last().unwrap()["outcome"]["result"], "Complete", "{name}");
    }
    assert_eq!(env.namespace.jobs.list(&ListParams::default()).await.unwrap().items.len(), JOBS);
}
