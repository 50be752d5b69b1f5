//! NATS and Kubernetes die, forget and refuse, on the real parts: after each, the promises are checked over the whole
//! streams and the cluster, with the streams' deduplication window at its minimum.

use dispatcher_tests::{only_on_kubernetes, or_skip, until};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use dispatcher_tests::load_test::LoadTest as Run;
use dispatcher_tests::wait::TIMEOUT as PATIENCE;

#[tokio::test(flavor = "multi_thread")]
async fn quota_reached_then_raised() {
    only_on_kubernetes!("the local cluster knows no quotas");
    let run = or_skip!(Run::start().await);
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
    until("the quota to count", PATIENCE, || async { quotas.get("q").await.ok()?.status?.used.map(drop) })
        .await;
    run.load(0, 20).await;
    run.until_jobs(5).await;
    until("a refusal in the log", PATIENCE, || async {
        run.dispatcher.log().contains("exceeded quota").then_some(())
    })
    .await;
    assert_eq!(run.job_count().await, 5);
    let letters = run.env.dead_letters().await;
    assert!(
        letters.iter().all(|l| dispatcher_tests::test_env::header(l, "Job-Error") != "Refused"),
        "a quota rejects nothing"
    );
    quotas.patch("q", &PatchParams::default(), &Patch::Merge(quota(1000))).await.unwrap();
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn right_taken_away_then_given_back() {
    let run = or_skip!(Run::start().await);
    run.env.namespace.revoke("create").await;
    run.load(0, 20).await;
    run.until_not_ready("cannot create resource").await;
    let lines = run.dispatcher.log().lines().count();
    assert!(lines < 200, "no flood of log lines: {lines}");
    assert_eq!(run.job_count().await, 0);
    run.env.namespace.grant("create").await;
    run.until_jobs(1).await;
    run.until_ready().await;
    run.finish().await;
}

/// JetStream refuses events at once, while it can still be read: nothing may spin.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_status_stream_is_told_and_nothing_spins() {
    let run = or_skip!(Run::start().await);
    run.request("wait-a", "ADDED").await;
    let open = run.env.fill_status_stream().await;
    run.complete(&["wait-a"]).await;
    run.until_not_ready("JOB_STATUS").await;
    let lines = run.dispatcher.log().lines().count();
    assert!(lines < 60, "no flood of log lines: {lines}");
    run.env.jetstream.update_stream(open).await.unwrap();
    run.env.outcome("wait-a").await;
    run.until_ready().await;
    run.finish().await;
}

/// What was its to say is another one's then: nothing of it is tried again, and so nothing may stay not ready.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_loses_the_lease_while_it_cannot_say_something_gets_ready() {
    let run = or_skip!(Run::start().await);
    run.request("wait-a", "ADDED").await;
    let open = run.env.fill_status_stream().await;
    run.complete(&["wait-a"]).await;
    run.until_not_ready("JOB_STATUS").await;
    let leases: Api<Lease> = Api::namespaced(run.env.namespace.client.clone(), &run.env.namespace.name);
    let of_another = json!({"spec": {"holderIdentity": "another", "leaseDurationSeconds": 60}});
    leases.patch("dispatcher", &PatchParams::default(), &Patch::Merge(of_another)).await.unwrap();
    until("it to be ready as one that does not report", PATIENCE, || async {
        let (status, body) = run.dispatcher.get("/readyz").await?;
        let (_, reports) = run.dispatcher.get("/leader").await?;
        let done = status == 200 && reports.contains("\"reports\":false");
        if done { Ok(()) } else { Err(format!("{body}{reports}")) }
    })
    .await;
    run.env.jetstream.update_stream(open).await.unwrap();
    leases.delete("dispatcher", &DeleteParams::default()).await.unwrap();
    run.env.outcome("wait-a").await;
    run.until_ready().await;
    run.finish().await;
}

/// Jobs that cannot be marked hold up no other, and `/readyz` says why.
#[tokio::test(flavor = "multi_thread")]
async fn the_right_to_patch_taken_away_holds_up_no_outcome() {
    let run = or_skip!(Run::start().await);
    run.request("wait-a", "ADDED").await;
    run.env.namespace.revoke("patch").await;
    // More than calls are made at once.
    run.load(0, 60).await;
    run.until_not_ready("cannot mark the Job").await;
    run.env.namespace.jobs.delete("wait-a", &DeleteParams::background()).await.unwrap();
    assert_eq!(run.env.outcome("wait-a").await["result"], "Deleted");
    run.env.namespace.grant("patch").await;
    run.until_ready().await;
    run.finish().await;
}
