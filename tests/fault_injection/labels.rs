//! Users and admission control change the outcome label, which hides a Job from the watch.

use fastrand::Rng;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use local_cluster::faults::{Behaviour, Calls, Failure, WatchFault};
use serde_json::{Value, json};

use dispatcher_tests::until;
use dispatcher_tests::wait::TIMEOUT;

use crate::scenario::{Scenario, repeat};

const LABEL: &str = "natsjobs.dev/outcome";
const RECORD: &str = "natsjobs.dev/outcome-record";

fn waiting(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("wait-{n}")).collect()
}

async fn patch(scenario: &Scenario, name: &str, labels: Value, annotations: Value) {
    let metadata = json!({"labels": labels, "annotations": annotations});
    let patch = Patch::Merge(json!({ "metadata": metadata }));
    scenario.jobs.patch(name, &PatchParams::default(), &patch).await.unwrap();
}

/// Starts Jobs that run until they are completed.
async fn start(scenario: &Scenario, names: &[String]) {
    scenario.request(names).await;
    for name in names {
        scenario.until_last(name, "ADDED").await;
    }
}

/// A label as a user sets it or copies it: without a record, with that of another Job, or with a
/// record of the Job's uid that no outcome stands behind.
async fn set_label(scenario: &Scenario, random: &mut Rng, name: &str) {
    let uid = scenario.jobs.get(name).await.unwrap().uid().unwrap_or_default();
    let annotations = match random.u8(0..4) {
        0 => json!({}),
        1 => json!({RECORD: "9f3c/17"}),
        2 => json!({RECORD: format!("{uid}/1")}),
        _ => json!({RECORD: format!("{uid}/999999999")}),
    };
    patch(scenario, name, json!({LABEL: "Complete"}), annotations).await;
}

async fn until_unlabelled(scenario: &Scenario, name: &str) {
    until(&format!("the label of {name} to be removed"), TIMEOUT, || async {
        let labels = scenario.jobs.get(name).await.map_err(|e| e.to_string())?.labels().clone();
        if labels.contains_key(LABEL) { Err(format!("{labels:?}")) } else { Ok(()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outcome_label_removed_from_retired_jobs() {
    repeat("the outcome label is removed from Jobs", async |scenario, random| {
        tokio::join!(scenario.load(0, 60), async {
            for round in 1..5 {
                scenario.until_jobs(10 * round).await;
                let jobs = scenario.jobs.list(&ListParams::default()).await.unwrap().items;
                let labelled = jobs.iter().filter(|job| job.labels().contains_key(LABEL));
                for job in random.choose_multiple(labelled, 5) {
                    patch(scenario, &job.name_any(), json!({LABEL: null}), json!({})).await;
                }
            }
        });
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outcome_label_set_on_running_jobs() {
    repeat("the outcome label is set on running Jobs", async |scenario, random| {
        let names = waiting(6);
        start(scenario, &names).await;
        tokio::join!(scenario.load(0, 40), async {
            for name in &names {
                set_label(scenario, random, name).await;
            }
        });
        for name in &names {
            until_unlabelled(scenario, name).await;
            scenario.complete(name).await;
            assert_eq!(scenario.until_last(name, "OUTCOME").await["outcome"]["result"], "Complete");
        }
    })
    .await;
}

/// The label and the end of a Job are set in any order and at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn outcome_label_set_on_jobs_that_finish() {
    repeat("the outcome label is set on Jobs that finish", async |scenario, random| {
        let names = waiting(8);
        start(scenario, &names).await;
        for name in &names {
            if random.bool() {
                set_label(scenario, random, name).await;
                scenario.complete(name).await;
            } else {
                scenario.complete(name).await;
                set_label(scenario, random, name).await;
            }
        }
        for name in &names {
            assert_eq!(scenario.until_last(name, "OUTCOME").await["outcome"]["result"], "Complete");
        }
    })
    .await;
}

/// Neither the watch nor the list shows that the Jobs left: the resync finds their open subjects.
#[tokio::test(flavor = "multi_thread")]
async fn outcome_label_set_before_a_resync() {
    repeat("the outcome label is set before a resync", async |scenario, random| {
        let names = waiting(6);
        start(scenario, &names).await;
        let crash = random.bool();
        scenario.faults.set_behaviour(Calls::of("watch", "jobs"), Behaviour::Stall);
        for name in &names {
            set_label(scenario, random, name).await;
            if random.bool() {
                scenario.complete(name).await;
            }
        }
        if crash {
            scenario.crash().await;
        } else {
            scenario.faults.forget_history();
            scenario.faults.inject(Calls::of("watch", "jobs"), WatchFault::Error(410));
        }
        scenario.faults.reset_behaviours();
        for name in &names {
            until_unlabelled_or_retired(scenario, name).await;
            scenario.complete(name).await;
            assert_eq!(scenario.until_last(name, "OUTCOME").await["outcome"]["result"], "Complete");
        }
    })
    .await;
}

/// A genuine label is set once the outcome is stored.
async fn until_unlabelled_or_retired(scenario: &Scenario, name: &str) {
    until(&format!("{name} to be in the watch or retired"), TIMEOUT, || async {
        let job = scenario.jobs.get(name).await.map_err(|e| e.to_string())?;
        let retired = job.spec.as_ref().is_some_and(|spec| spec.ttl_seconds_after_finished.is_some());
        if retired || !job.labels().contains_key(LABEL) { Ok(()) } else { Err(format!("{:?}", job.labels())) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn job_whose_label_may_not_be_removed_has_its_events() {
    repeat("the removal of a foreign label is refused", async |scenario, random| {
        let names = waiting(2);
        start(scenario, &names).await;
        let (hidden, other) = (&names[0], &names[1]);
        scenario.faults.fail(Calls::of("patch", "jobs").named(hidden), u32::MAX, Failure::Code(422));
        set_label(scenario, random, hidden).await;
        scenario.complete(hidden).await;
        assert_eq!(scenario.until_last(hidden, "OUTCOME").await["outcome"]["result"], "Complete");
        assert_eq!(scenario.not_ready().await, None, "one Job makes nothing unready");
        scenario.complete(other).await;
        scenario.faults.clear();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn labelled_jobs_deleted() {
    repeat("Jobs are labelled and deleted", async |scenario, random| {
        let names = waiting(6);
        start(scenario, &names).await;
        for name in &names {
            set_label(scenario, random, name).await;
            scenario.jobs.delete(name, &DeleteParams::background()).await.unwrap();
        }
        for name in &names {
            assert_eq!(scenario.until_last(name, "OUTCOME").await["outcome"]["result"], "Deleted", "{name}");
        }
    })
    .await;
}
