//! Users delete Jobs, recreate them under the same name, or set their TTL to 0, under load.

use dispatcher_tests::until;
use futures::{StreamExt, stream};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;

use crate::leadership::leader_and_follower;
use crate::scenario::{Scenario, repeat};
use dispatcher_tests::wait::TIMEOUT;

/// The number of requests that are published during the manual changes. One in twenty is invalid.
const REQUESTS: usize = 100;

const OUTCOME_LABEL: &str = "natsjobs.dev/outcome";

/// The names of all Jobs.
async fn names(scenario: &Scenario) -> Vec<String> {
    let list = scenario.env.namespace.jobs.list(&ListParams::default()).await.unwrap();
    list.items.iter().map(ResourceExt::name_any).collect()
}

async fn delete(scenario: &Scenario, names: &[String]) {
    let delete = async |name: &String| {
        // Ignores a failure: the Job may be gone, since Kubernetes deletes it when its TTL expires.
        let _ = scenario.env.namespace.jobs.delete(name, &DeleteParams::background()).await;
    };
    stream::iter(names).map(delete).buffer_unordered(16).collect::<Vec<()>>().await;
}

/// Publishes a request for a Job with this name.
async fn request(scenario: &Scenario, name: &str, id: &str) {
    let payload = json!({"foo": "x", "name": name}).to_string();
    scenario.recorder.publish("simple", payload, Some(id)).await.unwrap();
}

/// Waits until a Job of this name exists that the request `id` created.
async fn until_job_of(scenario: &Scenario, name: &str, id: &str) {
    until(&format!("the Job {name} of request {id}"), TIMEOUT, || async {
        let job = scenario.env.namespace.jobs.get(name).await.map_err(|error| error.to_string())?;
        let found = job.annotations().get("natsjobs.dev/request-id").cloned();
        if found.as_deref() == Some(id) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

async fn until_deleted(scenario: &Scenario, name: &str) {
    until(&format!("the deletion of the Job {name}"), TIMEOUT, || async {
        match scenario.env.namespace.jobs.get_opt(name).await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_deleted() {
    repeat("random Jobs are deleted manually", async |scenario, random| {
        tokio::join!(scenario.load(0, REQUESTS), async {
            for jobs in [10, 40, 70] {
                scenario.until_jobs(jobs + random.usize(0..20) - 10).await;
                let names = names(scenario).await;
                let some = random.choose_multiple(names, 8);
                delete(scenario, &some).await;
            }
        });
    })
    .await;
}

/// Removes the outcome label of some Jobs, and sets it on others, in any state.
async fn change_labels(scenario: &Scenario, random: &mut fastrand::Rng) {
    let list = scenario.env.namespace.jobs.list(&ListParams::default()).await.unwrap();
    for job in random.choose_multiple(list.items, 8) {
        let value = if job.labels().contains_key(OUTCOME_LABEL) { None } else { Some("Complete") };
        let patch = Patch::Merge(json!({"metadata": {"labels": {OUTCOME_LABEL: value}}}));
        // Ignores a failure: the Job may be gone.
        let _ = scenario.env.namespace.jobs.patch(&job.name_any(), &PatchParams::default(), &patch).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn outcome_labels_changed() {
    repeat("the outcome label of random Jobs is removed or set", async |scenario, random| {
        tokio::join!(scenario.load(0, REQUESTS), async {
            for jobs in [10, 30, 50, 70] {
                scenario.until_jobs(jobs + random.usize(0..20) - 10).await;
                change_labels(scenario, random).await;
            }
        });
    })
    .await;
}

/// The Jobs leave the watch while no replica leads, so that the next leader has to find them.
#[tokio::test(flavor = "multi_thread")]
async fn outcome_labels_changed_while_the_leader_changes() {
    repeat("the outcome label of random Jobs is set while the leader changes", async |scenario, random| {
        scenario.add_replica().await;
        let names: Vec<String> = (0..6).map(|number| format!("wait-{number}")).collect();
        for name in &names {
            request(scenario, name, name).await;
        }
        for name in &names {
            scenario.env.until_last(name, "ADDED").await;
        }
        let scenario = &*scenario;
        tokio::join!(scenario.load(0, REQUESTS), async {
            scenario.until_jobs(20 + random.usize(0..20)).await;
            let (leader, _) = leader_and_follower(scenario, &scenario.replicas[0]).await;
            leader.kill().await;
            for name in &names {
                let patch = Patch::Merge(json!({"metadata": {"labels": {OUTCOME_LABEL: "Complete"}}}));
                scenario.env.namespace.jobs.patch(name, &PatchParams::default(), &patch).await.unwrap();
            }
            change_labels(scenario, random).await;
            leader.restart().await;
        });
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        scenario.complete(&names).await;
    })
    .await;
}

async fn recreate(scenario: &Scenario, name: String, id: String) {
    request(scenario, &name, &id).await;
    until_job_of(scenario, &name, &id).await;
    scenario.env.namespace.jobs.delete(&name, &DeleteParams::background()).await.unwrap();
    until_deleted(scenario, &name).await;
}

/// Requests Jobs of several names, deletes them and requests them again, repeatedly.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_deleted_and_recreated() {
    repeat("Jobs are deleted and recreated under the same name", async |scenario, random| {
        let (scenario, wait) = (&*scenario, random.bool());
        tokio::join!(scenario.load(0, REQUESTS), async {
            for round in 0..4 {
                // A Job named `wait-*` never finishes, so it is deleted unfinished. A Job named
                // `again-*` finishes immediately, so its end and its deletion race.
                let name = if wait { "wait" } else { "again" };
                let again =
                    (0..6).map(|n| recreate(scenario, format!("{name}-{n}"), format!("{name}-{n}-{round}")));
                futures::future::join_all(again).await;
            }
        });
    })
    .await;
}

/// Kubernetes deletes a Job with the TTL 0 as soon as it finishes, even before its outcome is
/// published.
#[tokio::test(flavor = "multi_thread")]
async fn ttl_set_to_zero() {
    repeat("the TTL of Jobs is manually set to 0", async |scenario, random| {
        let names: Vec<String> = (0..40).map(|number| format!("wait-{number}")).collect();
        tokio::join!(scenario.load(0, REQUESTS), async {
            for name in &names {
                request(scenario, name, name).await;
            }
            for name in &names {
                scenario.env.job(name).await;
                let ttl = Patch::Merge(json!({"spec": {"ttlSecondsAfterFinished": 0}}));
                scenario.env.namespace.jobs.patch(name, &PatchParams::default(), &ttl).await.unwrap();
            }
            let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
            random.shuffle(&mut names);
            scenario.complete(&names).await;
        });
    })
    .await;
}
