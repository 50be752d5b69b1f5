//! The control plane: the API server and etcd killed, stopped, compacted.

use std::time::{Duration, Instant};

use dispatcher_tests::{Kubernetes, Nats, Options, only_on_kubernetes, or_skip};
use fastrand::Rng;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::scenario::{Scenario, repeat, repeat_on};
use dispatcher_tests::load_test::LoadTest;
use dispatcher_tests::test_env::TestEnv;

/// Each fault has a control plane of its own, for all its runs.
async fn repeat_beside(fault: &str, kubernetes: &Kubernetes, play: impl AsyncFn(&mut Scenario, &mut Rng)) {
    let start = async || {
        Ok(LoadTest::new(TestEnv::new(Nats::start().await, kubernetes.namespace().await).await).await)
    };
    repeat_on(fault, start, play).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_is_killed() {
    let kubernetes = or_skip!(Kubernetes::control_plane(Options::default()).await);
    repeat_beside("the API server killed and restarted, twice", &kubernetes, async |scenario, random| {
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
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_does_not_answer() {
    only_on_kubernetes!("the local cluster's API server has no process of its own to freeze");
    let kubernetes = or_skip!(Kubernetes::control_plane(Options::default()).await);
    repeat_beside("the API server frozen for up to 20 s", &kubernetes, async |scenario, random| {
        tokio::join!(scenario.load(0, 100), async {
            scenario.until_jobs(random.usize(1..80)).await;
            kubernetes.freeze("apiserver").await;
            // The fault itself lasts this long.
            tokio::time::sleep(Duration::from_millis(random.u64(1000..20_000))).await;
            kubernetes.resume("apiserver").await;
            let back = Instant::now();
            scenario.until_works("wait-after").await;
            scenario.recovered("API server answers again after being frozen", back);
            scenario.complete(&["wait-after"]).await;
        });
        scenario.redeliver_now().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_is_killed() {
    only_on_kubernetes!("the local cluster has no etcd");
    let kubernetes = or_skip!(Kubernetes::control_plane(Options::default()).await);
    repeat_beside("etcd killed and restarted", &kubernetes, async |scenario, random| {
        tokio::join!(scenario.load(0, 100), async {
            scenario.until_jobs(random.usize(1..80)).await;
            kubernetes.kill_etcd().await;
            // The fault itself lasts this long.
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

/// While the dispatcher sleeps, Jobs end and vanish, and etcd forgets: its watch cannot resume (410), it lists again.
#[tokio::test(flavor = "multi_thread")]
async fn etcd_is_compacted_while_the_watch_is_away() {
    let kubernetes = or_skip!(Kubernetes::control_plane(Options::default()).await);
    let fault = "etcd compacted while the watch was away (410), Jobs ended and deleted meanwhile";
    repeat_beside(fault, &kubernetes, async |scenario, random| {
        let mut names: Vec<String> = (0..6).map(|n| format!("wait-{n}")).collect();
        for name in &names {
            scenario.request(name, "ADDED").await;
        }
        random.shuffle(&mut names);
        scenario.load(0, random.usize(1..60)).await;
        scenario.env.until_queue_is_empty().await;
        scenario.dispatcher.freeze().await;
        // Its connection is gone before anything happens, so that nothing waits for it in a socket.
        kubernetes.kill_apiserver().await;
        kubernetes.start_apiserver().await;
        scenario.complete(&[&names[0], &names[1]]).await;
        for name in &names[2..4] {
            scenario.env.namespace.jobs.delete(name, &DeleteParams::background()).await.unwrap();
        }
        kubernetes.compact_etcd().await;
        kubernetes.kill_apiserver().await;
        kubernetes.start_apiserver().await;
        let comparisons = || scenario.dispatcher.log().matches("comparing what was said").count();
        let before = comparisons();
        scenario.dispatcher.resume().await;
        let on = Instant::now();
        for (name, result) in [(0, "Complete"), (1, "Complete"), (2, "Deleted"), (3, "Deleted")] {
            assert_eq!(scenario.env.outcome(&names[name]).await["result"], result);
        }
        scenario.recovered("a watch that expired (410), until missed outcomes are told", on);
        assert!(comparisons() > before, "it could not resume");
        scenario.complete(&[&names[4], &names[5]]).await;
    })
    .await;
}

/// Requests wait until there is a namespace again. A later start would refuse the stream, which tells of the first one; the
/// running one goes on.
#[tokio::test(flavor = "multi_thread")]
async fn the_namespace_is_deleted_and_made_again() {
    only_on_kubernetes!("the local cluster removes a namespace at once, and has no rights to lose with it");
    let fault = "the namespace of the Jobs is deleted, and made again";
    repeat(fault, async |scenario, random| {
        scenario.request("wait-a", "ADDED").await;
        let maps: Api<ConfigMap> =
            Api::namespaced(scenario.env.namespace.client.clone(), &scenario.env.namespace.name);
        // It terminates for as long as this is there.
        let hold = json!({"metadata": {"name": "hold", "finalizers": ["tests.example.org/hold"]}});
        maps.create(&PostParams::default(), &serde_json::from_value(hold).unwrap()).await.unwrap();
        tokio::join!(scenario.load(0, 60), async {
            scenario.until_jobs(random.usize(1..50)).await;
            scenario.env.namespace.delete().await;
        });
        scenario.until_not_ready("").await;
        let before = scenario.dispatcher.log().lines().count();
        scenario.load(60, 20).await;
        // The fault itself lasts this long.
        tokio::time::sleep(Duration::from_millis(random.u64(0..8000))).await;
        let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        maps.patch("hold", &PatchParams::default(), &release).await.unwrap();
        scenario.env.namespace.recreate().await;
        let made = Instant::now();
        let lines = scenario.dispatcher.log().lines().count() - before;
        assert!(lines < 2000, "no flood of log lines: {lines}");
        scenario.until_works("wait-after").await;
        scenario.recovered("namespace made again", made);
        assert_eq!(scenario.env.outcome("wait-a").await["result"], "Deleted");
        scenario.complete(&["wait-after"]).await;
        scenario.until_ready().await;
    })
    .await;
}
