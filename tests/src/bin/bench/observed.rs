//! `bench observed`: the cost of observability. Alternates between a dispatcher without it, one
//! whose metrics are scraped every second, and one that exports spans, each with its own NATS and
//! namespace.

use std::time::Duration;

use async_nats::jetstream;
use dispatcher_tests::otlp::Receiver;
use dispatcher_tests::{Dispatcher, Kubernetes, Namespace, Nats, Options, paths};
use tokio::time::{MissedTickBehavior, interval};

use crate::requests::{self, at};
use crate::{IN_FLIGHT, JOBS, template};

/// The rounds of each side.
const ROUNDS: usize = 5;
/// Requests per round whose `ADDED` is awaited, one after the other.
const TO_ADDED: usize = 100;
const BETWEEN_SCRAPES: Duration = Duration::from_secs(1);

/// One side and its measurements.
struct Side {
    name: &'static str,
    scraped: bool,
    dispatcher: Dispatcher,
    context: jetstream::Context,
    /// Per round: Jobs per second, and the dispatcher's CPU time per Job in microseconds.
    rates: Vec<f64>,
    cpu: Vec<f64>,
    to_added: Vec<f64>,
    _parts: (Nats, Namespace),
}

pub(crate) async fn run() -> Result<(), String> {
    let kubernetes = Kubernetes::control_plane(Options::default()).await?;
    let folder = paths::temp_dir("bench")?;
    std::fs::write(folder.path().join("simple.yaml"), template()?).map_err(|error| error.to_string())?;
    let receiver = Receiver::start().await;
    let endpoint = receiver.endpoint();
    let mut sides = Vec::new();
    for (name, scraped, env) in [
        ("not observed", false, None),
        ("scraped every second", true, None),
        ("spans exported by OTLP", false, Some(("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()))),
    ] {
        let (nats, namespace) = (Nats::process().await, kubernetes.namespace().await);
        let mut builder = Dispatcher::builder(&nats, &namespace).templates(folder.path());
        for (name, value) in
            [("DISPATCHER_CONCURRENCY", IN_FLIGHT.to_string().as_str()), ("RUST_LOG", "warn")]
                .into_iter()
                .chain(env)
        {
            builder = builder.env(name, value);
        }
        let dispatcher = builder.try_start().await?;
        let context = requests::context(&nats).await;
        let (rates, cpu, to_added) = Default::default();
        sides.push(Side {
            name,
            scraped,
            dispatcher,
            context,
            rates,
            cpu,
            to_added,
            _parts: (nats, namespace),
        });
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
        let name = format!("alone-{round}");
        let work = async {
            let burst = requests::burst(&self.context, pid, round * JOBS..(round + 1) * JOBS).await?;
            Ok::<_, String>((burst, requests::to_added(&self.context, &name, TO_ADDED).await?))
        };
        let (burst, to_added) = tokio::select! {
            done = work => done?,
            failed = scrape(&self.dispatcher), if self.scraped => return Err(failed),
        };
        // The first round is a warm-up.
        if round > 0 {
            self.rates.push(JOBS as f64 / burst.seconds);
            self.cpu.push(burst.cpu * 1e6 / JOBS as f64);
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
