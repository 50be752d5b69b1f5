//! The dispatcher's process is killed, frozen, terminated, or down while Jobs finish.

use std::time::{Duration, Instant};

use dispatcher_tests::{Dispatcher, until};
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::scenario::repeat;
use dispatcher_tests::job_controller::{START_TIME, finished_status};
use dispatcher_tests::wait::TIMEOUT;

#[tokio::test(flavor = "multi_thread")]
async fn dispatcher_killed_ten_times() {
    repeat("killed and restarted ten times in a row", async |scenario, random| {
        for round in 0..10 {
            tokio::join!(scenario.load(round * 10, 10), async {
                // Zero in the first round: it is killed right after its start.
                scenario.until_jobs(round * 9 - round / 2 + random.usize(0..6)).await;
                scenario.dispatcher.kill().await;
                scenario.redeliver_now().await;
                let started = Instant::now();
                scenario.dispatcher.restart().await;
                scenario.recovered("dispatcher restart, until ready", started);
            });
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dispatcher_killed_and_restarted_later() {
    repeat("killed and restarted some seconds later", async |scenario, random| {
        tokio::join!(scenario.load(0, 60), async {
            scenario.until_jobs(random.usize(1..50)).await;
            scenario.dispatcher.kill().await;
            // The duration of the fault.
            tokio::time::sleep(Duration::from_millis(random.u64(0..5000))).await;
        });
        let started = Instant::now();
        scenario.dispatcher.restart().await;
        scenario.until_works("wait-after").await;
        scenario.recovered("dispatcher restart, until the next request's ADDED", started);
        scenario.redeliver_now().await;
        scenario.complete(&["wait-after"]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dispatcher_frozen() {
    repeat("the dispatcher is frozen for up to 30 s", async |scenario, random| {
        tokio::join!(scenario.load(0, 100), async {
            scenario.until_jobs(random.usize(1..80)).await;
            scenario.dispatcher.freeze().await;
            // The duration of the fault.
            tokio::time::sleep(Duration::from_millis(random.u64(1000..30_000))).await;
            scenario.dispatcher.resume().await;
        });
        scenario.redeliver_now().await;
    })
    .await;
}

/// Requests of a frozen replica are redelivered to another one; then the first one resumes with
/// them.
#[tokio::test(flavor = "multi_thread")]
async fn dispatcher_frozen_and_its_requests_redelivered() {
    repeat("frozen with requests in flight, which another replica gets", async |scenario, random| {
        scenario.add_replica().await;
        let scenario = &*scenario;
        tokio::join!(scenario.load(0, 100), async {
            scenario.until_jobs(random.usize(1..80)).await;
            scenario.dispatcher.freeze().await;
            scenario.redeliver_now().await;
            scenario.dispatcher.resume().await;
        });
        scenario.redeliver_now().await;
    })
    .await;
}

async fn pending(scenario: &crate::scenario::Scenario) -> Value {
    let answer = scenario.env.client.request("$JS.API.CONSUMER.INFO.JOBS.dispatcher-simple", "".into()).await;
    let info: Value = serde_json::from_slice(&answer.unwrap().payload).unwrap();
    info["num_ack_pending"].clone()
}

/// After a graceful stop no request waits for `ack_wait`: every delivered request is acknowledged
/// or nak'ed.
#[tokio::test(flavor = "multi_thread")]
async fn dispatcher_terminated() {
    repeat("SIGTERM under load, then a restart", async |scenario, random| {
        for round in 0..3 {
            tokio::join!(scenario.load(round * 100, 100), async {
                scenario.until_jobs(round * 95 + random.usize(1..80)).await;
                assert_eq!(scenario.dispatcher.terminate().await, Some(0));
            });
            assert_eq!(pending(scenario).await, 0, "a graceful stop leaves requests pending");
            scenario.dispatcher.restart().await;
            scenario.env.until_queue_is_empty().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_finish_and_are_deleted_during_downtime() {
    repeat(
        "Jobs finish, are deleted and recreated while the dispatcher is down",
        async |scenario, random| {
            let mut names: Vec<String> = (0..8).map(|n| format!("wait-{n}")).collect();
            for name in &names {
                scenario.request(name, "ADDED").await;
            }
            random.shuffle(&mut names);
            // Some of them have more events than the ADDED.
            for name in &names[..random.usize(0..8)] {
                scenario
                    .env
                    .set_status(name, json!({"startTime": START_TIME, "active": 1, "ready": 0}))
                    .await;
                scenario.env.until_last(name, "MODIFIED").await;
            }
            scenario.env.until_queue_is_empty().await;
            scenario.dispatcher.kill().await;
            random.shuffle(&mut names);
            let delete = async |name: &str| {
                scenario.env.namespace.jobs.delete(name, &DeleteParams::background()).await.unwrap();
            };
            scenario.complete(&[&names[0], &names[1]]).await;
            let failed = finished_status("Failed", 4, "BackoffLimitExceeded", "words");
            scenario.env.set_status(&names[2], failed).await;
            for name in &names[3..6] {
                delete(name).await;
            }
            // A second Job with the name of a Job whose deletion was not observed.
            let again = json!({"foo": "x", "name": names[5]}).to_string();
            scenario.recorder.publish("simple", again, Some("again")).await.unwrap();
            let started = Instant::now();
            scenario.dispatcher.restart().await;
            for (name, result) in
                [(0, "Complete"), (1, "Complete"), (2, "Failed"), (3, "Deleted"), (4, "Deleted")]
            {
                assert_eq!(scenario.env.outcome(&names[name]).await["result"], result, "{}", names[name]);
            }
            scenario.recovered("dispatcher restart, until missed outcomes are published", started);
            until("the second Job of the name", TIMEOUT, || async {
                let types = scenario.env.event_types(&names[5]).await;
                (types.iter().filter(|type_| *type_ == "ADDED").count() == 2).then_some(()).ok_or(types)
            })
            .await;
            scenario.complete(&[&names[5], &names[6], &names[7]]).await;
        },
    )
    .await;
}

/// The first one's requests are not marked as its own; the next start finds them.
#[tokio::test(flavor = "multi_thread")]
async fn two_start_concurrently() {
    repeat("two dispatchers start concurrently, one is killed at its start", async |scenario, random| {
        tokio::join!(scenario.load(0, 80), async {
            scenario.until_jobs(random.usize(1..20)).await;
            let second: Dispatcher = scenario.start_replica().await;
            second.kill().await;
            tokio::join!(second.restart(), async {
                scenario.dispatcher.kill().await;
                scenario.dispatcher.restart().await;
            });
            assert_eq!(second.terminate().await, Some(0));
        });
        scenario.redeliver_now().await;
    })
    .await;
}
