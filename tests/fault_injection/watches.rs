//! Watches end, break, go silent, forget and repeat; Jobs vanish without a word.

use std::time::Duration;

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

/// Requests under way while the watch meets each of these, one after the other.
async fn load_while_struck(scenario: &Scenario, random: &mut Rng, strikes: &[WatchFault], forget: bool) {
    tokio::join!(scenario.load(0, 80), async {
        for (round, strike) in strikes.iter().enumerate() {
            scenario.until_jobs(10 * round + random.usize(1..20)).await;
            if forget {
                scenario.faults.forget_history();
            }
            scenario.faults.inject(watches(), *strike);
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_is_dropped_and_cut_within_an_event() {
    let strikes =
        [WatchFault::End, WatchFault::Break, WatchFault::Truncate, WatchFault::Break, WatchFault::Truncate];
    repeat("the watch is dropped", async |scenario, random| {
        load_while_struck(scenario, random, &strikes, false).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_gets_an_error_event() {
    let strikes =
        [WatchFault::Error(500), WatchFault::Error(410), WatchFault::Error(504), WatchFault::Error(410)];
    repeat("the watch gets an error event", async |scenario, random| {
        load_while_struck(scenario, random, &strikes, false).await
    })
    .await;
}

/// From where it was it cannot resume: it lists again.
#[tokio::test(flavor = "multi_thread")]
async fn the_history_is_forgotten() {
    let strikes = [WatchFault::Break, WatchFault::End, WatchFault::Error(410)];
    repeat("the history is forgotten", async |scenario, random| {
        load_while_struck(scenario, random, &strikes, true).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_cannot_be_started() {
    repeat("a watch cannot be started", async |scenario, random| {
        scenario.load(0, 20).await;
        for failure in
            [Failure::Code(410), Failure::WatchError(410), Failure::Code(500), Failure::WatchError(500)]
        {
            scenario.faults.fail(watches(), random.u32(1..3), failure);
        }
        scenario.faults.inject(watches(), WatchFault::Break);
        scenario.load(20, 40).await;
        scenario.until_struck().await;
    })
    .await;
}

/// All that happens meanwhile comes at once in the end, or only the last of it.
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
        scenario.end(name).await;
    }
    scenario.faults.reset_behaviours();
    for name in &names {
        assert_eq!(scenario.until_last(name, "OUTCOME").await["outcome"]["result"], "Complete");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_stalls() {
    repeat("the watch stalls", async |scenario, random| load_while_stalled(scenario, random, None).await)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_stalls_and_merges() {
    repeat("the watch stalls and merges", async |scenario, random| {
        load_while_stalled(scenario, random, Some(Behaviour::Merge)).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_repeated_and_bookmarks_forgotten() {
    repeat("events are repeated, bookmarks forgotten", async |scenario, random| {
        scenario.faults.set_behaviour(watches(), Behaviour::Repeat);
        scenario.faults.set_behaviour(watches(), Behaviour::NoBookmarks);
        scenario.load(0, random.usize(1..40)).await;
        // Without bookmarks it resumes from its last event, which is older.
        scenario.faults.inject(watches(), WatchFault::End);
        scenario.load(40, 40).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_vanish_without_an_event() {
    repeat("Jobs vanish without an event", async |scenario, random| {
        let names = waiting(6);
        scenario.request(&names).await;
        for name in &names {
            scenario.until_last(name, "ADDED").await;
        }
        let (gone, left) = names.split_at(random.usize(1..6));
        tokio::join!(scenario.load(0, 60), scenario.vanish(gone));
        for name in gone {
            assert_eq!(scenario.until_last(name, "OUTCOME").await["outcome"]["result"], "Deleted", "{name}");
        }
        for name in left {
            scenario.end(name).await;
        }
    })
    .await;
}

/// Its create is not answered yet, so nothing was said of it when the two are compared; and it is in no list any more. The
/// second look finds it.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_gone_before_it_is_listed_and_its_first_event_comes_after_the_comparison() {
    repeat(
        "a Job is gone before it is listed, its ADDED comes after the comparison",
        async |scenario, random| {
            let asked = random.usize(1..20);
            // The eighth is a bad one.
            let good = asked - usize::from(asked > 7);
            scenario.load(0, asked).await;
            scenario.until_jobs(good).await;
            let names = waiting(2);
            // What the watch would tell of them.
            scenario.faults.set_behaviour(watches(), Behaviour::Stall);
            scenario.faults.fail(Calls::of("create", "jobs"), 2, Failure::DelayAfter(Duration::from_secs(5)));
            scenario.request(&names).await;
            scenario.until_jobs(good + 2).await;
            scenario.jobs.delete(&names[0], &DeleteParams::background()).await.unwrap();
            scenario.faults.forget_history();
            scenario.faults.inject(watches(), WatchFault::Error(410));
            scenario.faults.reset_behaviours();
            assert_eq!(scenario.until_last(&names[0], "OUTCOME").await["outcome"]["result"], "Deleted");
            // The other one is left alone.
            scenario.until_last(&names[1], "ADDED").await;
            scenario.end(&names[1]).await;
        },
    )
    .await;
}

/// The Job of an earlier request is not closed yet, and no watch and no list ever tell of the later one.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_one_name_come_and_go_while_the_watch_is_silent() {
    repeat("Jobs of one name come and go while the watch is silent", async |scenario, random| {
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
