//! Faults, on the real parts: after each, the promises are checked over the whole streams and the cluster, with the
//! streams' deduplication window at its minimum, so that nothing leans on it.

use std::time::Duration;

use dispatcher_tests::checker::assert_kept;
use dispatcher_tests::{Kubernetes, Nats, Options, or_skip, until};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::run::{REST, Run};
use crate::world::{PATIENCE, START, World, finished, managed_template};

/// The stream takes nothing more, so that the Job is created and its first event is not stored.
#[tokio::test(flavor = "multi_thread")]
async fn killed_right_after_the_create() {
    let run = or_skip!(Run::start().await);
    run.request("wait-a", "ADDED").await;
    let stream = run.world.jetstream.get_stream("JOB_STATUS").await.unwrap();
    let open = stream.cached_info().config.clone();
    let full = async_nats::jetstream::stream::Config {
        max_messages: 1,
        discard: async_nats::jetstream::stream::DiscardPolicy::New,
        ..open.clone()
    };
    run.world.jetstream.update_stream(full).await.unwrap();
    run.recorder.publish("simple", r#"{"foo":"x","name":"wait-b"}"#, Some("b")).await.unwrap();
    run.world.job("wait-b").await;
    run.dispatcher.kill().await;
    assert_eq!(run.world.history("wait-b").await.len(), 0);
    run.world.jetstream.update_stream(open).await.unwrap();
    run.dispatcher.restart().await;
    run.world.until_last("wait-b", "ADDED").await;
    run.end(&["wait-a", "wait-b"]).await;
    run.finish().await;
}

/// NATS takes no ack from this user, so that the first event is stored and the request is not acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn killed_right_after_the_first_event() {
    let folder = dispatcher_tests::paths::temp_dir("accounts").unwrap();
    let users = r#"{user: anybody, password: ""}, {user: mute, password: m, permissions: {publish: {deny: "$JS.ACK.>"}}}"#;
    let config = format!("accounts {{A {{jetstream: enabled, users: [{users}]}}}}\nno_auth_user: anybody\n");
    std::fs::write(folder.path().join("nats.conf"), config).unwrap();
    let nats =
        Nats::process_with(&["--config", &folder.path().join("nats.conf").display().to_string()]).await;
    let kubernetes = or_skip!(Kubernetes::shared().await);
    let run = Run::of(World::of(nats, kubernetes.namespace().await).await).await;
    assert_eq!(run.dispatcher.terminate().await, Some(0));
    let (_folder, templates) = managed_template();
    let mute = run.world.dispatcher().templates(templates).env("NATS_USER", "mute").env("NATS_PASSWORD", "m");
    let mute = mute.start().await;
    run.request("wait-a", "ADDED").await;
    mute.kill().await;
    let jobs = run.world.jetstream.get_stream("JOBS").await.unwrap();
    assert_eq!(jobs.cached_info().state.messages, 1, "not acknowledged");
    run.dispatcher.restart().await;
    run.end(&["wait-a"]).await;
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_end_and_vanish_while_it_is_down() {
    let run = or_skip!(Run::start().await);
    // Of the last two only the ADDED is said: nobody has touched them.
    for name in ["wait-done", "wait-failed", "wait-gone", "wait-done-and-gone", "wait-added", "wait-again"] {
        run.request(name, "ADDED").await;
    }
    for name in ["wait-done", "wait-failed", "wait-gone", "wait-done-and-gone"] {
        run.world.set_status(name, json!({"startTime": START, "active": 1, "ready": 0})).await;
        run.world.until_last(name, "MODIFIED").await;
    }
    run.world.until_queue_is_empty().await;
    run.dispatcher.kill().await;
    run.end(&["wait-done", "wait-done-and-gone"]).await;
    run.world.set_status("wait-failed", finished("Failed", 4, "BackoffLimitExceeded", "words")).await;
    for name in ["wait-gone", "wait-done-and-gone", "wait-added", "wait-again"] {
        run.world.namespace.jobs.delete(name, &DeleteParams::background()).await.unwrap();
    }
    // A second Job under the name of one that vanished unseen.
    run.recorder.publish("simple", r#"{"foo":"x","name":"wait-again"}"#, Some("again")).await.unwrap();
    run.dispatcher.restart().await;
    for (name, result) in [
        ("wait-done", "Complete"),
        ("wait-failed", "Failed"),
        ("wait-gone", "Deleted"),
        ("wait-added", "Deleted"),
    ] {
        assert_eq!(run.world.outcome(name).await["result"], result, "{name}");
    }
    run.world.outcome("wait-done-and-gone").await;
    run.world.until_last("wait-again", "ADDED").await;
    run.end(&["wait-again"]).await;
    until("both Jobs of that name to have their outcomes", PATIENCE, || async {
        let types = run.world.types("wait-again").await;
        (types.iter().filter(|t| *t == "OUTCOME").count() == 2).then_some(()).ok_or(types)
    })
    .await;
    assert_kept_but_for_unseen_ends(run).await;
}

/// A Job that ended and vanished while nobody watched can only be told as `Deleted`: the checker, which did watch, knows
/// better. That one is left out.
async fn assert_kept_but_for_unseen_ends(run: Run) {
    let mut history = run.recorder.finish(REST).await.unwrap();
    for job in history.jobs.iter_mut().filter(|job| job.name == "wait-done-and-gone") {
        job.ended = dispatcher_tests::checker::history::Ended::Unknown;
    }
    assert_kept(&history);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_for_thirty_seconds_under_load() {
    let run = or_skip!(Run::start().await);
    tokio::join!(run.load(0, 200), async {
        run.until_jobs(20).await;
        run.dispatcher.stop_signal().await;
        // The fault itself lasts this long.
        tokio::time::sleep(Duration::from_secs(30)).await;
        run.dispatcher.cont_signal().await;
    });
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_killed_and_restarted_under_load() {
    let run = or_skip!(Run::start().await);
    tokio::join!(run.load(0, 400), async {
        for jobs in [20, 120, 220] {
            run.until_jobs(jobs).await;
            run.world.nats.kill().await;
            run.world.nats.restart().await;
        }
    });
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn api_server_killed_and_restarted_under_load() {
    let kubernetes = or_skip!(Kubernetes::control_plane(Options::default()).await);
    let run = Run::of(World::of(Nats::start().await, kubernetes.namespace().await).await).await;
    tokio::join!(run.load(0, 300), async {
        for jobs in [20, 100, 180] {
            run.until_jobs(jobs).await;
            kubernetes.kill_apiserver().await;
            kubernetes.start_apiserver().await;
        }
    });
    run.finish().await;
}

/// While the dispatcher sleeps, Jobs end and vanish, and etcd forgets: its watch cannot resume (410), it lists again.
#[tokio::test(flavor = "multi_thread")]
async fn etcd_compacted_while_the_watch_was_away() {
    let kubernetes = or_skip!(Kubernetes::control_plane(Options::default()).await);
    let run = Run::of(World::of(Nats::start().await, kubernetes.namespace().await).await).await;
    for name in ["wait-ends", "wait-vanishes", "wait-stays"] {
        run.request(name, "ADDED").await;
    }
    run.load(0, 40).await;
    run.world.until_queue_is_empty().await;
    run.dispatcher.stop_signal().await;
    run.end(&["wait-ends"]).await;
    run.world.namespace.jobs.delete("wait-vanishes", &DeleteParams::background()).await.unwrap();
    kubernetes.compact_etcd().await;
    kubernetes.kill_apiserver().await;
    kubernetes.start_apiserver().await;
    run.dispatcher.cont_signal().await;
    assert_eq!(run.world.outcome("wait-ends").await["result"], "Complete");
    assert_eq!(run.world.outcome("wait-vanishes").await["result"], "Deleted");
    run.end(&["wait-stays"]).await;
    assert_eq!(run.world.outcome("wait-stays").await["result"], "Complete");
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quota_reached_then_raised() {
    let run = or_skip!(Run::start().await);
    let quotas: kube::Api<k8s_openapi::api::core::v1::ResourceQuota> =
        kube::Api::namespaced(run.world.namespace.client.clone(), &run.world.namespace.name);
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
    assert_eq!(run.jobs().await, 5);
    let letters = run.world.rejections().await;
    assert!(
        letters.iter().all(|l| crate::world::header(l, "Job-Error") != "Refused"),
        "a quota rejects nothing"
    );
    quotas.patch("q", &PatchParams::default(), &Patch::Merge(quota(1000))).await.unwrap();
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn right_taken_away_then_given_back() {
    let run = or_skip!(Run::start().await);
    let roles: kube::Api<k8s_openapi::api::rbac::v1::Role> =
        kube::Api::namespaced(run.world.namespace.client.clone(), &run.world.namespace.name);
    let before = roles.get("dispatcher").await.unwrap();
    let mut rules = serde_json::to_value(before.rules.as_ref().unwrap()).unwrap();
    let verbs = rules[0]["verbs"].as_array_mut().unwrap();
    verbs.retain(|verb| verb != "create");
    let patch = |rules: &Value| Patch::Merge(json!({ "rules": rules }));
    roles.patch("dispatcher", &PatchParams::default(), &patch(&rules)).await.unwrap();
    run.load(0, 20).await;
    until("not ready, with the reason", PATIENCE, || async {
        let answer = run.dispatcher.get("/ready").await?;
        if answer.0 == 503 && answer.1.contains("cannot create resource") {
            Ok(())
        } else {
            Err(format!("{answer:?}"))
        }
    })
    .await;
    let lines = run.dispatcher.log().lines().count();
    assert!(lines < 200, "no flood of log lines: {lines}");
    assert_eq!(run.jobs().await, 0);
    let rules = serde_json::to_value(before.rules.unwrap()).unwrap();
    roles.patch("dispatcher", &PatchParams::default(), &patch(&rules)).await.unwrap();
    run.until_jobs(1).await;
    until("ready again", PATIENCE, || async {
        let answer = run.dispatcher.get("/ready").await?;
        if answer.0 == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_restarts_in_a_row_under_load() {
    let run = or_skip!(Run::start().await);
    for restart in 0..100 {
        let load = run.load(restart * 10, 10);
        let kill = async {
            run.dispatcher.kill().await;
            run.dispatcher.restart().await;
        };
        tokio::join!(load, kill);
    }
    run.finish().await;
}

/// After a graceful stop no request waits for `ack_wait`: whatever was delivered is answered.
#[tokio::test(flavor = "multi_thread")]
async fn terminated_under_load_leaves_nothing_pending() {
    let run = or_skip!(Run::start().await);
    for round in 0..5 {
        tokio::join!(run.load(round * 300, 300), async {
            run.until_jobs(round * 280 + 30).await;
            assert_eq!(run.dispatcher.terminate().await, Some(0));
        });
        let info: Value = {
            let subject = "$JS.API.CONSUMER.INFO.JOBS.dispatcher-simple";
            let answer = run.world.client.request(subject, "".into()).await.unwrap();
            serde_json::from_slice(&answer.payload).unwrap()
        };
        assert_eq!(info["num_ack_pending"], 0, "{info}");
        run.dispatcher.restart().await;
        run.world.until_queue_is_empty().await;
    }
    run.finish().await;
}
