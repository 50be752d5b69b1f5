//! What came of one run.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::checker::violation::Sort;
use crate::checker::{Delays, History, Violation};
use crate::paths;

/// What came of one run; a line of the results.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// The fault, in words.
    pub fault: String,
    /// The test that plays it.
    pub test: String,
    /// Where it was played.
    pub parts: String,
    /// The commit of this repository, with `-dirty` where files were changed.
    pub commit: String,
    /// The seed of the run.
    pub seed: u64,
    /// Requests that were acknowledged, duplicates not among them.
    pub requests: usize,
    /// Jobs that the cluster had.
    pub jobs: usize,
    /// Violations of the sort [`Sort::Lost`].
    pub lost: usize,
    /// Violations of the sort [`Sort::Repeated`].
    pub repeated: usize,
    /// All other violations.
    pub wrong: usize,
    /// Whether it could not be played or read to its end.
    pub failed: bool,
    /// [`Delays::to_job`], in seconds.
    pub to_job: Option<f64>,
    /// [`Delays::to_outcome`], in seconds.
    pub to_outcome: Option<f64>,
    /// How many seconds each recovery took.
    pub recoveries: BTreeMap<String, f64>,
    /// How long the run took, in seconds.
    pub seconds: f64,
}

impl RunResult {
    /// Of a run that has not begun.
    #[must_use]
    pub fn of(fault: &str, seed: u64) -> Self {
        let thread = std::thread::current();
        let test = thread.name().unwrap_or_default().to_owned();
        Self { fault: fault.to_owned(), test, seed, commit: commit().to_owned(), ..Self::default() }
    }

    /// Takes in what happened and what is wrong with it.
    pub fn judge(&mut self, history: &History, found: &[Violation]) {
        let count = |sort| found.iter().filter(|violation| violation.sort() == sort).count();
        let delays = Delays::of(history);
        self.requests = history.times.acknowledged.len();
        self.jobs = history.all_jobs().iter().filter(|job| job.ours).count();
        (self.lost, self.repeated, self.wrong) =
            (count(Sort::Lost), count(Sort::Repeated), count(Sort::Wrong));
        self.to_job = delays.to_job.map(|delay| delay.as_secs_f64());
        self.to_outcome = delays.to_outcome.map(|delay| delay.as_secs_f64());
        // A run without requests shows nothing.
        self.failed |= self.requests == 0;
    }

    /// Whether all promises were kept.
    #[must_use]
    pub fn is_good(&self) -> bool {
        !self.failed && self.lost + self.repeated + self.wrong == 0
    }

    /// Adds it to the results.
    ///
    /// # Panics
    /// Where that file cannot be written.
    pub fn keep(&self) {
        let path = file();
        let folder = path.parent().expect("it is in a folder");
        std::fs::create_dir_all(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let line = serde_json::to_string(self).expect("plain data") + "\n";
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
        let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
        written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

impl fmt::Display for RunResult {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, requests, jobs, lost, repeated, wrong, seconds, .. } = self;
        let how = if self.failed { "FAILED, " } else { "" };
        let delay = |seconds: Option<f64>| seconds.map_or("-".to_owned(), |seconds| format!("{seconds:.1}"));
        write!(
            formatter,
            "{how}seed {seed}, {requests} requests, {jobs} Jobs, {lost} lost, {repeated} repeated, {wrong} wrong, "
        )?;
        write!(formatter, "to ADDED {} s, to OUTCOME {} s", delay(self.to_job), delay(self.to_outcome))?;
        for (what, took) in &self.recoveries {
            write!(formatter, ", {what} {took:.1} s")?;
        }
        write!(formatter, "; {seconds:.1} s")
    }
}

/// The file of the results.
#[must_use]
pub fn file() -> PathBuf {
    paths::workspace().join("target/chaos/results.jsonl")
}

fn commit() -> &'static str {
    static COMMIT: OnceLock<String> = OnceLock::new();
    COMMIT.get_or_init(|| {
        let mut git = std::process::Command::new("git");
        let output = git.args(["describe", "--always", "--dirty"]).current_dir(paths::workspace()).output();
        let output = output.ok().filter(|output| output.status.success());
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    })
}
