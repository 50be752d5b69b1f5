//! The result of one run of a scenario.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::checker::violation::ViolationClass;
use crate::checker::{Delays, History, Violation};
use crate::paths;

/// The result of one run; a line of the results file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// The fault, as a phrase.
    pub fault: String,
    /// The name of the test.
    pub test: String,
    /// What the system ran on.
    pub platform: String,
    /// The commit of this repository, with the suffix `-dirty` if files were changed.
    pub commit: String,
    /// The seed of the run.
    pub seed: u64,
    /// The number of acknowledged requests, without duplicates.
    pub requests: usize,
    /// The number of Jobs.
    pub jobs: usize,
    /// Violations of the class [`ViolationClass::Lost`].
    pub lost: usize,
    /// Violations of the class [`ViolationClass::Duplicated`].
    pub duplicated: usize,
    /// Violations of the class [`ViolationClass::Incorrect`].
    pub incorrect: usize,
    /// Whether the scenario did not finish or the history could not be read.
    pub failed: bool,
    /// [`Delays::to_job`], in seconds.
    pub to_job: Option<f64>,
    /// [`Delays::to_outcome`], in seconds.
    pub to_outcome: Option<f64>,
    /// The recovery times, in seconds.
    pub recoveries: BTreeMap<String, f64>,
    /// The duration of the run, in seconds.
    pub seconds: f64,
}

impl RunResult {
    /// The result of a run that starts now, in the calling test.
    #[must_use]
    pub fn new(fault: &str, seed: u64) -> Self {
        let thread = std::thread::current();
        let test = thread.name().unwrap_or_default().to_owned();
        Self { fault: fault.to_owned(), test, seed, commit: commit().to_owned(), ..Self::default() }
    }

    /// Records the history of the run and its violations.
    pub fn record(&mut self, history: &History, found: &[Violation]) {
        let count = |class| found.iter().filter(|violation| violation.class() == class).count();
        let delays = Delays::of(history);
        self.requests = history.times.acknowledged.len();
        self.jobs = history.all_jobs().iter().filter(|job| job.managed).count();
        self.lost = count(ViolationClass::Lost);
        self.duplicated = count(ViolationClass::Duplicated);
        self.incorrect = count(ViolationClass::Incorrect);
        self.to_job = delays.to_job.map(|delay| delay.as_secs_f64());
        self.to_outcome = delays.to_outcome.map(|delay| delay.as_secs_f64());
        // A run without requests proves nothing.
        self.failed |= self.requests == 0;
    }

    /// Whether the run finished without a violation.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        !self.failed && self.lost + self.duplicated + self.incorrect == 0
    }

    /// Appends it to the results file.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn append(&self) {
        let path = file();
        let folder = path.parent().expect("the path has a parent");
        let failed = |error: std::io::Error| -> ! { panic!("{}: {error}", path.display()) };
        std::fs::create_dir_all(folder).unwrap_or_else(|error| failed(error));
        let line = serde_json::to_string(self).expect("results serialize") + "\n";
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
        let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
        written.unwrap_or_else(|error| failed(error));
    }
}

impl fmt::Display for RunResult {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, requests, jobs, lost, duplicated, incorrect, seconds, .. } = self;
        let status = if self.failed { "FAILED, " } else { "" };
        let delay = |delay: Option<f64>| delay.map_or("-".to_owned(), |delay| format!("{delay:.1}"));
        write!(formatter, "{status}seed {seed}, {requests} requests, {jobs} Jobs, {lost} lost, ")?;
        write!(formatter, "{duplicated} duplicated, {incorrect} incorrect, ")?;
        let (to_job, to_outcome) = (delay(self.to_job), delay(self.to_outcome));
        write!(formatter, "to ADDED {to_job} s, to OUTCOME {to_outcome} s")?;
        for (what, recovery) in &self.recoveries {
            write!(formatter, ", {what} {recovery:.1} s")?;
        }
        write!(formatter, "; {seconds:.1} s")
    }
}

/// The results file.
#[must_use]
pub fn file() -> PathBuf {
    paths::workspace().join("target/chaos/results.jsonl")
}

fn commit() -> &'static str {
    static COMMIT: OnceLock<String> = OnceLock::new();
    COMMIT.get_or_init(|| {
        let mut git = std::process::Command::new("git");
        git.args(["describe", "--always", "--dirty"]).current_dir(paths::workspace());
        let output = git.output().ok().filter(|output| output.status.success());
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        text.unwrap_or_default()
    })
}
