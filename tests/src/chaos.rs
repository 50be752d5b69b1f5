//! The chaos suite: injects a fault into a system under load, many times with different seeds,
//! checks the guarantees after each run and records the result.
//!
//! | environment | meaning |
//! |---|---|
//! | `CHAOS_RUNS` | runs of each scenario; default 1 |
//! | `CHAOS_SEED` | repeats the run with this seed |
//!
//! Results are appended to `target/chaos/results.jsonl`; `chaos-table` renders them as tables.

pub mod results;
pub mod table;

use std::collections::BTreeMap;
use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::time::Instant;

use fastrand::Rng;
use futures::FutureExt;

use crate::checker::{History, check};
use results::RunResult;

/// The system that a scenario injects faults into.
pub trait SystemUnderTest: Sized {
    /// The platform, for the table: `local cluster`, `Kubernetes`.
    fn platform(&self) -> &'static str;

    /// The measured recovery times in seconds, by what recovered.
    fn recoveries(&self) -> BTreeMap<String, f64>;

    /// Waits until all requests have finished, stops everything and returns the history.
    ///
    /// # Errors
    /// If the history cannot be read.
    fn finish(self) -> impl Future<Output = Result<History, String>>;
}

/// Runs a scenario as often as the environment says, each time on a new system.
///
/// # Errors
/// If this machine cannot run the system.
///
/// # Panics
/// After the last run, if any of them failed or violated a guarantee; lists their seeds.
pub async fn repeat<S: SystemUnderTest>(
    fault: &str,
    start: impl AsyncFn() -> Result<S, String>,
    inject: impl AsyncFn(&mut S, &mut Rng),
) -> Result<(), String> {
    let mut failed = Vec::new();
    let seeds = seeds();
    for (number, seed) in (1..).zip(&seeds) {
        // The test harness shows it if the test fails.
        println!("CHAOS_SEED={seed}");
        let begin = Instant::now();
        let mut system = start().await?;
        let platform = system.platform().to_owned();
        let mut result = RunResult { platform, ..RunResult::new(fault, *seed) };
        let mut random = Rng::with_seed(*seed);
        let injected = AssertUnwindSafe(inject(&mut system, &mut random)).catch_unwind().await;
        result.recoveries = system.recoveries();
        result.failed = injected.is_err();
        // A scenario that stopped half-way may leave a process frozen, which would never finish.
        if injected.is_ok() {
            check_system(system, &mut result).await;
        }
        result.seconds = begin.elapsed().as_secs_f64();
        print_now(&format!("{fault} [{number}/{}]: {result}", seeds.len()));
        result.append();
        if !result.is_ok() {
            failed.push(seed.to_string());
        }
    }
    let (count, failures) = (seeds.len(), failed.len());
    assert!(failed.is_empty(), "{fault}: {failures} of {count} runs failed, CHAOS_SEED={}", failed.join(" "));
    Ok(())
}

async fn check_system<S: SystemUnderTest>(system: S, result: &mut RunResult) {
    match system.finish().await {
        Ok(history) => {
            let found = check(&history);
            for violation in &found {
                println!("{violation}");
            }
            result.record(&history, &found);
        }
        Err(error) => {
            println!("{error}");
            result.failed = true;
        }
    }
}

/// A load that takes minutes: all of it if `CHAOS_RUNS` is set, a tenth otherwise.
#[must_use]
pub fn scaled(number: usize) -> usize {
    if variable("CHAOS_RUNS").is_some() { number } else { number / 10 }
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse::<u64>().unwrap_or_else(|error| panic!("{name}={text}: not a number: {error}")))
}

fn seeds() -> Vec<u64> {
    match variable("CHAOS_SEED") {
        Some(seed) => vec![seed],
        None => (0..variable("CHAOS_RUNS").unwrap_or(1)).map(|_| fastrand::u64(..)).collect(),
    }
}

/// Prints immediately; the test harness captures `eprintln!` until the end of the test.
fn print_now(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
