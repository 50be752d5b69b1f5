//! `make bench-peers`: the dispatcher beside a bare Kubernetes client, Argo Events and KEDA, on the
//! same API server in one run. The sides alternate; the Jobs are suspended, so that no pods run.
//!
//! `make bench-peers SIZE=quick` runs it with few requests and prints only. The full size writes
//! `docs/performance/peers.json`, and the tables of `docs/comparison.md` from it.

mod argo;
mod bare;
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
mod usage;

use std::process::ExitCode;

use dispatcher_tests::{Kubernetes, Options, paths};

use crate::report::Report;
use crate::side::{Side, Size};

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        [] | ["full"] => run(Size::FULL).await.and_then(|report| report.write()),
        ["quick"] => run(Size::QUICK).await.map(drop),
        ["tables"] => Report::read().and_then(|report| report.write_tables()),
        [bare::SUBCOMMAND, kubeconfig, namespace, count] => {
            bare::create(kubeconfig, namespace, count).await
        }
        _ => Err("usage: bench-peers [full|quick|tables]".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-peers: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(size: Size) -> Result<Report, String> {
    let kubernetes = Kubernetes::control_plane(Options::default()).await?;
    kubernetes.create_crds(&paths::keda("crds")?).await?;
    let mut report = Report::new(&size);
    for side in Side::MEASURED {
        let delays = measure::delays(&kubernetes, side, &size).await?;
        report.delays(side, &delays);
    }
    for _ in 0..size.rounds {
        for side in Side::MEASURED {
            let burst = measure::burst(&kubernetes, side, &size).await?;
            report.burst(side, size.burst(side), burst);
        }
    }
    for _ in 0..size.crash_rounds {
        for (side, crash) in crash::all(&kubernetes, &size).await? {
            report.crash(side, crash);
        }
    }
    println!("\n{}", table::render(&report)?);
    Ok(report)
}
