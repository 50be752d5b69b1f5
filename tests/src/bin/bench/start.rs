//! `bench finished` and `bench history`: starts and take-overs with many finished Jobs, and with
//! the history of earlier Jobs.

use std::time::Instant;

use dispatcher_tests::Dispatcher;

use crate::environment::{Jobs, Run, idle_memory, stop, timed_start, until_leader, until_synced};
use crate::history::History;
use crate::report::{Curve, Goal, Results, Row};
use crate::size::Size;
use crate::states::{FINISHED, LIVE, States};

/// Starts with finished Jobs, without and with their pods.
pub(crate) async fn finished(run: &Run) -> Result<Results, String> {
    let mut results = Results::default();
    for with_pods in [false, true] {
        let pods = if with_pods { "with their pods" } else { "without pods" };
        let mut start =
            Curve::new(&format!("Start until synced with finished Jobs {pods}"), "finished Jobs", "s");
        let mut memory =
            Curve::new(&format!("Resident memory with finished Jobs {pods}"), "finished Jobs", "MiB");
        let (states, ours) = States::new(run.ours()?, Jobs::Managed).await?;
        let sample = states.sample_job(FINISHED).await?;
        let [job, pod] = states.finish(&sample).await?;
        let samples = if with_pods { vec![job, pod] } else { vec![job] };
        stop(&ours).await?;
        let dispatchers = start_and_stop_all(run, &states, ours).await?;
        let mut from = 1;
        for finished in run.size.finished {
            states.copy_unwatched(&sample, &samples, from, *finished).await?;
            from = *finished + 1;
            for _ in 0..run.size.rounds {
                for (side, dispatcher) in &dispatchers {
                    start.add(side, *finished, timed_start(dispatcher).await?);
                    memory.add(side, *finished, idle_memory(dispatcher).await?);
                    stop(dispatcher).await?;
                }
            }
            println!("    {finished} finished Jobs {pods}: done");
        }
        for (finished, goal) in run.size.finished.iter().map(|finished| (*finished, Goal::AtMost(0.4))) {
            let title = format!("start until synced with {finished} finished Jobs {pods}");
            results.rows.push(row_of(&start, finished, Row::new(&title, "s").goal(goal)));
        }
        results.curves.extend([start, memory]);
    }
    Ok(results)
}

/// Dispatchers of all sides that have run once, and use the same NATS and namespace by turns.
async fn start_and_stop_all(
    run: &Run,
    states: &States,
    ours: Dispatcher,
) -> Result<Vec<(&'static str, Dispatcher)>, String> {
    let mut all = vec![(run.ours()?.side, ours)];
    for program in run.dispatchers.iter().skip(1) {
        let dispatcher = states.installation.start(program).await?;
        stop(&dispatcher).await?;
        all.push((program.side, dispatcher));
    }
    Ok(all)
}

/// The samples of a curve at one place.
fn row_of(curve: &Curve, x: usize, mut row: Row) -> Row {
    for (side, points) in &curve.lines {
        let samples = points.iter().find(|point| point.x == x as f64).map(|point| &point.samples);
        samples.into_iter().flatten().for_each(|value| row.add(side, *value));
    }
    row
}

/// Starts and take-overs with the largest number of live Jobs and a growing history.
pub(crate) async fn history(run: &Run) -> Result<Results, String> {
    let live = Size::largest(run.size.live);
    let x = "subjects in JOB_STATUS";
    let with = format!("with {live} live Jobs");
    let mut start = Curve::new(&format!("Cold start until synced {with}"), x, "s");
    let mut take_over = Curve::new(&format!("Take-over until synced {with}"), x, "s");
    let mut memory = Curve::new(&format!("Resident memory {with}"), x, "MiB");
    let (states, ours) = States::new(run.ours()?, Jobs::Managed).await?;
    let finished = states.sample_job(FINISHED).await?;
    states.finish(&finished).await?;
    let mut subjects = History::of(&states.installation.context, &finished).await?;
    states.add_live(&states.sample_job(LIVE).await?, 1, live - 1).await?;
    stop(&ours).await?;
    let dispatchers = start_and_stop_all(run, &states, ours).await?;
    for history in run.size.history {
        subjects.extend(*history).await?;
        for _ in 0..run.size.rounds.min(3) {
            for (side, dispatcher) in &dispatchers {
                start.add(side, *history, timed_start(dispatcher).await?);
                memory.add(side, *history, idle_memory(dispatcher).await?);
                let program = run.dispatchers.iter().find(|program| program.side == *side);
                let follower = states.installation.builder(program.ok_or("no such side")?);
                let follower = follower.try_start().await?;
                idle_memory(&follower).await?;
                take_over.add(side, *history, taken_over(dispatcher, &follower).await?);
                stop(&follower).await?;
            }
        }
        println!("    {history} subjects: done");
    }
    let most = Size::largest(run.size.history);
    let title = format!("until synced, {live} live Jobs, {most} subjects in JOB_STATUS");
    let cold = Row::new(&format!("cold start {title}"), "s").goal(Goal::AtMost(10.0));
    let taken = Row::new(&format!("take-over {title}"), "s").goal(Goal::AtMost(2.0));
    let rows = vec![row_of(&start, most, cold), row_of(&take_over, most, taken)];
    Ok(Results { rows, curves: vec![start, take_over, memory] })
}

/// Stops the leader; the seconds from the moment when the follower leads until it is synced.
async fn taken_over(leader: &Dispatcher, follower: &Dispatcher) -> Result<f64, String> {
    let (stopped, followed) = tokio::join!(stop(leader), async {
        until_leader(follower, |state| state.leads).await?;
        let start = Instant::now();
        until_synced(follower).await.map(|()| start.elapsed().as_secs_f64())
    });
    stopped?;
    followed
}
