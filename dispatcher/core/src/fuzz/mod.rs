//! Any input at all, in great number: each target checks what has to hold for whatever bytes come.
//!
//! An input is bytes, so that one that fails is a file: `dispatcher/fuzz/<target>/found/`, which is played first from then on.
//! Others are made of the seeds in `corpus/` and of those made before that showed something new.
//!
//! `cargo test` plays some thousands; `make fuzz MINUTES=10` as many as there is time for. `FUZZ_SEED` plays a run again.

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

/// Inputs that are kept to make others of.
const POOL: usize = 4096;
/// Bytes of an input.
const LARGEST: usize = 80 * 1024;
/// Tries to make an input that fails smaller.
const SHRINKS: usize = 4000;

/// What is fuzzed.
pub(crate) struct Target {
    /// Its folder in `dispatcher/fuzz/`.
    pub(crate) name: &'static str,
    /// Further seeds, beside the files in its corpus.
    pub(crate) seeds: Vec<Vec<u8>>,
    /// How many inputs a short run plays.
    pub(crate) runs: u64,
    /// Panics where something does not hold; else what the input showed, as a number: the same for what is alike.
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

    /// Plays what was found before, the seeds, and inputs made of them.
    pub(crate) fn fuzz(&self) {
        let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
        let seed = number("FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
        let minutes = number("FUZZ_MINUTES");
        println!("{}: FUZZ_SEED={seed}", self.name);
        let (mut random, mut seen, begun) = (Rng::with_seed(seed), HashSet::new(), Instant::now());
        let mut pool = self.files("found");
        pool.extend(self.files("corpus"));
        pool.extend(self.seeds.iter().cloned());
        assert!(!pool.is_empty(), "{}: no seeds", self.name);
        seen.extend(pool.iter().map(|input| self.play(input)));
        let (mut runs, mut said) = (pool.len() as u64, begun);
        let goes_on = |runs: u64| match minutes {
            Some(minutes) => begun.elapsed() < Duration::from_secs(60 * minutes),
            None => runs < self.runs,
        };
        while goes_on(runs) {
            let mut input = mutate(random.choice(&pool).unwrap(), random.choice(&pool).unwrap(), &mut random);
            input.truncate(LARGEST);
            if seen.insert(self.play(&input)) {
                if pool.len() >= POOL {
                    pool.swap_remove(random.usize(..POOL));
                }
                pool.push(input);
            }
            runs += 1;
            if minutes.is_some() && said.elapsed() > Duration::from_secs(30) {
                said = Instant::now();
                self.report(runs, seen.len(), begun);
            }
        }
        self.report(runs, seen.len(), begun);
    }

    fn report(&self, runs: u64, shown: usize, begun: Instant) {
        println!("{}: {} s, {runs} runs, {shown} ways to go", self.name, begun.elapsed().as_secs());
    }

    /// What the input showed. One that fails is made smaller and kept.
    fn play(&self, input: &[u8]) -> u64 {
        let Err(first) = self.check(input) else { return self.check(input).unwrap() };
        let smaller = self.shrink(input);
        let message = self.check(&smaller).err().unwrap_or(first);
        let name: String =
            Sha256::digest(&smaller).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let folder = self.folder().join("found");
        let path = folder.join(name);
        fs::create_dir_all(&folder).and_then(|()| fs::write(&path, &smaller)).unwrap();
        panic!("{message}\nthe input is kept as {}", path.display());
    }

    fn check(&self, input: &[u8]) -> Result<u64, String> {
        quietly(|| (self.check)(input))
    }

    /// A smaller input that fails as well: lines are left out, then bytes.
    fn shrink(&self, input: &[u8]) -> Vec<u8> {
        let mut tries = SHRINKS;
        let lines: Vec<&[u8]> = input.split_inclusive(|byte| *byte == b'\n').collect();
        let lines = self.fewer(lines, |lines| lines.concat(), &mut tries).concat();
        self.fewer(lines, <[u8]>::to_vec, &mut tries)
    }

    fn fewer<T: Clone>(&self, of: Vec<T>, bytes: impl Fn(&[T]) -> Vec<u8>, tries: &mut usize) -> Vec<T> {
        let (mut kept, mut size) = (of.clone(), of.len() / 2);
        while size > 0 {
            let mut from = 0;
            while from < kept.len() && *tries > 0 {
                *tries -= 1;
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

/// Without a word of the panics that are looked for here, which other tests need.
fn quietly(check: impl FnOnce() -> u64) -> Result<u64, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                usual(panic);
            }
        }));
    });
    QUIET.set(true);
    let done = catch_unwind(AssertUnwindSafe(check));
    QUIET.set(false);
    done.map_err(|panic| match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(panic) => panic.downcast_ref::<&str>().map_or("a panic", |message| message).to_owned(),
    })
}
