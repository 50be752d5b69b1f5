//! `bench live` and `bench frozen`: memory of live Jobs, and of their changes while NATS is frozen.

use dispatcher_tests::job_controller::START_TIME;
use dispatcher_tests::process;
use serde_json::{Value, json};

use crate::environment::{Jobs, Program, Run, idle_memory, stop, timed_start};
use crate::report::{Curve, Goal, Results, Row};
use crate::size::Size;
use crate::states::{LIVE, States};

const KIB_PER_MIB: f64 = 1024.0;

/// Live Jobs whose `ADDED` the running dispatcher publishes; after each step, starts with them.
pub(crate) async fn memory(run: &Run) -> Result<Results, String> {
    let mut idle = Row::new("resident memory, idle", "MiB").goal(Goal::AtMost(20.0));
    let most = Size::largest(run.size.live);
    let title = format!("resident memory per live Job, {most} live Jobs");
    let mut per_job = Row::new(&format!("{title}, added while it runs"), "KiB").goal(Goal::AtMost(1.0));
    let mut restarted = Row::new(&format!("{title}, after a restart"), "KiB").goal(Goal::AtMost(1.0));
    let mut memory = Curve::new("Resident memory with live Jobs, after a restart", "live Jobs", "MiB");
    let mut start = Curve::new("Start until synced with live Jobs", "live Jobs", "s");
    for program in &run.dispatchers {
        let side = program.side;
        let (states, dispatcher) = States::new(program, Jobs::Suspended).await?;
        let job = states.sample_job(LIVE).await?;
        stop(&dispatcher).await?;
        dispatcher.restart().await;
        let empty = idle_memory(&dispatcher).await?;
        idle.add(side, empty);
        let mut from = 1;
        for live in run.size.live {
            states.add_live(&job, from, *live - 1).await?;
            from = *live;
            let running = idle_memory(&dispatcher).await?;
            for _ in 0..run.size.rounds.min(3) {
                stop(&dispatcher).await?;
                start.add(side, *live, timed_start(&dispatcher).await?);
                let anew = idle_memory(&dispatcher).await?;
                memory.add(side, *live, anew);
                if *live == most {
                    restarted.add(side, (anew - empty) * KIB_PER_MIB / most as f64);
                }
            }
            if *live == most {
                per_job.add(side, (running - empty) * KIB_PER_MIB / most as f64);
            }
            println!("    {side}: {live} live Jobs: {running:.1} MiB");
        }
    }
    Ok(Results { rows: vec![idle, per_job, restarted], curves: vec![memory, start] })
}

/// Every Job passes four states while NATS does not answer; the last one is final.
const STATES: u32 = 4;

pub(crate) async fn frozen(run: &Run) -> Result<Results, String> {
    let title =
        format!("peak memory while NATS is frozen and {} Jobs change {STATES} times", run.size.changed);
    let mut frozen = Row::new(&title, "MiB").goal(Goal::AtMost(64.0));
    let mut after = Row::new("peak memory from then until every outcome is published", "MiB");
    for program in &run.dispatchers {
        let (peak, later) = change_all(run, program).await?;
        frozen.add(program.side, peak);
        after.add(program.side, later);
    }
    Ok(Results { rows: vec![frozen, after], curves: vec![] })
}

async fn change_all(run: &Run, program: &Program) -> Result<(f64, f64), String> {
    let (states, dispatcher) = States::new(program, Jobs::Managed).await?;
    let job = states.sample_job(LIVE).await?;
    states.add_live(&job, 1, run.size.changed - 1).await?;
    stop(&dispatcher).await?;
    timed_start(&dispatcher).await?;
    let pid = dispatcher.pid().await;
    process::reset_peak(pid)?;
    states.installation.nats.pause().await;
    for state in 1..=STATES {
        states.set_status(&job, &status(state)).await?;
        states.copy(&job, &[states.stored(&job).await?], 1, run.size.changed - 1).await?;
    }
    idle_memory(&dispatcher).await?;
    let frozen = process::memory(pid)?.peak;
    states.installation.nats.unpause().await;
    states.installation.until_retired().await?;
    Ok((frozen, process::memory(pid)?.peak))
}

fn status(state: u32) -> Value {
    if state == STATES {
        let message = "Job has reached the specified backoff limit";
        return dispatcher_tests::job_controller::finished_status(
            "Failed",
            state,
            "BackoffLimitExceeded",
            message,
        );
    }
    json!({"startTime": START_TIME, "active": 1, "ready": state % 2, "failed": state - 1, "terminating": 0})
}
