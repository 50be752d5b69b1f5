//! `/metrics`: each metric changes as documented.

use dispatcher_tests::job_controller::{finished_status, managed_template};
use dispatcher_tests::proxy::ApiProxy;
use dispatcher_tests::test_env::TestEnv;
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{Dispatcher, or_skip, until};
use local_cluster::faults::{Calls, Failure, WatchFault};
use serde_json::json;

/// The value of a series in the text format; `None` if the series is absent.
async fn value(dispatcher: &Dispatcher, series: &str) -> Result<Option<f64>, String> {
    let (status, text) = dispatcher.get("/metrics").await?;
    assert_eq!(status, 200);
    assert!(text.ends_with("# EOF\n"), "no end marker of OpenMetrics: {text}");
    let mut values =
        text.lines().filter_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
    Ok(values.next())
}

/// Waits until a series has an expected value, and returns the value.
async fn until_is(dispatcher: &Dispatcher, series: &str, is_expected: impl Fn(f64) -> bool) -> f64 {
    until(&format!("an expected value of {series}"), TIMEOUT, || async {
        match value(dispatcher, series).await? {
            Some(found) if is_expected(found) => Ok(found),
            found => Err(format!("{found:?}")),
        }
    })
    .await
}

async fn until_all(dispatcher: &Dispatcher, all: &[(&str, f64)]) {
    for (series, expected) in all {
        until_is(dispatcher, series, |found| found == *expected).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn request_is_counted_from_the_queue_to_the_outcome() {
    let env = or_skip!(TestEnv::start().await);
    env.create_streams_without_deduplication().await;
    let (_folder, templates) = managed_template();
    let dispatcher = env.dispatcher().templates(templates).start().await;
    until_all(
        &dispatcher,
        &[
            (r#"dispatcher_requests_total{template="simple",result="created"}"#, 0.0),
            (r#"dispatcher_active_jobs{template="simple"}"#, 0.0),
            ("dispatcher_leader", 1.0),
            ("dispatcher_synced", 1.0),
            (r#"dispatcher_nats_connects_total{connection="dispatcher"}"#, 1.0),
            (r#"dispatcher_nats_connects_total{connection="dispatcher intake simple"}"#, 1.0),
            (r#"dispatcher_nats_disconnects_total{connection="dispatcher"}"#, 0.0),
            (r#"dispatcher_consumer_up{template="simple"}"#, 1.0),
            (r#"dispatcher_component_ready{component="watch"}"#, 1.0),
            (r#"dispatcher_build_info{version="0.1.0"}"#, 1.0),
        ],
    )
    .await;
    // A request, and the same request after the deduplication window.
    let payload = r#"{"foo":"a"}"#;
    let first = env.request_with_id("one", payload).await;
    env.until_last("simple-job-a", "ADDED").await;
    until("the deduplication window to pass", TIMEOUT, || async {
        let sequence = env.request_with_id("one", payload).await;
        (sequence != first).then_some(())
    })
    .await;
    until_all(
        &dispatcher,
        &[
            (r#"dispatcher_requests_total{template="simple",result="created"}"#, 1.0),
            (r#"dispatcher_requests_total{template="simple",result="exists"}"#, 1.0),
            (r#"dispatcher_request_wait_seconds_count{template="simple"}"#, 1.0),
            (r#"dispatcher_job_create_duration_seconds_count{result="created"}"#, 1.0),
            (r#"dispatcher_active_jobs{template="simple"}"#, 1.0),
            (r#"dispatcher_events_total{template="simple",event="ADDED"}"#, 1.0),
        ],
    )
    .await;
    // The outcome.
    env.set_status("simple-job-a", finished_status("Complete", 0, "CompletionsReached", "done")).await;
    env.outcome("simple-job-a").await;
    until_all(
        &dispatcher,
        &[
            (r#"dispatcher_outcomes_total{template="simple",result="Complete"}"#, 1.0),
            (r#"dispatcher_events_total{template="simple",event="OUTCOME"}"#, 1.0),
            (r#"dispatcher_event_lag_seconds_count{template="simple",event="OUTCOME"}"#, 1.0),
            (r#"dispatcher_active_jobs{template="simple"}"#, 0.0),
        ],
    )
    .await;
    // The time of a deletion is unknown, so the outcome of a deleted Job has no lag.
    env.request(r#"{"foo":"b"}"#).await;
    env.until_last("simple-job-b", "ADDED").await;
    env.namespace.jobs.delete("simple-job-b", &kube::api::DeleteParams::background()).await.unwrap();
    until_all(
        &dispatcher,
        &[
            (r#"dispatcher_outcomes_total{template="simple",result="Deleted"}"#, 1.0),
            (r#"dispatcher_event_lag_seconds_count{template="simple",event="OUTCOME"}"#, 1.0),
        ],
    )
    .await;
    // Invalid requests.
    env.request(r#"{"foo":7}"#).await;
    env.request(r#"{"foo":"Upper"}"#).await;
    until_all(
        &dispatcher,
        &[
            (r#"dispatcher_requests_total{template="simple",result="rejected"}"#, 2.0),
            (r#"dispatcher_rejections_total{template="simple",reason="InvalidRequest"}"#, 1.0),
            (r#"dispatcher_rejections_total{template="simple",reason="InvalidName"}"#, 1.0),
        ],
    )
    .await;
    let stored = r#"dispatcher_event_publish_duration_seconds_count{result="stored"}"#;
    until_is(&dispatcher, stored, |count| count >= 5.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queued_requests_are_counted_with_their_age() {
    let env = or_skip!(TestEnv::start().await);
    let (folder, templates) = managed_template();
    let path = folder.path().join("simple.yaml");
    let simple = std::fs::read_to_string(&path).unwrap();
    let job = simple.find("\n  job:").expect("the template has no Job");
    let (before, after) = simple.split_at(job);
    std::fs::write(&path, format!("{before}\n  limits: {{maxActive: 1}}{after}")).unwrap();
    let dispatcher = env.dispatcher().templates(templates).start().await;
    for name in ["a", "b", "c"] {
        env.request(json!({"foo": name, "name": name}).to_string()).await;
    }
    until_all(
        &dispatcher,
        &[
            (r#"dispatcher_active_jobs{template="simple"}"#, 1.0),
            (r#"dispatcher_active_jobs_limit{template="simple"}"#, 1.0),
            (r#"dispatcher_queue_requests{template="simple",state="pending"}"#, 2.0),
            (r#"dispatcher_queue_requests{template="simple",state="ack_pending"}"#, 0.0),
            (r#"dispatcher_queue_redelivered_requests{template="simple"}"#, 0.0),
        ],
    )
    .await;
    until_is(&dispatcher, r#"dispatcher_queue_oldest_age_seconds{template="simple"}"#, |age| age > 1.0).await;
    for name in ["a", "b", "c"] {
        env.until_last(name, "ADDED").await;
        env.set_status(name, finished_status("Complete", 0, "CompletionsReached", "done")).await;
    }
    until_is(&dispatcher, r#"dispatcher_queue_oldest_age_seconds{template="simple"}"#, |age| age == 0.0)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn takeover_and_lost_nats_connection_are_counted() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let first = env.dispatcher().templates(&templates).start().await;
    until_is(&first, "dispatcher_synced", |found| found == 1.0).await;
    let second = env.dispatcher().templates(&templates).start().await;
    until_all(&second, &[("dispatcher_leader", 0.0), ("dispatcher_resyncs_total", 0.0)]).await;
    first.kill().await;
    until_all(&second, &[("dispatcher_leader", 1.0), ("dispatcher_synced", 1.0)]).await;
    until_is(&second, "dispatcher_resyncs_total", |found| found >= 1.0).await;
    let listed =
        until_is(&second, r#"dispatcher_watch_lists_total{resource="jobs"}"#, |found| found >= 2.0).await;
    env.nats.kill().await;
    let disconnects = r#"dispatcher_nats_disconnects_total{connection="dispatcher"}"#;
    until_is(&second, disconnects, |found| found >= 1.0).await;
    until_is(&second, r#"dispatcher_component_ready{component="nats"}"#, |found| found == 0.0).await;
    until_is(&second, r#"dispatcher_component_failures_total{component="nats"}"#, |found| found >= 1.0).await;
    until_is(&second, r#"dispatcher_consumer_up{template="simple"}"#, |found| found == 0.0).await;
    let age = value(&second, r#"dispatcher_queue_oldest_age_seconds{template="simple"}"#).await.unwrap();
    assert_eq!(age, None, "the age is unknown without NATS");
    env.nats.restart().await;
    let connects = r#"dispatcher_nats_connects_total{connection="dispatcher"}"#;
    until_is(&second, connects, |found| found >= 2.0).await;
    until_is(&second, r#"dispatcher_component_ready{component="nats"}"#, |found| found == 1.0).await;
    // A reconnect triggers a resync, as NATS may have lost messages.
    until_is(&second, r#"dispatcher_watch_lists_total{resource="jobs"}"#, |found| found > listed).await;
    until_is(&second, r#"dispatcher_consumer_up{template="simple"}"#, |found| found == 1.0).await;
}

/// After a purge the fence refuses the next event, and the dispatcher publishes the Job again.
#[tokio::test(flavor = "multi_thread")]
async fn fenced_and_failed_publishes_are_counted() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let dispatcher = env.dispatcher().templates(templates).start().await;
    env.request(r#"{"foo":"a"}"#).await;
    env.until_last("simple-job-a", "ADDED").await;
    let status = env.jetstream.get_stream("JOB_STATUS").await.unwrap();
    status.purge().filter("jobs.simple.status.simple-job-a").await.unwrap();
    env.set_status(
        "simple-job-a",
        json!({"active": 1, "startTime": dispatcher_tests::job_controller::START_TIME}),
    )
    .await;
    let fenced = r#"dispatcher_event_publish_duration_seconds_count{result="fenced"}"#;
    until_is(&dispatcher, fenced, |count| count >= 1.0).await;
    env.until_last("simple-job-a", "ADDED").await;

    let open = env.fill_status_stream().await;
    env.set_status("simple-job-a", finished_status("Complete", 0, "CompletionsReached", "done")).await;
    let failed = r#"dispatcher_event_publish_duration_seconds_count{result="failed"}"#;
    until_is(&dispatcher, failed, |count| count >= 2.0).await;
    until_is(&dispatcher, r#"dispatcher_component_failures_total{component="status publish"}"#, |count| {
        count >= 2.0
    })
    .await;
    until_is(&dispatcher, r#"dispatcher_component_ready{component="status publish"}"#, |found| found == 0.0)
        .await;
    env.jetstream.update_stream(open).await.unwrap();
    assert_eq!(env.outcome("simple-job-a").await["result"], "Complete");
    until_is(&dispatcher, r#"dispatcher_component_ready{component="status publish"}"#, |found| found == 1.0)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retried_creates_and_expired_watches_are_counted() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let proxy = ApiProxy::start(&env.namespace.dispatcher_kubeconfig).await;
    let kubeconfig = proxy.kubeconfig.display().to_string();
    let dispatcher = env.dispatcher().templates(templates).env("KUBECONFIG", &kubeconfig).start().await;
    proxy.faults.fail(Calls::of("create", "jobs"), 2, Failure::Code(429));
    env.request(r#"{"foo":"a"}"#).await;
    until_all(
        &dispatcher,
        &[
            (r#"dispatcher_requests_total{template="simple",result="created"}"#, 1.0),
            (r#"dispatcher_requests_total{template="simple",result="retrying"}"#, 2.0),
            (r#"dispatcher_job_create_duration_seconds_count{result="throttled"}"#, 2.0),
            (r#"dispatcher_job_create_duration_seconds_count{result="transient"}"#, 0.0),
        ],
    )
    .await;
    proxy.faults.fail(Calls::of("create", "jobs"), 1, Failure::Code(500));
    env.request(r#"{"foo":"b"}"#).await;
    let transient = r#"dispatcher_job_create_duration_seconds_count{result="transient"}"#;
    until_is(&dispatcher, transient, |found| found >= 1.0).await;
    env.until_last("simple-job-b", "ADDED").await;
    let lists = r#"dispatcher_watch_lists_total{resource="jobs"}"#;
    let listed = until_is(&dispatcher, lists, |found| found >= 1.0).await;
    proxy.faults.inject(Calls::of("watch", "jobs"), WatchFault::Error(410));
    let expired = r#"dispatcher_watch_errors_total{resource="jobs",reason="expired"}"#;
    until_is(&dispatcher, expired, |found| found >= 1.0).await;
    until_is(&dispatcher, lists, |found| found > listed).await;
}
