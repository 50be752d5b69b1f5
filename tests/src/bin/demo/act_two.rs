//! Act two: the dispatcher is killed while Jobs run, and misses their ends.

use std::time::{Duration, Instant};

use dispatcher_tests::wait::try_until;
use kube::api::DeleteParams;

use crate::audience::Audience;
use crate::client::Client;
use crate::screen::Screen;
use crate::stage::Stage;

/// Three that end by themselves while the dispatcher is down, and one that is deleted meanwhile.
pub(crate) const ENDING: [&str; 3] = ["simple-job-a", "simple-job-b", "simple-job-c"];
pub(crate) const DELETED: &str = "simple-job-d";

const REQUESTS: [&str; 4] = [r#"{"foo":"a"}"#, r#"{"foo":"b"}"#, r#"{"foo":"c"}"#, r#"{"foo":"d"}"#];
/// For Jobs that run for two seconds.
const END: Duration = Duration::from_secs(60);

/// All of them.
pub(crate) fn jobs() -> impl Iterator<Item = &'static str> {
    ENDING.into_iter().chain([DELETED])
}

pub(crate) async fn play(
    screen: &Screen,
    stage: &Stage,
    client: &Client,
    audience: &Audience,
) -> Result<(), String> {
    screen.title("Act two, while the failing Job goes on: the dispatcher is killed");
    screen.command(r#"for foo in a b c d; do nats req jobs.simple.create '{"foo":"'$foo'"}'; done"#, "");
    screen.plain("");
    screen.heading();
    for payload in REQUESTS {
        client.request_job(payload).await?;
    }
    audience.until(|board| jobs().all(|job| board.ran.contains(job))).await;

    stage.dispatcher.kill().await;
    screen.note("the dispatcher is killed (SIGKILL) while these Jobs run; nobody watches them now");
    let delete = stage.namespace.jobs.delete(DELETED, &DeleteParams::background()).await;
    delete.map_err(|error| format!("deleting {DELETED}: {error}"))?;
    screen.note(&format!("kubectl delete job {DELETED}"));
    until_ended(stage).await?;
    let told = outcomes(client).await?;
    screen.note(&format!("the other three have ended; outcomes in JOB_STATUS: {told}"));

    let start = Instant::now();
    screen.note("the dispatcher is started again");
    stage.dispatcher.restart().await;
    audience.until(|board| jobs().all(|job| board.outcomes.contains_key(job))).await;
    let (seconds, told) = (start.elapsed().as_secs_f64(), outcomes(client).await?);
    screen.note(&format!("{seconds:.1} s later all is told; outcomes in JOB_STATUS: {told}"));
    Ok(())
}

/// Until Kubernetes says that the Jobs are over, each in its way.
async fn until_ended(stage: &Stage) -> Result<(), String> {
    let jobs = &stage.namespace.jobs;
    for name in ENDING {
        try_until(&format!("{name} to end"), END, || async {
            let job = jobs.get_opt(name).await.map_err(|error| error.to_string())?;
            let conditions = job.and_then(|job| job.status).and_then(|status| status.conditions);
            let over = conditions.iter().flatten().any(|condition| condition.type_ == "Complete");
            over.then_some(()).ok_or_else(|| format!("{conditions:?}"))
        })
        .await?;
    }
    try_until(&format!("{DELETED} to be gone"), END, || async {
        let job = jobs.get_opt(DELETED).await.map_err(|error| error.to_string())?;
        job.map_or(Ok(()), |_| Err("it is there".to_owned()))
    })
    .await
}

/// How many outcomes of each of these Jobs are stored, for the reader.
async fn outcomes(client: &Client) -> Result<String, String> {
    let stored = client.stored().await?;
    let count = |job| stored.get(job).into_iter().flatten().filter(|event| event.outcome.is_some()).count();
    let counts = jobs().map(|job| format!("{} {}", job.trim_start_matches("simple-job-"), count(job)));
    Ok(counts.collect::<Vec<_>>().join(", "))
}
