//! Quotas, missing permissions and a full stream. After each fault the history checker verifies the
//! guarantees over all streams and the cluster. The deduplication window is at its minimum.

use dispatcher_tests::load_test::LoadTest;
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{only_on_kubernetes, or_skip, until};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn requests_above_a_quota_wait_until_it_is_raised() {
    only_on_kubernetes!("the local cluster has no quotas");
    let run = or_skip!(LoadTest::start().await);
    let quotas: kube::Api<k8s_openapi::api::core::v1::ResourceQuota> =
        kube::Api::namespaced(run.env.namespace.client.clone(), &run.env.namespace.name);
    let quota = |jobs: u32| {
        json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"},
               "spec": {"hard": {"count/jobs.batch": jobs.to_string()}}})
    };
    quotas
        .create(&kube::api::PostParams::default(), &serde_json::from_value(quota(5)).unwrap())
        .await
        .unwrap();
    until("the quota to be in force", TIMEOUT, || async {
        quotas.get("q").await.ok()?.status?.used.map(drop)
    })
    .await;
    run.load(0, 20).await;
    run.until_jobs(5).await;
    until("the refusal in the log", TIMEOUT, || async {
        run.dispatcher.log().contains("exceeded quota").then_some(())
    })
    .await;
    assert_eq!(run.job_count().await, 5);
    let dead_letters = run.env.dead_letters().await;
    assert!(
        dead_letters.iter().all(|l| dispatcher_tests::test_env::header(l, "Job-Error") != "Refused"),
        "an exceeded quota rejected a request"
    );
    quotas.patch("q", &PatchParams::default(), &Patch::Merge(quota(1000))).await.unwrap();
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_create_permission_makes_the_dispatcher_unready_until_restored() {
    let run = or_skip!(LoadTest::start().await);
    run.env.namespace.revoke("create").await;
    run.load(0, 20).await;
    run.until_not_ready("cannot create resource").await;
    let lines = run.dispatcher.log().lines().count();
    assert!(lines < 200, "{lines} log lines during the outage");
    assert_eq!(run.job_count().await, 0);
    run.env.namespace.grant("create").await;
    run.until_jobs(1).await;
    run.until_ready().await;
    run.finish().await;
}

/// `JetStream` refuses events immediately, so retries without backoff would flood the log.
#[tokio::test(flavor = "multi_thread")]
async fn full_status_stream_makes_the_dispatcher_unready_without_busy_retries() {
    let run = or_skip!(LoadTest::start().await);
    run.request("wait-a", "ADDED").await;
    let open = run.env.fill_status_stream().await;
    run.complete(&["wait-a"]).await;
    run.until_not_ready("JOB_STATUS").await;
    let lines = run.dispatcher.log().lines().count();
    assert!(lines < 60, "{lines} log lines during the outage");
    run.env.jetstream.update_stream(open).await.unwrap();
    run.env.outcome("wait-a").await;
    run.until_ready().await;
    run.finish().await;
}

/// The new leader publishes the pending event. The former leader stops retrying and must become
/// ready.
#[tokio::test(flavor = "multi_thread")]
async fn replica_that_loses_the_lease_during_a_failed_publish_becomes_ready() {
    let run = or_skip!(LoadTest::start().await);
    run.request("wait-a", "ADDED").await;
    let open = run.env.fill_status_stream().await;
    run.complete(&["wait-a"]).await;
    run.until_not_ready("JOB_STATUS").await;
    let leases: Api<Lease> = Api::namespaced(run.env.namespace.client.clone(), &run.env.namespace.name);
    let other_holder = json!({"spec": {"holderIdentity": "other", "leaseDurationSeconds": 60}});
    leases.patch("dispatcher", &PatchParams::default(), &Patch::Merge(other_holder)).await.unwrap();
    until("the former leader to be ready", TIMEOUT, || async {
        let (status, body) = run.dispatcher.get("/readyz").await?;
        let (_, leader) = run.dispatcher.get("/leader").await?;
        let done = status == 200 && leader.contains("\"leader\":false");
        if done { Ok(()) } else { Err(format!("{body}{leader}")) }
    })
    .await;
    run.env.jetstream.update_stream(open).await.unwrap();
    leases.delete("dispatcher", &DeleteParams::default()).await.unwrap();
    run.env.outcome("wait-a").await;
    run.until_ready().await;
    run.finish().await;
}

/// Jobs that cannot be retired must not block the outcomes of other Jobs.
#[tokio::test(flavor = "multi_thread")]
async fn revoked_patch_permission_blocks_no_outcome() {
    let run = or_skip!(LoadTest::start().await);
    run.request("wait-a", "ADDED").await;
    run.env.namespace.revoke("patch").await;
    // More Jobs than are retired concurrently.
    run.load(0, 60).await;
    run.until_not_ready("status retire").await;
    run.env.namespace.jobs.delete("wait-a", &DeleteParams::background()).await.unwrap();
    assert_eq!(run.env.outcome("wait-a").await["result"], "Deleted");
    run.env.namespace.grant("patch").await;
    run.until_ready().await;
    run.finish().await;
}
