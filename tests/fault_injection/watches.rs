//! Watches end, break, stall, expire and repeat events; Jobs are deleted without an event.

use std::time::Duration;

use dispatcher_tests::load_test;
use fastrand::Rng;
use kube::api::DeleteParams;
use local_cluster::faults::{Behaviour, Calls, Failure, WatchFault};
use serde_json::json;

use crate::scenario::{Scenario, repeat};

fn watches() -> Calls {
    Calls::of("watch", "jobs")
}

fn waiting(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("wait-{n}")).collect()
}

/// Publishes requests while the watch gets these faults, one after the other.
async fn load_with_watch_faults(scenario: &Scenario, random: &mut Rng, faults: &[WatchFault], compact: bool) {
    tokio::join!(scenario.load(0, 80), async {
        for (round, fault) in faults.iter().enumerate() {
            scenario.until_jobs(10 * round + random.usize(1..20)).await;
            if compact {
                scenario.faults.forget_history();
            }
            scenario.faults.inject(watches(), *fault);
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_dropped_mid_event() {
    let faults =
        [WatchFault::End, WatchFault::Break, WatchFault::Truncate, WatchFault::Break, WatchFault::Truncate];
    repeat("the watch is dropped", async |scenario, random| {
        load_with_watch_faults(scenario, random, &faults, false).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_error_event() {
    let faults =
        [WatchFault::Error(500), WatchFault::Error(410), WatchFault::Error(504), WatchFault::Error(410)];
    repeat("the watch gets an error event", async |scenario, random| {
        load_with_watch_faults(scenario, random, &faults, false).await;
    })
    .await;
}

/// The watch cannot resume; it lists again.
#[tokio::test(flavor = "multi_thread")]
async fn watch_history_compacted() {
    let faults = [WatchFault::Break, WatchFault::End, WatchFault::Error(410)];
    repeat("the watch history is compacted", async |scenario, random| {
        load_with_watch_faults(scenario, random, &faults, true).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_start_fails() {
    repeat("starting the watch fails", async |scenario, random| {
        scenario.load(0, 20).await;
        for failure in
            [Failure::Code(410), Failure::WatchError(410), Failure::Code(500), Failure::WatchError(500)]
        {
            scenario.faults.fail(watches(), random.u32(1..3), failure);
        }
        scenario.faults.inject(watches(), WatchFault::Break);
        scenario.load(20, 40).await;
        scenario.until_all_injected().await;
    })
    .await;
}

/// After the stall all events arrive together or, if coalesced, only the last of each Job.
async fn load_while_stalled(scenario: &Scenario, random: &mut Rng, more: Option<Behaviour>) {
    let names = waiting(3);
    scenario.request(&names).await;
    for name in &names {
        scenario.until_last(name, "ADDED").await;
    }
    scenario.faults.set_behaviour(watches(), Behaviour::Stall);
    more.into_iter().for_each(|behaviour| scenario.faults.set_behaviour(watches(), behaviour));
    scenario.load(0, 60).await;
    scenario.until_jobs(random.usize(20..57)).await;
    for name in &names {
        scenario.complete(name).await;
    }
    scenario.faults.reset_behaviours();
    for name in &names {
        assert_eq!(scenario.until_last(name, "OUTCOME").await["outcome"]["result"], "Complete");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_stalls() {
    repeat("the watch stalls", async |scenario, random| load_while_stalled(scenario, random, None).await)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_stalls_and_coalesces() {
    repeat("the watch stalls and coalesces events", async |scenario, random| {
        load_while_stalled(scenario, random, Some(Behaviour::Merge)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_events_repeated_and_bookmarks_dropped() {
    repeat("watch events are repeated, bookmarks dropped", async |scenario, random| {
        scenario.faults.set_behaviour(watches(), Behaviour::Repeat);
        scenario.faults.set_behaviour(watches(), Behaviour::NoBookmarks);
        scenario.load(0, random.usize(1..40)).await;
        // Without bookmarks the watch resumes from its last event, which is older.
        scenario.faults.inject(watches(), WatchFault::End);
        scenario.load(40, 40).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_deleted_without_a_watch_event() {
    repeat("Jobs are deleted without a watch event", async |scenario, random| {
        let names = waiting(6);
        scenario.request(&names).await;
        for name in &names {
            scenario.until_last(name, "ADDED").await;
        }
        let (deleted, others) = names.split_at(random.usize(1..6));
        tokio::join!(scenario.load(0, 60), scenario.delete_silently(deleted));
        for name in deleted {
            assert_eq!(scenario.until_last(name, "OUTCOME").await["outcome"]["result"], "Deleted", "{name}");
        }
        for name in others {
            scenario.complete(name).await;
        }
    })
    .await;
}

/// The create is not answered yet, so no event was published when the resync runs, and the list
/// does not contain the Job. The second pass finds it.
#[tokio::test(flavor = "multi_thread")]
async fn job_deleted_before_the_list_and_added_published_after_the_resync() {
    repeat(
        "a Job is deleted before the list, its ADDED is published after the resync",
        async |scenario, random| {
            let count = random.usize(1..20);
            let valid = load_test::jobs_of_load(count);
            scenario.load(0, count).await;
            scenario.until_jobs(valid).await;
            let names = waiting(2);
            // The watch must not deliver them.
            scenario.faults.set_behaviour(watches(), Behaviour::Stall);
            scenario.faults.fail(Calls::of("create", "jobs"), 2, Failure::DelayAfter(Duration::from_secs(5)));
            scenario.request(&names).await;
            scenario.until_jobs(valid + 2).await;
            scenario.jobs.delete(&names[0], &DeleteParams::background()).await.unwrap();
            scenario.faults.forget_history();
            scenario.faults.inject(watches(), WatchFault::Error(410));
            scenario.faults.reset_behaviours();
            assert_eq!(scenario.until_last(&names[0], "OUTCOME").await["outcome"]["result"], "Deleted");
            // The other Job is not deleted.
            scenario.until_last(&names[1], "ADDED").await;
            scenario.complete(&names[1]).await;
        },
    )
    .await;
}

/// The Job of the earlier request is still open, and neither the watch nor a list delivers the
/// later one.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_recreated_while_the_watch_stalls() {
    repeat("Jobs are deleted and recreated while the watch stalls", async |scenario, random| {
        let names = waiting(random.usize(1..6));
        scenario.request(&names).await;
        for name in &names {
            scenario.until_last(name, "ADDED").await;
        }
        scenario.faults.set_behaviour(watches(), Behaviour::Stall);
        for round in 0..random.usize(1..3) {
            for name in &names {
                scenario.jobs.delete(name, &DeleteParams::background()).await.unwrap();
                let payload = json!({"foo": "x", "name": name}).to_string();
                let id = format!("of-{name}-{round}");
                scenario.recorder.publish("simple", payload, Some(&id)).await.unwrap();
            }
            scenario.until_jobs(names.len()).await;
        }
        for name in &names {
            scenario.jobs.delete(name, &DeleteParams::background()).await.unwrap();
        }
        scenario.faults.forget_history();
        scenario.faults.inject(watches(), WatchFault::Error(410));
        scenario.faults.reset_behaviours();
    })
    .await;
}
