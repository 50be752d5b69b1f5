//! `bench viewers`: what viewers of the console cost. In alternate rounds, the pods of many Jobs end
//! at the same time: without the console, with it, and with 50 viewers of its live board.
//!
//! A viewer reads everything, as the page does. The viewers run in the process of the benchmark.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dispatcher_tests::{Dispatcher, Kubernetes, process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::attempts::{delays, end_all};
use crate::environment::{Installation, Jobs, Run, control_plane, until_synced};
use crate::report::at;

const VIEWERS: usize = 50;

/// One side and its measurements.
struct Side {
    name: &'static str,
    console: &'static str,
    viewers: usize,
    /// The seconds from the end of each pod until its event is stored.
    attempts: Vec<f64>,
    outcomes: Vec<f64>,
    /// Per round: the dispatcher's CPU time per Job in milliseconds, and the bytes of a viewer.
    cpu: Vec<f64>,
    bytes: Vec<f64>,
}

pub(crate) async fn run(run: &Run) -> Result<(), String> {
    let (burst, rounds) = (run.size.burst, run.size.rounds.min(3));
    let kubernetes = control_plane().await?;
    kubernetes.freeze("scheduler").await;
    let side = |name, console, viewers| {
        let (attempts, outcomes, cpu, bytes) = Default::default();
        Side { name, console, viewers, attempts, outcomes, cpu, bytes }
    };
    let mut sides =
        [side("no console", "off", 0), side("no viewer", "read", 0), side("50 viewers", "read", VIEWERS)];
    println!("the pods of {burst} Jobs end concurrently; {rounds} alternate rounds\n");
    for round in 0..=rounds {
        for side in &mut sides {
            side.measure(run, &kubernetes, burst, round > 0).await?;
        }
        // The next round in the other order.
        sides.reverse();
    }
    sides.sort_by_key(|side| (side.viewers, side.console != "off"));
    print(&sides);
    Ok(())
}

impl Side {
    async fn measure(
        &mut self,
        run: &Run,
        kubernetes: &Kubernetes,
        burst: usize,
        counts: bool,
    ) -> Result<(), String> {
        let installation = Installation::new(kubernetes, Jobs::WithPods).await?;
        let builder = installation.builder(run.ours()?).env("DISPATCHER_CONSOLE", self.console);
        let dispatcher = builder.try_start().await?;
        until_synced(&dispatcher).await?;
        let read = Arc::new(AtomicU64::new(0));
        let _viewers = watch(&dispatcher, self.viewers, &read).await?;
        let pid = dispatcher.pid().await;
        let before = process::cpu_time(pid)?;
        let (ended, stored) = end_all(&installation, burst).await?;
        let cpu = process::cpu_time(pid)?.saturating_sub(before);
        // The first round is a warm-up.
        println!("    {}: {burst} Jobs, {:.2} s of CPU time", self.name, cpu.as_secs_f64());
        if counts {
            self.attempts.extend(delays(&ended, stored.get("ATTEMPT"), "ATTEMPT")?);
            self.outcomes.extend(delays(&ended, stored.get("OUTCOME"), "OUTCOME")?);
            self.cpu.push(cpu.as_secs_f64() * 1000.0 / burst as f64);
            self.bytes.push(read.load(Ordering::Relaxed) as f64 / self.viewers.max(1) as f64);
        }
        Ok(())
    }
}

/// Opens the live board this many times. The viewers end when the result is dropped.
async fn watch(
    dispatcher: &Dispatcher,
    viewers: usize,
    read: &Arc<AtomicU64>,
) -> Result<JoinSet<()>, String> {
    let address = dispatcher.admin_url.trim_start_matches("http://");
    let mut tasks = JoinSet::new();
    for _ in 0..viewers {
        let failed = |error: std::io::Error| format!("viewer: {error}");
        let mut stream = TcpStream::connect(address).await.map_err(failed)?;
        let request = format!("GET /console/api/live HTTP/1.1\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.map_err(failed)?;
        let mut status = [0; 15];
        stream.read_exact(&mut status).await.map_err(failed)?;
        if &status != b"HTTP/1.1 200 OK" {
            return Err(format!("viewer: {}", String::from_utf8_lossy(&status)));
        }
        let read = read.clone();
        tasks.spawn(async move {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                read.fetch_add(count as u64, Ordering::Relaxed);
            }
        });
    }
    Ok(tasks)
}

fn print(sides: &[Side]) {
    println!(
        "  {:<11} {:>14} {:>8} {:>14} {:>8} {:>12} {:>14}",
        "", "ATTEMPT, p50", "p99", "OUTCOME, p50", "p99", "CPU per Job", "per viewer"
    );
    for side in sides {
        let [attempts, outcomes] = [&side.attempts, &side.outcomes];
        println!(
            "  {:<11} {:>11.0} ms {:>5.0} ms {:>11.0} ms {:>5.0} ms {:>9.2} ms {:>10.0} KiB",
            side.name,
            at(attempts, 0.5) * 1000.0,
            at(attempts, 0.99) * 1000.0,
            at(outcomes, 0.5) * 1000.0,
            at(outcomes, 0.99) * 1000.0,
            at(&side.cpu, 0.5),
            at(&side.bytes, 0.5) / 1024.0,
        );
    }
    if let [off, .., viewers] = sides {
        let ratio = |values: fn(&Side) -> &Vec<f64>, part| at(values(viewers), part) / at(values(off), part);
        println!(
            "\n  50 viewers to no console: ATTEMPT p99 {:.2}, OUTCOME p99 {:.2}, CPU {:.2}",
            ratio(|side| &side.attempts, 0.99),
            ratio(|side| &side.outcomes, 0.99),
            ratio(|side| &side.cpu, 0.5)
        );
    }
}
