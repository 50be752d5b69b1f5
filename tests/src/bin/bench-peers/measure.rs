//! Measures a side: a burst of requests, and the delay of single ones.

use std::time::{Duration, Instant};

use dispatcher_tests::{Kubernetes, bare, process};
use tokio::time::{interval, sleep};

use crate::manifest::manifest_of;
use crate::running::Running;
use crate::side::{Side, Size};

/// How long the slowest side may take.
const DEADLINE: Duration = Duration::from_secs(180);

/// The number of concurrent creates of the bare client and of the dispatcher.
pub(crate) const IN_FLIGHT: usize = 64;

/// The result of a burst.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Burst {
    /// Jobs per second, from the first Job to the last one.
    pub(crate) rate: f64,
    /// CPU time of all its processes for each Job, in milliseconds.
    pub(crate) cpu_ms: f64,
    /// The memory of all its processes after the burst, in MiB.
    pub(crate) memory_mib: f64,
}

/// Sends many requests as one burst.
pub(crate) async fn burst(kubernetes: &Kubernetes, side: Side, size: &Size) -> Result<Burst, String> {
    let running = Running::start(kubernetes, side).await?;
    let count = size.burst(side);
    let (cpu, memory_mib) = if side == Side::Bare {
        let burst = bare::Burst { job: manifest_of(0)?, count, in_flight: IN_FLIGHT };
        let namespace = &running.namespace;
        let used = bare::burst(&namespace.dispatcher_kubeconfig, &namespace.name, &burst).await?;
        running.jobs.at_least(count, DEADLINE).await?;
        (used.cpu_seconds, used.memory_mib)
    } else {
        let pids = running.pids().await?;
        let before = cpu_time(&pids)?;
        running.requester.send_all(count).await?;
        let all = running.jobs.at_least(count, DEADLINE).await;
        all.map_err(|error| format!("{}: {error}\n{}", side.title(), running.logs()))?;
        (cpu_time(&pids)?.saturating_sub(before).as_secs_f64(), memory_mib(&pids)?)
    };
    let mut times: Vec<Instant> = running.jobs.all().iter().map(|job| job.at).collect();
    times.sort();
    let (first, last) = times.first().zip(times.last()).ok_or("no Job")?;
    let rate = (times.len() - 1) as f64 / last.duration_since(*first).as_secs_f64();
    let burst = Burst { rate, cpu_ms: cpu * 1000.0 / times.len() as f64, memory_mib };
    println!(
        "{:<50} {:>7.1} Jobs/s {:>6.2} ms CPU {:>6.1} MiB",
        side.title(),
        rate,
        burst.cpu_ms,
        memory_mib
    );
    running.end().await?;
    Ok(burst)
}

/// The delays from the publish of a request until its Job was watched, in milliseconds.
pub(crate) async fn delays(kubernetes: &Kubernetes, side: Side, size: &Size) -> Result<Vec<f64>, String> {
    let running = Running::start(kubernetes, side).await?;
    let (count, pause) = size.delays(side);
    let mut ticks = interval(pause);
    let mut sent = Vec::new();
    for number in 0..count {
        ticks.tick().await;
        sent.push(Instant::now());
        running.requester.send(number).await?;
    }
    let all = running.jobs.at_least(count, DEADLINE).await;
    all.map_err(|error| format!("{}: {error}\n{}", side.title(), running.logs()))?;
    // A second Job of a request would be seen soon.
    sleep(Duration::from_millis(100)).await;
    let mut jobs = running.jobs.all();
    if jobs.len() != count {
        return Err(format!("{}: {} Jobs of {count} requests", side.title(), jobs.len()));
    }
    jobs.sort_by_key(|job| (job.request, job.at));
    let delay = |(sent, at): (&Instant, Instant)| at.saturating_duration_since(*sent).as_secs_f64() * 1000.0;
    let mut delays: Vec<f64> = sent.iter().zip(jobs.iter().map(|job| job.at)).map(delay).collect();
    delays.sort_by(f64::total_cmp);
    println!("{:<50} p50 {:>8.1} ms, p99 {:>8.1} ms", side.title(), at(&delays, 0.5), at(&delays, 0.99));
    running.end().await?;
    Ok(delays)
}

/// The quantile of sorted values.
#[expect(clippy::cast_possible_truncation, reason = "an index of a small vector")]
pub(crate) fn at(sorted: &[f64], part: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * part).round() as usize).copied().unwrap_or(f64::NAN)
}

/// User and system time of all the processes.
fn cpu_time(pids: &[u32]) -> Result<Duration, String> {
    pids.iter().map(|pid| process::cpu_time(*pid)).sum()
}

/// The resident memory of all the processes.
fn memory_mib(pids: &[u32]) -> Result<f64, String> {
    pids.iter().map(|pid| process::memory(*pid).map(|memory| memory.now)).sum()
}
