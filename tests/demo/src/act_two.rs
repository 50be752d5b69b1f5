//! Act two: the dispatcher is killed while Jobs run, and misses their ends.

use kube::api::DeleteParams;
use kube::runtime::conditions::{is_deleted, is_job_completed};
use kube::runtime::wait::await_condition;

use crate::Scene;
use crate::client::Client;
use crate::summary::Expected;

/// Three that end by themselves while the dispatcher is down, and one that is deleted meanwhile.
const ENDING: [&str; 3] = ["simple-job-a", "simple-job-b", "simple-job-c"];
const DELETED: &str = "simple-job-d";
const REQUESTS: [&str; 4] = [r#"{"foo":"a"}"#, r#"{"foo":"b"}"#, r#"{"foo":"c"}"#, r#"{"foo":"d"}"#];

/// What must have become of its Jobs.
pub(crate) const JOBS: [Expected; 4] = [
    Expected { job: ENDING[0], result: "Complete", reason: Some("CompletionsReached") },
    Expected { job: ENDING[1], result: "Complete", reason: Some("CompletionsReached") },
    Expected { job: ENDING[2], result: "Complete", reason: Some("CompletionsReached") },
    Expected { job: DELETED, result: "Deleted", reason: None },
];

/// Plays it.
pub(crate) async fn play(scene: &Scene) -> Result<(), String> {
    let Scene { screen, stage, client, audience } = scene;
    screen.title("Act two, while the failing Job goes on: the dispatcher is killed");
    screen.command(r#"for foo in a b c d; do nats req jobs.simple.create '{"foo":"'$foo'"}'; done"#);
    for payload in REQUESTS {
        client.request_job(payload).await?;
    }
    audience.until(|board| names().all(|job| board.ran.contains(job))).await;

    let starts = stage.starts();
    let pid = stage.kill_dispatcher()?;
    screen.command(&format!(
        "kill -9 {pid}                      # the dispatcher; nobody watches the Jobs now"
    ));
    let jobs = stage.jobs();
    let uid = jobs.get(DELETED).await.ok().and_then(|job| job.metadata.uid).unwrap_or_default();
    screen.command(&format!("kubectl delete job {DELETED}"));
    let deleted = jobs.delete(DELETED, &DeleteParams::background()).await;
    deleted.map_err(|error| format!("deleting {DELETED}: {error}"))?;
    let gone = await_condition(jobs.clone(), DELETED, is_deleted(&uid)).await;
    gone.map_err(|error| format!("watching {DELETED}: {error}"))?;
    for job in ENDING {
        let ended = await_condition(jobs.clone(), job, is_job_completed()).await;
        ended.map_err(|error| format!("watching {job}: {error}"))?;
    }
    let told = outcomes(client).await?;
    let when = if stage.starts() == starts { "while it is down" } else { "although it is back already" };
    screen.note(&format!("{when}, the other three end; outcomes in JOB_STATUS: {told}"));

    stage.until_started_again(starts).await;
    screen.note("the dispatcher is started again");
    audience.until(|board| names().all(|job| board.outcomes.contains_key(job))).await;
    screen.note(&format!("it has told what it missed; outcomes in JOB_STATUS: {}", outcomes(client).await?));
    Ok(())
}

/// All of them.
fn names() -> impl Iterator<Item = &'static str> {
    JOBS.iter().map(|expected| expected.job)
}

/// How many outcomes of each of these Jobs are stored, for the reader.
async fn outcomes(client: &Client) -> Result<String, String> {
    let stored = client.stored().await?;
    let count = |job| stored.get(job).into_iter().flatten().filter(|event| event.outcome.is_some()).count();
    let counts = names().map(|job| format!("{} {}", job.trim_start_matches("simple-job-"), count(job)));
    Ok(counts.collect::<Vec<_>>().join(", "))
}
