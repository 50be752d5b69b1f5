//! `bench observed`: the cost of observability. Alternates between a dispatcher without it, one
//! whose metrics are scraped every second, and one that exports spans, each with its own NATS and
//! namespace.

use std::time::Duration;

use dispatcher_tests::otlp::Receiver;
use dispatcher_tests::{Dispatcher, process};
use tokio::time::{MissedTickBehavior, interval};

use crate::environment::{Installation, Jobs, Run, control_plane};
use crate::report::at;
use crate::requests;

/// The rounds of each side.
const ROUNDS: usize = 5;
/// Concurrent requests per round.
const JOBS: usize = 1000;
/// Requests per round whose `ADDED` is awaited, one after the other.
const TO_ADDED: usize = 100;
const BETWEEN_SCRAPES: Duration = Duration::from_secs(1);

/// One side and its measurements.
struct Side {
    name: &'static str,
    scraped: bool,
    dispatcher: Dispatcher,
    caller: requests::Caller,
    /// Per round: Jobs per second, and the dispatcher's CPU time per Job in microseconds.
    rates: Vec<f64>,
    cpu: Vec<f64>,
    to_added: Vec<f64>,
    installation: Installation,
}

pub(crate) async fn run(run: &Run) -> Result<(), String> {
    let kubernetes = control_plane().await?;
    let receiver = Receiver::start().await;
    let endpoint = receiver.endpoint();
    let mut sides = Vec::new();
    for (name, scraped, env) in [
        ("not observed", false, None),
        ("scraped every second", true, None),
        ("spans exported by OTLP", false, Some(("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()))),
    ] {
        let installation = Installation::new(&kubernetes, Jobs::Suspended).await?;
        let mut builder = installation.builder(run.ours()?);
        if let Some((name, value)) = env {
            builder = builder.env(name, value);
        }
        let dispatcher = builder.try_start().await?;
        let caller = requests::Caller::new(&installation.nats, "alone").await?;
        let (rates, cpu, to_added) = Default::default();
        sides.push(Side { name, scraped, dispatcher, caller, rates, cpu, to_added, installation });
    }
    println!("{JOBS} suspended Jobs, then {TO_ADDED} sequential requests; {ROUNDS} alternate rounds\n");
    for round in 0..=ROUNDS {
        for side in &mut sides {
            side.measure(round).await?;
        }
    }
    let sent = receiver.spans().len();
    if sent == 0 {
        return Err("no span was received".to_owned());
    }
    print(&sides);
    println!("\n  spans received: {sent}");
    Ok(())
}

impl Side {
    async fn measure(&mut self, round: usize) -> Result<(), String> {
        let pid = self.dispatcher.pid().await;
        let (context, caller) = (&self.installation.context, &mut self.caller);
        let work = async {
            let before = process::cpu_time(pid)?;
            let seconds = requests::burst(context, round * JOBS..(round + 1) * JOBS).await?;
            let cpu = process::cpu_time(pid)?.saturating_sub(before);
            let mut to_added = Vec::new();
            for _ in 0..TO_ADDED {
                to_added.push(caller.call().await?);
            }
            Ok::<_, String>((seconds, cpu, to_added))
        };
        let (seconds, cpu, to_added) = tokio::select! {
            done = work => done?,
            failed = scrape(&self.dispatcher), if self.scraped => return Err(failed),
        };
        // The first round is a warm-up.
        if round > 0 {
            self.rates.push(JOBS as f64 / seconds);
            self.cpu.push(cpu.as_secs_f64() * 1e6 / JOBS as f64);
            self.to_added.extend(to_added);
        }
        Ok(())
    }
}

/// Scrapes as Prometheus does; returns the first error.
async fn scrape(dispatcher: &Dispatcher) -> String {
    let mut pace = interval(BETWEEN_SCRAPES);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        match dispatcher.get("/metrics").await {
            Ok((200, _)) => {}
            other => return format!("/metrics: {other:?}"),
        }
    }
}

fn print(sides: &[Side]) {
    println!(
        "  {:<22} {:>7} {:>11} {:>22} {:>6}",
        "", "Jobs/s", "CPU per Job", "request to ADDED, p50", "p99"
    );
    for side in sides {
        println!(
            "  {:<22} {:>7.0} {:>8.0} us {:>19.1} ms {:>3.1} ms",
            side.name,
            at(&side.rates, 0.5),
            at(&side.cpu, 0.5),
            at(&side.to_added, 0.5),
            at(&side.to_added, 0.99)
        );
    }
}
