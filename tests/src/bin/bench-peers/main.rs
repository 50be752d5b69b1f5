//! `make bench-peers`: the dispatcher, a bare Kubernetes client, Argo Events and KEDA, on the
//! same API server in one run. The sides alternate; the Jobs are suspended, so that no pods run.
//!
//! `make bench-peers SIZE=quick` runs it with few requests and prints only; `SIDES="bare argo"` runs
//! the sides whose keys begin so, and prints only. A full run of all sides writes
//! `docs/performance/peers.json`, and the tables of `docs/comparison.md` from it.

mod argo;
mod crash;
mod jobs;
mod keda;
mod manifest;
mod measure;
mod process;
mod report;
mod requests;
mod running;
mod side;
mod table;

use std::process::ExitCode;

use dispatcher_tests::{Kubernetes, Options, bare, paths};

use crate::report::Report;
use crate::side::{Side, Size};

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        [bare::COMMAND, ..] => bare::serve(args.get(1..).unwrap_or_default()).await,
        ["tables"] => Report::read().and_then(|report| report.write_tables()),
        ["full"] => run(&Size::FULL, &[]).await.and_then(|report| report.write()),
        ["full", sides @ ..] => run(&Size::FULL, sides).await.map(drop),
        ["quick", sides @ ..] => run(&Size::QUICK, sides).await.map(drop),
        _ => Err("usage: bench-peers full|quick|tables [SIDE...]".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-peers: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(size: &Size, sides: &[&str]) -> Result<Report, String> {
    let chosen = |all: &[Side]| -> Vec<Side> {
        let is_chosen =
            |side: &Side| sides.is_empty() || sides.iter().any(|name| side.key().starts_with(name));
        all.iter().copied().filter(is_chosen).collect()
    };
    let (measured, crashed) = (chosen(&Side::MEASURED), chosen(&Side::CRASHED));
    if measured.is_empty() && crashed.is_empty() {
        let keys: Vec<&str> = Side::MEASURED.iter().chain(&Side::CRASHED).map(|side| side.key()).collect();
        return Err(format!("no side begins with any of {sides:?} (allowed: {keys:?})"));
    }
    // Before anything is measured.
    paths::argo_events()?;
    let crds = paths::keda("crds")?;
    let kubernetes = Kubernetes::control_plane(Options::default()).await?;
    kubernetes.create_crds(&crds).await?;
    let mut report = Report::new(size);
    for side in &measured {
        report.delays(*side, &measure::delays(&kubernetes, *side, size).await?);
    }
    for _ in 0..size.rounds {
        for side in &measured {
            report.burst(*side, size.burst(*side), measure::burst(&kubernetes, *side, size).await?);
        }
    }
    for _ in 0..size.crash_rounds {
        for (side, crash) in crash::all(&kubernetes, &crashed, size).await? {
            report.crash(side, crash);
        }
    }
    println!("\n{}", table::render(&report)?);
    Ok(report)
}
