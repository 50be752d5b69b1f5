//! Watches end, break, go silent, forget and repeat; Jobs vanish without a word.

use std::time::Duration;

use kube::api::DeleteParams;
use local_cluster::faults::{Behaviour, Calls, Failure, Strike};

use crate::stage::Stage;

fn watches() -> Calls {
    Calls::of("watch", "jobs")
}

fn waiting(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("wait-{n}")).collect()
}

/// Requests under way while the watch meets each of these, one after the other.
async fn load_while_struck(what: &str, strikes: &[Strike], forget: bool) {
    let stage = Stage::start().await;
    tokio::join!(stage.load(0, 80), async {
        for (round, strike) in strikes.iter().enumerate() {
            stage.until_jobs(10 * (round + 1)).await;
            if forget {
                stage.faults.forget_history();
            }
            stage.faults.strike(watches(), *strike);
        }
    });
    stage.finish(what).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_is_dropped_and_cut_within_an_event() {
    let strikes = [Strike::End, Strike::Break, Strike::Truncate, Strike::Break, Strike::Truncate];
    load_while_struck("the watch is dropped", &strikes, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_gets_an_error_event() {
    let strikes = [Strike::Error(500), Strike::Error(410), Strike::Error(504), Strike::Error(410)];
    load_while_struck("the watch gets an error event", &strikes, false).await;
}

/// From where it was it cannot resume: it lists again.
#[tokio::test(flavor = "multi_thread")]
async fn the_history_is_forgotten() {
    let strikes = [Strike::Break, Strike::End, Strike::Error(410)];
    load_while_struck("the history is forgotten", &strikes, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_cannot_be_started() {
    let stage = Stage::start().await;
    stage.load(0, 20).await;
    for failure in [Failure::Code(410), Failure::Event(410), Failure::Code(500), Failure::Event(500)] {
        stage.faults.fail(watches(), 1, failure);
    }
    stage.faults.strike(watches(), Strike::Break);
    stage.load(20, 40).await;
    stage.until_struck().await;
    stage.finish("a watch cannot be started").await;
}

/// All that happens meanwhile comes at once in the end, or only the last of it.
async fn load_while_stalled(what: &str, more: Option<Behaviour>) {
    let stage = Stage::start().await;
    let names = waiting(3);
    stage.request(&names).await;
    for name in &names {
        stage.until_last(name, "ADDED").await;
    }
    stage.faults.behave(watches(), Behaviour::Stall);
    more.into_iter().for_each(|behaviour| stage.faults.behave(watches(), behaviour));
    stage.load(0, 60).await;
    stage.until_jobs(50).await;
    for name in &names {
        stage.end(name).await;
    }
    stage.faults.behave_well();
    for name in &names {
        assert_eq!(stage.until_last(name, "OUTCOME").await["outcome"]["result"], "Complete");
    }
    stage.finish(what).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_stalls() {
    load_while_stalled("the watch stalls", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_stalls_and_merges() {
    load_while_stalled("the watch stalls and merges", Some(Behaviour::Merge)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_repeated_and_bookmarks_forgotten() {
    let stage = Stage::start().await;
    stage.faults.behave(watches(), Behaviour::Repeat);
    stage.faults.behave(watches(), Behaviour::NoBookmarks);
    stage.load(0, 40).await;
    // Without bookmarks it resumes from its last event, which is older.
    stage.faults.strike(watches(), Strike::End);
    stage.load(40, 40).await;
    stage.finish("events are repeated, bookmarks forgotten").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_vanish_without_an_event() {
    let stage = Stage::start().await;
    let names = waiting(6);
    stage.request(&names).await;
    for name in &names {
        stage.until_last(name, "ADDED").await;
    }
    let (gone, left) = names.split_at(3);
    tokio::join!(stage.load(0, 60), stage.vanish(gone));
    for name in gone {
        assert_eq!(stage.until_last(name, "OUTCOME").await["outcome"]["result"], "Deleted", "{name}");
    }
    for name in left {
        stage.end(name).await;
    }
    stage.finish("Jobs vanish").await;
}

/// Its create is not answered yet, so nothing was said of it when the two are compared; and it is in no list any more. The
/// second look finds it.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_gone_before_it_is_listed_and_its_first_event_comes_after_the_comparison() {
    let stage = Stage::start().await;
    stage.load(0, 20).await;
    stage.until_jobs(19).await;
    let names = waiting(2);
    // What the watch would tell of them.
    stage.faults.behave(watches(), Behaviour::Stall);
    stage.faults.fail(Calls::of("create", "jobs"), 2, Failure::LateAfter(Duration::from_secs(5)));
    stage.request(&names).await;
    stage.until_jobs(21).await;
    stage.jobs.delete(&names[0], &DeleteParams::background()).await.unwrap();
    stage.faults.forget_history();
    stage.faults.strike(watches(), Strike::Error(410));
    stage.faults.behave_well();
    assert_eq!(stage.until_last(&names[0], "OUTCOME").await["outcome"]["result"], "Deleted");
    // The other one is left alone.
    stage.until_last(&names[1], "ADDED").await;
    stage.end(&names[1]).await;
    stage.finish("a Job is gone before it is listed").await;
}
