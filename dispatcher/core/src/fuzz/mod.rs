//! A small fuzzer: each target checks invariants that hold for any input bytes.
//!
//! New inputs are mutations of the seeds in `fuzz/<target>/corpus/` and of earlier inputs with new
//! behaviour. A failing input is minimized and stored in `fuzz/<target>/artifacts/`; those run first.
//! `cargo test` runs some thousand inputs, `make fuzz MINUTES=10` as many as possible in that time.
//! `FUZZ_SEED` repeats a run.

mod mutate;

use std::{
    cell::Cell,
    collections::HashSet,
    fs,
    panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook},
    path::PathBuf,
    sync::Once,
    time::{Duration, Instant},
};

use fastrand::Rng;
use sha2::{Digest, Sha256};

use mutate::mutate;

use crate::contract::hex::to_hex;

/// The largest number of inputs that are kept for mutation.
const MAX_POOL: usize = 4096;
/// The largest input, in bytes.
const MAX_INPUT: usize = 80 * 1024;
/// The largest number of attempts to minimize a failing input.
const MAX_SHRINKS: usize = 4000;
/// The interval of progress messages.
const PROGRESS: Duration = Duration::from_secs(30);

/// A fuzz target.
pub(crate) struct Target {
    /// The name of its folder in `fuzz/`.
    pub(crate) name: &'static str,
    /// Seeds in addition to the files of the corpus.
    pub(crate) seeds: Vec<Vec<u8>>,
    /// The number of inputs of a short run.
    pub(crate) runs: u64,
    /// Checks one input: panics if an invariant is violated. Otherwise returns a number that stands
    /// for the observed behaviour.
    pub(crate) check: fn(&[u8]) -> u64,
}

impl Target {
    fn folder(&self) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(self.name)
    }

    fn files(&self, folder: &str) -> Vec<Vec<u8>> {
        let Ok(entries) = fs::read_dir(self.folder().join(folder)) else { return vec![] };
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths.into_iter().map(|path| fs::read(path).unwrap()).collect()
    }

    /// Runs the artifacts, the seeds, and mutations of them.
    pub(crate) fn fuzz(&self) {
        let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
        let seed = number("FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
        let minutes = number("FUZZ_MINUTES");
        println!("{}: FUZZ_SEED={seed}", self.name);
        let (mut random, mut behaviours, start) = (Rng::with_seed(seed), HashSet::new(), Instant::now());
        let mut pool = self.files("artifacts");
        pool.extend(self.files("corpus"));
        pool.extend(self.seeds.iter().cloned());
        assert!(!pool.is_empty(), "{}: no seeds", self.name);
        behaviours.extend(pool.iter().map(|input| self.run(input)));
        let (mut runs, mut last_progress) = (pool.len() as u64, start);
        let has_time = |runs: u64| match minutes {
            Some(minutes) => start.elapsed() < Duration::from_secs(60 * minutes),
            None => runs < self.runs,
        };
        while has_time(runs) {
            let mut input = mutate(random.choice(&pool).unwrap(), random.choice(&pool).unwrap(), &mut random);
            input.truncate(MAX_INPUT);
            if behaviours.insert(self.run(&input)) {
                if pool.len() >= MAX_POOL {
                    pool.swap_remove(random.usize(..MAX_POOL));
                }
                pool.push(input);
            }
            runs += 1;
            if minutes.is_some() && last_progress.elapsed() > PROGRESS {
                last_progress = Instant::now();
                self.print_progress(runs, behaviours.len(), start);
            }
        }
        self.print_progress(runs, behaviours.len(), start);
    }

    fn print_progress(&self, runs: u64, behaviours: usize, start: Instant) {
        println!("{}: {} s, {runs} runs, {behaviours} behaviours", self.name, start.elapsed().as_secs());
    }

    /// The behaviour of an input. A failing input is minimized and stored.
    fn run(&self, input: &[u8]) -> u64 {
        let Err(first) = self.check(input) else { return self.check(input).unwrap() };
        let minimal = self.shrink(input);
        let message = self.check(&minimal).err().unwrap_or(first);
        let name = to_hex(&Sha256::digest(&minimal)[..8]);
        let folder = self.folder().join("artifacts");
        let path = folder.join(name);
        fs::create_dir_all(&folder).and_then(|()| fs::write(&path, &minimal)).unwrap();
        panic!("{message}\nthe input is stored as {}", path.display());
    }

    fn check(&self, input: &[u8]) -> Result<u64, String> {
        catch_panic(|| (self.check)(input))
    }

    /// A smaller input that fails as well: removes lines, then bytes.
    fn shrink(&self, input: &[u8]) -> Vec<u8> {
        let mut attempts = MAX_SHRINKS;
        let lines: Vec<&[u8]> = input.split_inclusive(|byte| *byte == b'\n').collect();
        let lines = self.remove_parts(lines, <[&[u8]]>::concat, &mut attempts).concat();
        self.remove_parts(lines, <[u8]>::to_vec, &mut attempts)
    }

    fn remove_parts<T: Clone>(
        &self,
        parts: Vec<T>,
        bytes: impl Fn(&[T]) -> Vec<u8>,
        attempts: &mut usize,
    ) -> Vec<T> {
        let mut size = parts.len() / 2;
        let mut kept = parts;
        while size > 0 {
            let mut from = 0;
            while from < kept.len() && *attempts > 0 {
                *attempts -= 1;
                let to = (from + size).min(kept.len());
                let fewer = [&kept[..from], &kept[to..]].concat();
                if self.check(&bytes(&fewer)).is_err() {
                    kept = fewer;
                } else {
                    from = to;
                }
            }
            size /= 2;
        }
        kept
    }
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Catches a panic of `check` without printing it. Other tests still print theirs.
fn catch_panic(check: impl FnOnce() -> u64) -> Result<u64, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let default_hook = take_hook();
        set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                default_hook(panic);
            }
        }));
    });
    QUIET.set(true);
    let result = catch_unwind(AssertUnwindSafe(check));
    QUIET.set(false);
    result.map_err(|panic| match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(panic) => {
            panic.downcast_ref::<&str>().map_or("panic without a message", |message| message).to_owned()
        }
    })
}
