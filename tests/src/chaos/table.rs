//! Renders results as Markdown tables.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::results::RunResult;

/// Parses a results file.
///
/// # Errors
/// If a line is invalid; names the line.
pub fn parse(text: &str) -> Result<Vec<RunResult>, String> {
    let parse = |(number, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| format!("line {number}: {error}"))
    };
    (1..).zip(text.lines()).map(parse).collect()
}

/// All runs of one scenario on one platform.
#[derive(Default)]
struct Row {
    fault: String,
    runs: usize,
    failed: usize,
    requests: usize,
    lost: usize,
    duplicated: usize,
    incorrect: usize,
    to_job: Option<f64>,
    to_outcome: Option<f64>,
}

impl Row {
    fn add(&mut self, run: &RunResult) {
        self.fault.clone_from(&run.fault);
        self.runs += 1;
        self.failed += usize::from(run.failed);
        self.requests += run.requests;
        self.lost += run.lost;
        self.duplicated += run.duplicated;
        self.incorrect += run.incorrect;
        self.to_job = longest(self.to_job, run.to_job);
        self.to_outcome = longest(self.to_outcome, run.to_outcome);
    }
}

fn longest(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    one.into_iter().chain(other).reduce(f64::max)
}

const HEAD: &str = "\
| fault | test | platform | runs | requests | lost | duplicated | incorrect | longest to `ADDED` | longest to `OUTCOME` |
|---|---|---|---|---|---|---|---|---|---|
";

/// A row for each scenario and platform, sorted by platform and test, and the recovery times.
#[must_use]
pub fn render(runs: &[RunResult]) -> String {
    let mut rows: BTreeMap<(&str, &str), Row> = BTreeMap::new();
    let mut recoveries: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
    for run in runs {
        rows.entry((&run.platform, &run.test)).or_default().add(run);
        for (what, time) in &run.recoveries {
            recoveries.entry((what, &run.platform)).or_default().push(*time);
        }
    }
    let mut text = HEAD.to_owned();
    let seconds = |seconds: Option<f64>| seconds.map_or(String::new(), |seconds| format!("{seconds:.1} s"));
    for ((platform, test), row) in &rows {
        let Row { fault, requests, lost, duplicated, incorrect, .. } = row;
        let runs = match row.failed {
            0 => row.runs.to_string(),
            failed => format!("{} ({failed} failed)", row.runs),
        };
        let (to_job, to_outcome) = (seconds(row.to_job), seconds(row.to_outcome));
        let test = test.rsplit("::").next().unwrap_or_default();
        let _ = write!(text, "| {fault} | `{test}` | {platform} | {runs} | {requests} ");
        let _ = writeln!(text, "| {lost} | {duplicated} | {incorrect} | {to_job} | {to_outcome} |");
    }
    let sum = |of: fn(&Row) -> usize| rows.values().map(of).sum::<usize>();
    let _ = writeln!(
        text,
        "\n{} scenarios, {} runs, {} requests: {} lost, {} duplicated, {} incorrect, {} runs failed.",
        rows.len(),
        sum(|row| row.runs),
        sum(|row| row.requests),
        sum(|row| row.lost),
        sum(|row| row.duplicated),
        sum(|row| row.incorrect),
        sum(|row| row.failed),
    );
    text + &render_recoveries(recoveries)
}

fn render_recoveries(recoveries: BTreeMap<(&str, &str), Vec<f64>>) -> String {
    if recoveries.is_empty() {
        return String::new();
    }
    let mut text =
        String::from("\n| recovery | platform | times | median | longest |\n|---|---|---|---|---|\n");
    for ((what, platform), mut times) in recoveries {
        times.sort_by(f64::total_cmp);
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        let longest = times.last().copied().unwrap_or_default();
        let count = times.len();
        let _ = writeln!(text, "| {what} | {platform} | {count} | {median:.1} s | {longest:.1} s |");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_a_scenario_are_one_row_and_recoveries_have_a_table() {
        let one = RunResult {
            fault: "a kill".into(),
            test: "kills::a_kill".into(),
            platform: "Kubernetes".into(),
            requests: 10,
            to_job: Some(1.0),
            recoveries: [("restart".to_owned(), 0.5)].into(),
            ..RunResult::default()
        };
        let two = RunResult { requests: 20, lost: 1, to_job: Some(3.0), failed: true, ..one.clone() };
        let lines = [&one, &two].map(|run| serde_json::to_string(run).unwrap() + "\n").concat();
        let table = render(&parse(&lines).unwrap());
        let row = "| a kill | `a_kill` | Kubernetes | 2 (1 failed) | 30 | 1 | 0 | 0 | 3.0 s |  |\n";
        let sum = "1 scenarios, 2 runs, 30 requests: 1 lost, 0 duplicated, 0 incorrect, 1 runs failed.";
        for part in [row, sum, "| restart | Kubernetes | 2 | 0.5 s | 0.5 s |"] {
            assert!(table.contains(part), "{table}");
        }
    }
}
