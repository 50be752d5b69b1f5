//! Part 2: the dispatcher is killed while Jobs run, and publishes the missed outcomes after its
//! restart.

use kube::api::DeleteParams;
use kube::runtime::conditions::{is_deleted, is_job_completed};
use kube::runtime::wait::await_condition;

use crate::Demo;
use crate::client::Client;
use crate::summary::ExpectedJob;

/// Three Jobs that complete during the downtime, and one that is deleted.
const COMPLETED: [&str; 3] = ["simple-job-a", "simple-job-b", "simple-job-c"];
const DELETED: &str = "simple-job-d";
const REQUESTS: [&str; 4] = [r#"{"foo":"a"}"#, r#"{"foo":"b"}"#, r#"{"foo":"c"}"#, r#"{"foo":"d"}"#];

/// The expected outcomes.
pub(crate) const JOBS: [ExpectedJob; 4] = [
    ExpectedJob { name: COMPLETED[0], result: "Complete", reason: Some("CompletionsReached") },
    ExpectedJob { name: COMPLETED[1], result: "Complete", reason: Some("CompletionsReached") },
    ExpectedJob { name: COMPLETED[2], result: "Complete", reason: Some("CompletionsReached") },
    ExpectedJob { name: DELETED, result: "Deleted", reason: None },
];

/// Kills the dispatcher, ends its Jobs, and waits for the outcomes.
pub(crate) async fn run(demo: &Demo) -> Result<(), String> {
    let Demo { screen, system, client, watcher } = demo;
    screen.title("Part 2: the dispatcher is killed while Jobs run");
    screen.command(r#"for foo in a b c d; do nats req jobs.simple.create '{"foo":"'$foo'"}'; done"#);
    for payload in REQUESTS {
        client.request_job(payload).await?;
    }
    watcher.until(|board| names().all(|job| board.started.contains(job))).await;

    let starts = system.dispatcher_starts();
    let pid = system.kill_dispatcher()?;
    screen.command(&format!("kill -9 {pid}                      # the dispatcher; nothing watches the Jobs"));
    let jobs = system.jobs();
    let uid = jobs.get(DELETED).await.ok().and_then(|job| job.metadata.uid).unwrap_or_default();
    screen.command(&format!("kubectl delete job {DELETED}"));
    let deleted = jobs.delete(DELETED, &DeleteParams::background()).await;
    deleted.map_err(|error| format!("cannot delete Job {DELETED}: {error}"))?;
    let gone = await_condition(jobs.clone(), DELETED, is_deleted(&uid)).await;
    gone.map_err(|error| format!("cannot watch Job {DELETED}: {error}"))?;
    for job in COMPLETED {
        let completed = await_condition(jobs.clone(), job, is_job_completed()).await;
        completed.map_err(|error| format!("cannot watch Job {job}: {error}"))?;
    }
    let stored = outcomes(client).await?;
    let when = if system.dispatcher_starts() == starts { "during the downtime" } else { "after the restart" };
    screen.note(&format!("the other three Jobs completed {when}; outcomes in JOB_STATUS: {stored}"));

    system.until_restarted(starts).await;
    screen.note("the dispatcher is restarted");
    watcher.until(|board| names().all(|job| board.outcomes.contains_key(job))).await;
    let stored = outcomes(client).await?;
    screen.note(&format!("it published the missed outcomes; outcomes in JOB_STATUS: {stored}"));
    Ok(())
}

fn names() -> impl Iterator<Item = &'static str> {
    JOBS.iter().map(|expected| expected.name)
}

/// The number of stored outcomes of each Job, as text.
async fn outcomes(client: &Client) -> Result<String, String> {
    let stored = client.stored_events().await?;
    let count = |job| stored.get(job).into_iter().flatten().filter(|event| event.outcome.is_some()).count();
    let counts = names().map(|job| format!("{} {}", job.trim_start_matches("simple-job-"), count(job)));
    Ok(counts.collect::<Vec<_>>().join(", "))
}
