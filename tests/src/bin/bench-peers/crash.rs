//! Kills all processes of a side in the middle of its requests and restarts them immediately,
//! as the kubelet does. Then it counts the Jobs.

use std::time::{Duration, Instant};

use dispatcher_tests::Kubernetes;
use futures::future::join;
use tokio::time::sleep;

use crate::jobs::lost_and_duplicated;
use crate::running::Running;
use crate::side::{Side, Size};

/// Longer than the time after which `JetStream` redelivers: 60 s to the dispatcher, 30 s to a Sensor.
const QUIET: Duration = Duration::from_secs(75);
const DEADLINE: Duration = Duration::from_secs(300);
/// A slow side is killed earlier.
const AT_LATEST: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(5);

/// The Jobs after a crash.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crash {
    /// The Jobs at the time of the kill.
    pub(crate) at_kill: usize,
    /// The requests without a Job.
    pub(crate) lost: usize,
    /// The Jobs beyond one per request.
    pub(crate) duplicated: usize,
}

/// Crashes each side. They wait for late Jobs at the same time.
pub(crate) async fn all(
    kubernetes: &Kubernetes,
    sides: &[Side],
    size: &Size,
) -> Result<Vec<(Side, Crash)>, String> {
    let mut begun = Vec::new();
    for side in sides.iter().copied() {
        let running = Running::start(kubernetes, side).await?;
        let at_kill = begin(&running, size.crash_requests).await;
        let at_kill = at_kill.map_err(|error| format!("{}: {error}\n{}", side.title(), running.logs()))?;
        begun.push((side, running, at_kill));
    }
    let mut results = Vec::new();
    for (side, running, at_kill) in begun {
        if side == Side::Dispatcher {
            // Until then, a missing Job is not lost.
            running.requester.drained("JOBS", DEADLINE).await?;
        }
        running.jobs.quiet(QUIET, DEADLINE).await?;
        let jobs = running.jobs.all();
        let (lost, duplicated) = lost_and_duplicated(&jobs, size.crash_requests, side.knows_requests());
        let crash = Crash { at_kill, lost, duplicated };
        println!("{:<50} {crash:?}", side.title());
        results.push((side, crash));
        running.end().await?;
    }
    Ok(results)
}

/// Sends the requests, and kills once half of them are Jobs.
async fn begin(running: &Running, requests: usize) -> Result<usize, String> {
    let (sent, at_kill) = join(running.requester.send_all(requests), kill(running, requests / 2)).await;
    sent.and(at_kill)
}

/// Kills once there are this many Jobs; returns their number.
async fn kill(running: &Running, jobs: usize) -> Result<usize, String> {
    running.jobs.at_least(1, DEADLINE).await?;
    let end = Instant::now() + AT_LATEST;
    while running.jobs.count() < jobs && Instant::now() < end {
        sleep(POLL).await;
    }
    for process in &running.processes {
        process.kill().await?;
    }
    let at_kill = running.jobs.count();
    for process in &running.processes {
        process.restart().await?;
    }
    Ok(at_kill)
}
