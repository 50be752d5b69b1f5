//! `bench sync`: the cost of `sync_interval: always`. Alternates between a NATS server that syncs
//! each message to disk before its ack, and one with the default.

use std::time::Instant;

use async_nats::jetstream;
use dispatcher_tests::{Dispatcher, Kubernetes, Namespace, Nats, Options, paths};
use futures::{StreamExt, stream};
use serde_json::Value;

use crate::requests::{self, at, publish};
use crate::template;

/// The rounds of each side.
const ROUNDS: usize = 5;
/// Requests per round.
const ALONE: usize = 400;
const AT_ONCE: usize = 4_000;
const PUBLISHERS: usize = 64;
/// Requests per round whose `ADDED` is awaited, one after the other.
const TO_ADDED: usize = 100;

/// One side and its measurements.
struct Side {
    nats: Nats,
    context: jetstream::Context,
    /// The dispatcher and the namespace of its Jobs.
    dispatcher: Option<(Dispatcher, Namespace)>,
    alone: Vec<f64>,
    at_once: Vec<f64>,
    to_added: Vec<f64>,
}

pub(crate) async fn run() -> Result<(), String> {
    let kubernetes = Kubernetes::control_plane(Options::default()).await?;
    let folder = paths::temp_dir("bench")?;
    std::fs::write(folder.path().join("simple.yaml"), template()?).map_err(|error| error.to_string())?;
    let mut sides = [Side::start("").await, Side::start("jetstream {sync_interval: always}\n").await];
    println!("{ROUNDS} alternate rounds, stores in {}\n", std::env::temp_dir().display());
    for side in &sides {
        let file = paths::workspace().join("nats-config/JOBS.json");
        let config =
            std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let config: Value = serde_json::from_str(&config).map_err(|error| error.to_string())?;
        let made: Value =
            side.context.request("STREAM.CREATE.JOBS", &config).await.map_err(|error| error.to_string())?;
        if let Some(error) = made.get("error") {
            return Err(format!("stream JOBS: {error}"));
        }
    }
    for _ in 0..ROUNDS {
        for side in &mut sides {
            let rate = side.rate(ALONE, 1).await?;
            side.alone.push(rate);
            let rate = side.rate(AT_ONCE, PUBLISHERS).await?;
            side.at_once.push(rate);
        }
    }
    for side in &mut sides {
        let jobs = side.context.get_stream("JOBS").await.map_err(|error| error.to_string())?;
        jobs.purge().await.map_err(|error| error.to_string())?;
        let namespace = kubernetes.namespace().await;
        let builder = Dispatcher::builder(&side.nats, &namespace);
        let builder = builder.templates(folder.path()).env("RUST_LOG", "warn");
        side.dispatcher = Some((builder.try_start().await?, namespace));
    }
    for round in 0..ROUNDS {
        for side in &mut sides {
            let all = requests::to_added(&side.context, &format!("sync-{round}"), TO_ADDED).await?;
            side.to_added.extend(all);
        }
    }
    let [default, always] = sides;
    print(default, always);
    Ok(())
}

impl Side {
    async fn start(config: &str) -> Self {
        let nats = Nats::process_configured(config).await;
        let context = requests::context(&nats).await;
        Self { nats, context, dispatcher: None, alone: vec![], at_once: vec![], to_added: vec![] }
    }

    /// Publishes requests; returns acks per second.
    async fn rate(&self, count: usize, publishers: usize) -> Result<f64, String> {
        let start = Instant::now();
        let sent = stream::iter(0..count).map(|n| publish(&self.context, n)).buffer_unordered(publishers);
        sent.collect::<Vec<_>>().await.into_iter().collect::<Result<(), String>>()?;
        Ok(count as f64 / start.elapsed().as_secs_f64())
    }
}

fn print(default: Side, always: Side) {
    println!("  {:<44} {:>9} {:>9} {:>7}", "", "default", "always", "ratio");
    let line = |name: &str, default: f64, always: f64| {
        println!("  {name:<44} {default:>9.1} {always:>9.1} {:>7.2}", always / default);
    };
    line("requests acknowledged/s, 1 publisher", at(&default.alone, 0.5), at(&always.alone, 0.5));
    let name = format!("requests acknowledged/s, {PUBLISHERS} publishers");
    line(&name, at(&default.at_once, 0.5), at(&always.at_once, 0.5));
    for (name, part) in [("request to ADDED, p50, ms", 0.5), ("request to ADDED, p99, ms", 0.99)] {
        line(name, at(&default.to_added, part), at(&always.to_added, part));
    }
}
