//! The fault campaign: a fault is played again and again, each time with a seed of its own, under the eyes of a recorder;
//! what came of it is judged, and its result are kept.
//!
//! | environment | what it is |
//! |---|---|
//! | `CHAOS_RUNS` | how often each fault is played; 1 where it is not set |
//! | `CHAOS_SEED` | this one run again |
//!
//! RunResult go to `target/chaos/results.jsonl`, a line for each run; the program `chaos-table` makes a table of them.

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

/// What a fault is played on, from a start to its end.
pub trait SystemUnderTest: Sized {
    /// Where it stands, for the table: `local cluster`, `Kubernetes`.
    fn parts(&self) -> &'static str;

    /// How many seconds each recovery took that was noted, by what recovered.
    fn recoveries(&self) -> BTreeMap<String, f64>;

    /// Waits until all that was asked for has come to its end, stops everything, and returns all that happened.
    ///
    /// # Errors
    /// Where it cannot be read.
    fn finish(self) -> impl Future<Output = Result<History, String>>;
}

/// Plays a fault as often as the environment says, each time on a fresh stage.
///
/// # Errors
/// What this machine lacks for it.
///
/// # Panics
/// After the last run, where any of them failed or broke a promise, with their seeds.
pub async fn repeat<S: SystemUnderTest>(
    fault: &str,
    start: impl AsyncFn() -> Result<S, String>,
    play: impl AsyncFn(&mut S, &mut Rng),
) -> Result<(), String> {
    let mut failed = Vec::new();
    let seeds = seeds();
    for (number, seed) in (1..).zip(&seeds) {
        // Shown where the test fails.
        println!("CHAOS_SEED={seed}");
        let begun = Instant::now();
        let mut stage = start().await?;
        let mut result = RunResult { parts: stage.parts().to_owned(), ..RunResult::of(fault, *seed) };
        let mut random = Rng::with_seed(*seed);
        let played = AssertUnwindSafe(play(&mut stage, &mut random)).catch_unwind().await;
        result.recoveries = stage.recoveries();
        result.failed = played.is_err();
        // Not asked where the play stopped half-way: a part may still be frozen.
        if played.is_ok() {
            judge(stage, &mut result).await;
        }
        result.seconds = begun.elapsed().as_secs_f64();
        tell(&format!("{fault} [{number}/{}]: {result}", seeds.len()));
        result.keep();
        if !result.is_good() {
            failed.push(seed.to_string());
        }
    }
    let count = seeds.len();
    assert!(
        failed.is_empty(),
        "{fault}: {} of {count} runs failed, CHAOS_SEED={}",
        failed.len(),
        failed.join(" ")
    );
    Ok(())
}

async fn judge<S: SystemUnderTest>(stage: S, result: &mut RunResult) {
    match stage.finish().await {
        Ok(history) => {
            let found = check(&history);
            for violation in &found {
                println!("{violation}");
            }
            result.judge(&history, &found);
        }
        Err(error) => {
            println!("{error}");
            result.failed = true;
        }
    }
}

/// A number of things that takes minutes: all of them where the environment asks for runs, a tenth in a usual test.
#[must_use]
pub fn scaled(number: usize) -> usize {
    if environment("CHAOS_RUNS").is_some() { number } else { number / 10 }
}

fn environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse::<u64>().unwrap_or_else(|error| panic!("{name}: {text:?} is no number: {error}")))
}

fn seeds() -> Vec<u64> {
    match environment("CHAOS_SEED") {
        Some(seed) => vec![seed],
        None => (0..environment("CHAOS_RUNS").unwrap_or(1)).map(|_| fastrand::u64(..)).collect(),
    }
}

/// To the reader at once: the test harness would keep `eprintln!` until the end.
fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
