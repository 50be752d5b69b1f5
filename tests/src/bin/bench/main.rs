//! `make bench`: every figure of `docs/performance.md` from one program, with all sides measured by
//! turns in the same run.
//!
//! `bench [NAME...]` runs these benchmarks, or all, and `bench docs` writes the results of the last
//! full run into the documentation. `SIZE=small` is a quick run. `BASELINE` is another dispatcher's
//! program to compare with. Results go to `target/bench/`.

mod attempts;
mod clones;
mod creation;
mod docs;
mod environment;
mod history;
mod life;
mod live;
mod observed;
mod plot;
mod pods;
mod report;
mod requests;
mod size;
mod start;
mod states;
mod sync;
mod viewers;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use dispatcher_tests::bare;
use futures::FutureExt;
use tokio::time::timeout;

use crate::environment::Run;
use crate::report::{Report, Results};

/// How long one benchmark may take.
const LIMIT: Duration = Duration::from_secs(900);

/// The benchmarks that a run without names runs.
const ALL: [&str; 11] = [
    "creation", "pinned", "replicas", "single", "life", "calls", "attempts", "live", "frozen", "finished",
    "history",
];
/// Those that print a table and have no goals.
const PRINTED: [&str; 3] = ["sync", "observed", "viewers"];

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [bare::COMMAND, ..] => bare::serve(args.get(1..).unwrap_or_default()).await,
        ["docs"] => docs::publish(),
        [] => run(&ALL).await,
        names => run(names).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs benchmarks one after the other. A failure does not stop the rest.
async fn run(names: &[&str]) -> Result<(), String> {
    let known = |name: &&str| ALL.contains(name) || PRINTED.contains(name);
    if let Some(name) = names.iter().find(|name| !known(name)) {
        return Err(format!(
            "unknown benchmark {name:?} (allowed: docs, {}, {})",
            ALL.join(", "),
            PRINTED.join(", ")
        ));
    }
    let run = Run::from_env()?;
    let mut report = Report::continued(run.size.name);
    let path = Report::path(run.size.name);
    let mut failed = Vec::new();
    for name in names {
        let start = Instant::now();
        println!("{name}:");
        // What a benchmark starts panics if it does not start.
        let work = AssertUnwindSafe(benchmark(name, &run)).catch_unwind();
        let results = match timeout(LIMIT, work).await {
            Ok(Ok(results)) => results,
            Ok(Err(_)) => Err("it panicked, see above".to_owned()),
            Err(_) => Err(format!("not done after {LIMIT:?}")),
        };
        match results {
            Ok(results) => {
                print!("{}", docs::text(&results));
                report.results.insert((*name).to_owned(), results);
                report.write(&path)?;
            }
            Err(error) => {
                eprintln!("  {name} failed: {error}");
                failed.push(*name);
            }
        }
        println!("  {name}: {:.0} s", start.elapsed().as_secs_f64());
    }
    plot::draw_all(&report, &path.with_file_name(run.size.name))?;
    println!("results and plots: {}", path.display());
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", "))) }
}

async fn benchmark(name: &str, run: &Run) -> Result<Results, String> {
    match name {
        "creation" => creation::shared(run).await,
        "pinned" => creation::pinned(run).await,
        "replicas" => creation::replicas(run).await,
        "single" => creation::single(run).await,
        "life" => life::cpu(run).await,
        "calls" => life::calls(run).await,
        "attempts" => attempts::run(run).await,
        "live" => live::memory(run).await,
        "frozen" => live::frozen(run).await,
        "finished" => start::finished(run).await,
        "history" => start::history(run).await,
        "sync" => sync::run(run).await.map(|()| Results::default()),
        "observed" => observed::run(run).await.map(|()| Results::default()),
        "viewers" => viewers::run(run).await.map(|()| Results::default()),
        _ => Err("no such benchmark".to_owned()),
    }
}
