//! The figures of a run: printed, and written as JSON into `target/hostile/`.

use std::io::Write;
use std::time::Duration;

use dispatcher_tests::attacks::{Attack, Sent};
use dispatcher_tests::paths;
use serde::Serialize;

use crate::size::Size;

/// The figures of all phases.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    title: String,
    size: Size,
    phases: Vec<Phase>,
}

/// The figures of one phase.
#[derive(Debug, Serialize)]
pub(crate) struct Phase {
    /// `quiet`, or the flood.
    flood: Option<Attack>,
    sent: Sent,
    requests: usize,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    /// The publish times of the ten slowest requests, in seconds since the start of the phase.
    slowest_at_seconds: Vec<f64>,
    /// The largest resident memory of a replica so far.
    peak_memory_mib: u64,
}

impl Phase {
    pub(crate) fn quiet(latencies: Vec<Duration>, memory: u64) -> Self {
        Self::new(None, Sent::new(), latencies, memory)
    }

    pub(crate) fn hostile(flood: Attack, sent: Sent, latencies: Vec<Duration>, memory: u64) -> Self {
        Self::new(Some(flood), sent, latencies, memory)
    }

    fn new(flood: Option<Attack>, sent: Sent, mut latencies: Vec<Duration>, memory: u64) -> Self {
        let mut slowest: Vec<_> = latencies.iter().copied().zip(0_u32..).collect();
        slowest.sort_unstable_by(|a, b| b.cmp(a));
        let slowest = slowest.into_iter().take(10).map(|(_, at)| (Size::INTERVAL * at).as_secs_f64());
        let slowest_at_seconds = slowest.collect();
        latencies.sort_unstable();
        let quantile = |numerator: usize| {
            let at = (latencies.len() * numerator).div_ceil(100).saturating_sub(1);
            latencies.get(at).map_or(0.0, |latency| latency.as_secs_f64() * 1000.0)
        };
        Self {
            flood,
            sent,
            requests: latencies.len(),
            p50_ms: quantile(50),
            p99_ms: quantile(99),
            max_ms: quantile(100),
            slowest_at_seconds,
            peak_memory_mib: memory,
        }
    }
}

impl Report {
    pub(crate) fn new(title: &str, size: Size) -> Self {
        print(&format!("\n{title} ({} requests per phase)", size.requests));
        Self { title: title.to_owned(), size, phases: Vec::new() }
    }

    /// Adds a phase and prints it.
    pub(crate) fn add(&mut self, phase: Phase) {
        let name = phase.flood.map_or_else(|| "quiet".to_owned(), |flood| format!("{flood:?}"));
        let sent = phase.sent.get(&phase.flood.unwrap_or(Attack::Poison)).copied().unwrap_or_default();
        print(&format!(
            "  {name:<14} flood {sent:>6}  p50 {:>7.1} ms  p99 {:>7.1} ms  max {:>7.1} ms  peak {} MiB",
            phase.p50_ms, phase.p99_ms, phase.max_ms, phase.peak_memory_mib
        ));
        self.phases.push(phase);
    }

    /// Prints the p99 of each hostile phase relative to the median of the quiet ones.
    pub(crate) fn finish(self) {
        let (quiet, hostile) = (self.median_p99(false).max(f64::EPSILON), self.median_p99(true));
        print(&format!("  median of p99: quiet {quiet:.1} ms, hostile {hostile:.1} ms"));
        for phase in &self.phases {
            if let Some(flood) = phase.flood {
                print(&format!("  p99 during {flood:?}: {:.2} x quiet", phase.p99_ms / quiet));
            }
        }
        let folder = paths::workspace().join("target/hostile");
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join(format!("{}.json", self.title.replace([' ', ','], "-")));
        std::fs::write(file, serde_json::to_string_pretty(&self).unwrap()).unwrap();
    }

    fn median_p99(&self, hostile: bool) -> f64 {
        let phases = self.phases.iter().filter(|phase| phase.flood.is_some() == hostile);
        let mut values: Vec<f64> = phases.map(|phase| phase.p99_ms).collect();
        values.sort_unstable_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    }
}

/// Prints a line. The test harness captures `println!`.
pub(crate) fn print(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
