//! The results of a run, in `docs/performance/peers.json`.

use std::path::{Path, PathBuf};

use dispatcher_tests::paths;
use serde::{Deserialize, Serialize};

use crate::crash::Crash;
use crate::measure::{Burst, at};
use crate::side::{Side, Size};
use crate::table;

const BEGIN: &str = "<!-- tables of `make bench-peers` -->\n";
const END: &str = "<!-- end of the tables -->\n";

/// Everything that a run measured.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Report {
    pub(crate) cores: usize,
    pub(crate) crash_requests: usize,
    pub(crate) sides: Vec<Entry>,
}

/// The results of one side. Lists have one element per round.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Entry {
    pub(crate) side: String,
    pub(crate) delay_p50_ms: Option<f64>,
    pub(crate) delay_p99_ms: Option<f64>,
    pub(crate) delay_samples: usize,
    pub(crate) burst_requests: usize,
    pub(crate) jobs_per_second: Vec<f64>,
    pub(crate) cpu_ms_per_job: Vec<f64>,
    pub(crate) memory_mib: Vec<f64>,
    pub(crate) jobs_at_kill: Vec<usize>,
    pub(crate) lost: Vec<usize>,
    pub(crate) duplicated: Vec<usize>,
}

impl Report {
    pub(crate) fn new(size: &Size) -> Self {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        Self { cores, crash_requests: size.crash_requests, sides: vec![] }
    }

    fn entry(&mut self, side: Side) -> &mut Entry {
        let key = side.key();
        let at = self.sides.iter().position(|entry| entry.side == key).unwrap_or(self.sides.len());
        let new = (at == self.sides.len()).then(|| Entry { side: key.to_owned(), ..Entry::default() });
        self.sides.extend(new);
        #[expect(clippy::indexing_slicing, reason = "the entry exists now")]
        &mut self.sides[at]
    }

    /// Adds sorted delays.
    pub(crate) fn delays(&mut self, side: Side, sorted: &[f64]) {
        let entry = self.entry(side);
        (entry.delay_p50_ms, entry.delay_p99_ms) = (Some(at(sorted, 0.5)), Some(at(sorted, 0.99)));
        entry.delay_samples = sorted.len();
    }

    pub(crate) fn burst(&mut self, side: Side, requests: usize, burst: Burst) {
        let entry = self.entry(side);
        entry.burst_requests = requests;
        entry.jobs_per_second.push(burst.rate);
        entry.cpu_ms_per_job.push(burst.cpu_ms);
        entry.memory_mib.push(burst.memory_mib);
    }

    pub(crate) fn crash(&mut self, side: Side, crash: Crash) {
        let entry = self.entry(side);
        entry.jobs_at_kill.push(crash.at_kill);
        entry.lost.push(crash.lost);
        entry.duplicated.push(crash.duplicated);
    }

    pub(crate) fn read() -> Result<Self, String> {
        let path = json_file();
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Writes the JSON file and the tables.
    pub(crate) fn write(&self) -> Result<(), String> {
        let text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())?;
        let path = json_file();
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed(folder))?;
        }
        std::fs::write(&path, text + "\n").map_err(failed(&path))?;
        self.write_tables()
    }

    /// Writes the tables between the markers of `docs/comparison.md`.
    pub(crate) fn write_tables(&self) -> Result<(), String> {
        let document = paths::workspace().join("docs/comparison.md");
        let old = std::fs::read_to_string(&document).map_err(failed(&document))?;
        let parts = old.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
        let missing = || format!("{}: the lines {BEGIN:?} and {END:?} are missing", document.display());
        let (before, after) = parts.ok_or_else(missing)?;
        let new = format!("{before}{BEGIN}\n{}\n{END}{after}", table::render(self)?);
        std::fs::write(&document, new).map_err(failed(&document))
    }
}

fn json_file() -> PathBuf {
    paths::workspace().join("docs/performance/peers.json")
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> String {
    let path = path.display().to_string();
    move |error| format!("{path}: {error}")
}
