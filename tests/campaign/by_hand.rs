//! Somebody deletes Jobs, asks for them anew under the same name, or gives them a TTL of 0; under load.

use dispatcher_tests::until;
use futures::{StreamExt, stream};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;

use crate::stage::{Stage, repeat};
use dispatcher_tests::wait::TIMEOUT;

/// How many requests are published at once; one in twenty is bad.
const REQUESTS: usize = 100;

/// The names of the Jobs that there are.
async fn names(stage: &Stage) -> Vec<String> {
    let list = stage.env.namespace.jobs.list(&ListParams::default()).await.unwrap();
    list.items.iter().map(ResourceExt::name_any).collect()
}

async fn delete(stage: &Stage, names: &[String]) {
    let delete = async |name: &String| {
        // Its TTL may have been quicker.
        let _ = stage.env.namespace.jobs.delete(name, &DeleteParams::background()).await;
    };
    stream::iter(names).map(delete).buffer_unordered(16).collect::<Vec<()>>().await;
}

/// Publishes a request of a Job with that name.
async fn ask(stage: &Stage, name: &str, id: &str) {
    let payload = json!({"foo": "x", "name": name}).to_string();
    stage.recorder.publish("simple", payload, Some(id)).await.unwrap();
}

/// Waits for the Job of that name that a request became.
async fn until_job_of(stage: &Stage, name: &str, id: &str) {
    until(&format!("the Job {name} of the request {id}"), TIMEOUT, || async {
        let job = stage.env.namespace.jobs.get(name).await.map_err(|error| error.to_string())?;
        let found = job.annotations().get("natsjobs.dev/request-id").cloned();
        if found.as_deref() == Some(id) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

async fn until_gone(stage: &Stage, name: &str) {
    until(&format!("the Job {name} to be gone"), TIMEOUT, || async {
        match stage.env.namespace.jobs.get_opt(name).await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_deleted_by_hand() {
    repeat("Jobs are deleted by hand, whichever and whenever", async |stage, random| {
        tokio::join!(stage.load(0, REQUESTS), async {
            for jobs in [10, 40, 70] {
                stage.until_jobs(jobs + random.usize(0..20) - 10).await;
                let names = names(stage).await;
                let some = random.choose_multiple(names, 8);
                delete(stage, &some).await;
            }
        });
    })
    .await;
}

async fn again(stage: &Stage, name: String, id: String) {
    ask(stage, &name, &id).await;
    until_job_of(stage, &name, &id).await;
    stage.env.namespace.jobs.delete(&name, &DeleteParams::background()).await.unwrap();
    until_gone(stage, &name).await;
}

/// Each of some names is asked for, its Job deleted, and asked for again by another request, several times.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_deleted_and_created_again_under_their_names() {
    repeat("Jobs are deleted and created again under the same name", async |stage, random| {
        let (stage, wait) = (&*stage, random.bool());
        tokio::join!(stage.load(0, REQUESTS), async {
            for round in 0..4 {
                // Those that wait are deleted while they run, the others after their end.
                let name = if wait { "wait" } else { "again" };
                let again =
                    (0..6).map(|n| again(stage, format!("{name}-{n}"), format!("{name}-{n}-{round}")));
                futures::future::join_all(again).await;
            }
        });
    })
    .await;
}

/// As soon as it has ended it vanishes, however quick its outcome is told.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_get_a_ttl_of_0() {
    repeat("Jobs get a TTL of 0 by hand", async |stage, random| {
        let names: Vec<String> = (0..40).map(|number| format!("wait-{number}")).collect();
        tokio::join!(stage.load(0, REQUESTS), async {
            for name in &names {
                ask(stage, name, name).await;
            }
            for name in &names {
                stage.env.job(name).await;
                let ttl = Patch::Merge(json!({"spec": {"ttlSecondsAfterFinished": 0}}));
                stage.env.namespace.jobs.patch(name, &PatchParams::default(), &ttl).await.unwrap();
            }
            let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
            random.shuffle(&mut names);
            stage.complete(&names).await;
        });
    })
    .await;
}
