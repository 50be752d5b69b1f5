//! The API server and etcd are killed, frozen and compacted; the namespace is deleted.

use std::time::{Duration, Instant};

use dispatcher_tests::wait::{TIMEOUT, until};
use dispatcher_tests::{Kubernetes, Nats, Options, only_on_kubernetes, or_skip};
use fastrand::Rng;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::scenario::{Scenario, repeat, repeat_on};
use dispatcher_tests::load_test::LoadTest;
use dispatcher_tests::test_env::TestEnv;

/// All runs of a scenario share one control plane, which other tests do not use.
async fn repeat_on_control_plane(
    fault: &str,
    kubernetes: &Kubernetes,
    inject: impl AsyncFn(&mut Scenario, &mut Rng),
) {
    let start = async || {
        Ok(LoadTest::new(TestEnv::new(Nats::start().await, kubernetes.namespace().await).await).await)
    };
    repeat_on(fault, start, inject).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn api_server_killed() {
    let kubernetes = or_skip!(Kubernetes::control_plane(Options::default()).await);
    repeat_on_control_plane(
        "the API server is killed and restarted twice",
        &kubernetes,
        async |scenario, random| {
            for round in 0..2 {
                tokio::join!(scenario.load(round * 100, 100), async {
                    scenario.until_jobs(round * 96 + random.usize(1..80)).await;
                    kubernetes.kill_apiserver().await;
                    kubernetes.start_apiserver().await;
                    let back = Instant::now();
                    let name = format!("wait-after-{round}");
                    scenario.until_works(&name).await;
                    scenario.recovered("API server restart", back);
                    scenario.complete(&[&name]).await;
                });
            }
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn api_server_frozen() {
    only_on_kubernetes!("the local cluster's API server is not a process");
    let kubernetes = or_skip!(Kubernetes::control_plane(Options::default()).await);
    repeat_on_control_plane(
        "the API server is frozen for up to 20 s",
        &kubernetes,
        async |scenario, random| {
            tokio::join!(scenario.load(0, 100), async {
                scenario.until_jobs(random.usize(1..80)).await;
                kubernetes.freeze("apiserver").await;
                // The duration of the fault.
                tokio::time::sleep(Duration::from_millis(random.u64(1000..20_000))).await;
                kubernetes.resume("apiserver").await;
                let back = Instant::now();
                scenario.until_works("wait-after").await;
                scenario.recovered("API server resumed after a freeze", back);
                scenario.complete(&["wait-after"]).await;
            });
            scenario.redeliver_now().await;
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_killed() {
    only_on_kubernetes!("the local cluster has no etcd");
    let kubernetes = or_skip!(Kubernetes::control_plane(Options::default()).await);
    repeat_on_control_plane("etcd is killed and restarted", &kubernetes, async |scenario, random| {
        tokio::join!(scenario.load(0, 100), async {
            scenario.until_jobs(random.usize(1..80)).await;
            kubernetes.kill_etcd().await;
            // The duration of the fault.
            tokio::time::sleep(Duration::from_millis(random.u64(0..8000))).await;
            kubernetes.start_etcd().await;
            let back = Instant::now();
            scenario.until_works("wait-after").await;
            scenario.recovered("etcd restart", back);
            scenario.complete(&["wait-after"]).await;
        });
        scenario.redeliver_now().await;
    })
    .await;
}

/// While the dispatcher is frozen, Jobs finish and are deleted and etcd is compacted: the watch
/// expires (410) and the dispatcher resyncs.
#[tokio::test(flavor = "multi_thread")]
async fn etcd_compacted_while_the_watch_is_down() {
    let kubernetes = or_skip!(Kubernetes::control_plane(Options::default()).await);
    let fault = "etcd is compacted while the watch is down (410), Jobs finish and are deleted meanwhile";
    repeat_on_control_plane(fault, &kubernetes, async |scenario, random| {
        let mut names: Vec<String> = (0..6).map(|n| format!("wait-{n}")).collect();
        for name in &names {
            scenario.request(name, "ADDED").await;
        }
        random.shuffle(&mut names);
        scenario.load(0, random.usize(1..60)).await;
        scenario.env.until_queue_is_empty().await;
        let before = resyncs(scenario).await;
        scenario.dispatcher.freeze().await;
        // Closes the watch first, so that no events wait in its socket.
        kubernetes.kill_apiserver().await;
        kubernetes.start_apiserver().await;
        scenario.complete(&[&names[0], &names[1]]).await;
        for name in &names[2..4] {
            scenario.env.namespace.jobs.delete(name, &DeleteParams::background()).await.unwrap();
        }
        kubernetes.compact_etcd().await;
        kubernetes.kill_apiserver().await;
        kubernetes.start_apiserver().await;
        scenario.dispatcher.resume().await;
        let on = Instant::now();
        for (name, result) in [(0, "Complete"), (1, "Complete"), (2, "Deleted"), (3, "Deleted")] {
            assert_eq!(scenario.env.outcome(&names[name]).await["result"], result);
        }
        scenario.recovered("expired watch (410), until missed outcomes are published", on);
        until("a resync", TIMEOUT, || async {
            let count = resyncs(scenario).await;
            if count > before { Ok(()) } else { Err(count) }
        })
        .await;
        scenario.complete(&[&names[4], &names[5]]).await;
    })
    .await;
}

/// Requests stay queued until the namespace exists again. A restarted dispatcher would refuse the
/// stream, which records the first namespace's uid; a running one continues.
#[tokio::test(flavor = "multi_thread")]
async fn namespace_recreated() {
    only_on_kubernetes!("the local cluster deletes a namespace immediately and has no RBAC");
    let fault = "the namespace of the Jobs is deleted and recreated";
    repeat(fault, async |scenario, random| {
        scenario.request("wait-a", "ADDED").await;
        let maps: Api<ConfigMap> =
            Api::namespaced(scenario.env.namespace.client.clone(), &scenario.env.namespace.name);
        // The finalizer keeps the namespace terminating.
        let hold = json!({"metadata": {"name": "hold", "finalizers": ["tests.example.org/hold"]}});
        maps.create(&PostParams::default(), &serde_json::from_value(hold).unwrap()).await.unwrap();
        tokio::join!(scenario.load(0, 60), async {
            scenario.until_jobs(random.usize(1..50)).await;
            scenario.env.namespace.delete().await;
        });
        scenario.until_not_ready("").await;
        let before = scenario.dispatcher.log().lines().count();
        scenario.load(60, 20).await;
        // The duration of the fault.
        tokio::time::sleep(Duration::from_millis(random.u64(0..8000))).await;
        let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        maps.patch("hold", &PatchParams::default(), &release).await.unwrap();
        scenario.env.namespace.recreate().await;
        let made = Instant::now();
        let lines = scenario.dispatcher.log().lines().count() - before;
        assert!(lines < 2000, "too many log lines: {lines}");
        scenario.until_works("wait-after").await;
        scenario.recovered("namespace recreated", made);
        assert_eq!(scenario.env.outcome("wait-a").await["result"], "Deleted");
        scenario.complete(&["wait-after"]).await;
        scenario.until_ready().await;
    })
    .await;
}

/// The number of completed resyncs.
async fn resyncs(scenario: &Scenario) -> u64 {
    let (_, metrics) = scenario.dispatcher.get("/metrics").await.unwrap();
    let value = metrics.lines().find_map(|line| line.strip_prefix("dispatcher_resyncs_total "));
    value.and_then(|value| value.trim().parse().ok()).expect("the metric exists")
}
