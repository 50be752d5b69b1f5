//! `bench sync`: the cost of `sync_interval: always`. Alternates between a NATS server that syncs
//! each message to disk before its ack, and one with the default.

use std::time::Instant;

use dispatcher_tests::{Dispatcher, Kubernetes, Nats, paths};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::Value;

use crate::environment::{Installation, Jobs, Run, control_plane};
use crate::report::at;
use crate::requests::{self, publish};

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
    installation: Installation,
    caller: requests::Caller,
    dispatcher: Option<Dispatcher>,
    alone: Vec<f64>,
    at_once: Vec<f64>,
    to_added: Vec<f64>,
}

pub(crate) async fn run(run: &Run) -> Result<(), String> {
    let kubernetes = control_plane().await?;
    let mut sides = [
        Side::start(&kubernetes, "").await?,
        Side::start(&kubernetes, "jetstream {sync_interval: always}\n").await?,
    ];
    println!("{ROUNDS} alternate rounds, stores in {}\n", std::env::temp_dir().display());
    for _ in 0..ROUNDS {
        for side in &mut sides {
            let rate = side.rate(ALONE, 1).await?;
            side.alone.push(rate);
            let rate = side.rate(AT_ONCE, PUBLISHERS).await?;
            side.at_once.push(rate);
        }
    }
    for side in &mut sides {
        let jobs = side.installation.context.get_stream("JOBS").await.map_err(|error| error.to_string())?;
        jobs.purge().await.map_err(|error| error.to_string())?;
        side.dispatcher = Some(side.installation.start(run.ours()?).await?);
    }
    for _ in 0..ROUNDS {
        for side in &mut sides {
            for _ in 0..TO_ADDED {
                side.to_added.push(side.caller.call().await?);
            }
        }
    }
    let [default, always] = sides;
    print(default, always);
    Ok(())
}

impl Side {
    async fn start(kubernetes: &Kubernetes, config: &str) -> Result<Self, String> {
        let nats = Nats::process_configured(config).await;
        let installation = Installation::with_nats(nats, kubernetes, Jobs::Suspended).await?;
        create_stream(&installation).await?;
        let caller = requests::Caller::new(&installation.nats, "sync").await?;
        let (alone, at_once, to_added) = Default::default();
        Ok(Self { installation, caller, dispatcher: None, alone, at_once, to_added })
    }

    /// Publishes requests; returns acks per second.
    async fn rate(&self, count: usize, publishers: usize) -> Result<f64, String> {
        let (start, context) = (Instant::now(), &self.installation.context);
        let sent = stream::iter(0..count).map(|n| publish(context, n)).buffer_unordered(publishers);
        sent.try_collect::<()>().await?;
        Ok(count as f64 / start.elapsed().as_secs_f64())
    }
}

async fn create_stream(installation: &Installation) -> Result<(), String> {
    let file = paths::workspace().join("nats-config/JOBS.json");
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let config = std::fs::read_to_string(&file).map_err(|error| failed(&error))?;
    let config: Value = serde_json::from_str(&config).map_err(|error| failed(&error))?;
    let made: Value =
        installation.context.request("STREAM.CREATE.JOBS", &config).await.map_err(|error| failed(&error))?;
    made.get("error").map_or(Ok(()), |error| Err(format!("stream JOBS: {error}")))
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
