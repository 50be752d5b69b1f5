//! Somebody deletes Jobs, asks for them anew under the same name, or gives them a TTL of 0; under load.

use dispatcher_tests::until;
use futures::{StreamExt, stream};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;

use crate::scenario::{Scenario, repeat};
use dispatcher_tests::wait::TIMEOUT;

/// How many requests are published at once; one in twenty is bad.
const REQUESTS: usize = 100;

/// The names of the Jobs that there are.
async fn names(scenario: &Scenario) -> Vec<String> {
    let list = scenario.env.namespace.jobs.list(&ListParams::default()).await.unwrap();
    list.items.iter().map(ResourceExt::name_any).collect()
}

async fn delete(scenario: &Scenario, names: &[String]) {
    let delete = async |name: &String| {
        // Its TTL may have been quicker.
        let _ = scenario.env.namespace.jobs.delete(name, &DeleteParams::background()).await;
    };
    stream::iter(names).map(delete).buffer_unordered(16).collect::<Vec<()>>().await;
}

/// Publishes a request of a Job with that name.
async fn ask(scenario: &Scenario, name: &str, id: &str) {
    let payload = json!({"foo": "x", "name": name}).to_string();
    scenario.recorder.publish("simple", payload, Some(id)).await.unwrap();
}

/// Waits for the Job of that name that a request became.
async fn until_job_of(scenario: &Scenario, name: &str, id: &str) {
    until(&format!("the Job {name} of the request {id}"), TIMEOUT, || async {
        let job = scenario.env.namespace.jobs.get(name).await.map_err(|error| error.to_string())?;
        let found = job.annotations().get("natsjobs.dev/request-id").cloned();
        if found.as_deref() == Some(id) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

async fn until_gone(scenario: &Scenario, name: &str) {
    until(&format!("the Job {name} to be gone"), TIMEOUT, || async {
        match scenario.env.namespace.jobs.get_opt(name).await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_deleted_by_hand() {
    repeat("Jobs are deleted by hand, whichever and whenever", async |scenario, random| {
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

async fn again(scenario: &Scenario, name: String, id: String) {
    ask(scenario, &name, &id).await;
    until_job_of(scenario, &name, &id).await;
    scenario.env.namespace.jobs.delete(&name, &DeleteParams::background()).await.unwrap();
    until_gone(scenario, &name).await;
}

/// Each of some names is asked for, its Job deleted, and asked for again by another request, several times.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_deleted_and_created_again_under_their_names() {
    repeat("Jobs are deleted and created again under the same name", async |scenario, random| {
        let (scenario, wait) = (&*scenario, random.bool());
        tokio::join!(scenario.load(0, REQUESTS), async {
            for round in 0..4 {
                // Those that wait are deleted while they run, the others after their end.
                let name = if wait { "wait" } else { "again" };
                let again =
                    (0..6).map(|n| again(scenario, format!("{name}-{n}"), format!("{name}-{n}-{round}")));
                futures::future::join_all(again).await;
            }
        });
    })
    .await;
}

/// As soon as it has ended it vanishes, however quick its outcome is told.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_get_a_ttl_of_0() {
    repeat("Jobs get a TTL of 0 by hand", async |scenario, random| {
        let names: Vec<String> = (0..40).map(|number| format!("wait-{number}")).collect();
        tokio::join!(scenario.load(0, REQUESTS), async {
            for name in &names {
                ask(scenario, name, name).await;
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
