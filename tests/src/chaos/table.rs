//! The results as tables in Markdown.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::results::RunResult;

/// The lines of a results file.
///
/// # Errors
/// Names the line that cannot be read.
pub fn parse(text: &str) -> Result<Vec<RunResult>, String> {
    let lines = (1..).zip(text.lines());
    lines
        .map(|(number, line)| serde_json::from_str(line).map_err(|error| format!("line {number}: {error}")))
        .collect()
}

/// All runs of one fault in one place.
#[derive(Default)]
struct Row {
    fault: String,
    runs: usize,
    failed: usize,
    requests: usize,
    lost: usize,
    repeated: usize,
    wrong: usize,
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
        self.repeated += run.repeated;
        self.wrong += run.wrong;
        self.to_job = longest(self.to_job, run.to_job);
        self.to_outcome = longest(self.to_outcome, run.to_outcome);
    }
}

fn longest(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    one.into_iter().chain(other).reduce(f64::max)
}

/// A row for each fault and place, in the order of their tests' names, and the recovery times.
#[must_use]
pub fn render(runs: &[RunResult]) -> String {
    let mut rows: BTreeMap<(&str, &str), Row> = BTreeMap::new();
    let mut recoveries: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
    for run in runs {
        rows.entry((&run.parts, &run.test)).or_default().add(run);
        for (what, took) in &run.recoveries {
            recoveries.entry((what, &run.parts)).or_default().push(*took);
        }
    }
    let mut text = String::from(
        "| fault | test | on | runs | requests | lost | repeated | wrong | longest to `ADDED` | longest to `OUTCOME` |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    let seconds = |seconds: Option<f64>| seconds.map_or(String::new(), |seconds| format!("{seconds:.1} s"));
    for ((parts, test), row) in &rows {
        let Row { fault, requests, lost, repeated, wrong, .. } = row;
        let runs = match row.failed {
            0 => row.runs.to_string(),
            failed => format!("{} ({failed} failed)", row.runs),
        };
        let (to_job, to_outcome) = (seconds(row.to_job), seconds(row.to_outcome));
        let test = test.rsplit("::").next().unwrap_or_default();
        let _ = writeln!(
            text,
            "| {fault} | `{test}` | {parts} | {runs} | {requests} | {lost} | {repeated} | {wrong} | {to_job} | {to_outcome} |"
        );
    }
    let sum = |of: fn(&Row) -> usize| rows.values().map(of).sum::<usize>();
    let _ = writeln!(
        text,
        "\n{} faults, {} runs, {} requests: {} lost, {} repeated, {} wrong, {} runs failed.",
        rows.len(),
        sum(|row| row.runs),
        sum(|row| row.requests),
        sum(|row| row.lost),
        sum(|row| row.repeated),
        sum(|row| row.wrong),
        sum(|row| row.failed),
    );
    text + &recovery(recoveries)
}

fn recovery(recoveries: BTreeMap<(&str, &str), Vec<f64>>) -> String {
    if recoveries.is_empty() {
        return String::new();
    }
    let mut text = String::from("\n| recovery | on | times | median | longest |\n|---|---|---|---|---|\n");
    for ((what, parts), mut times) in recoveries {
        times.sort_by(f64::total_cmp);
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        let longest = times.last().copied().unwrap_or_default();
        let _ = writeln!(text, "| {what} | {parts} | {} | {median:.1} s | {longest:.1} s |", times.len());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_a_fault_are_one_row_and_recoveries_have_a_table() {
        let one = RunResult {
            fault: "a kill".into(),
            test: "kills::a_kill".into(),
            parts: "Kubernetes".into(),
            requests: 10,
            to_job: Some(1.0),
            recoveries: [("restart".to_owned(), 0.5)].into(),
            ..RunResult::default()
        };
        let two = RunResult { requests: 20, lost: 1, to_job: Some(3.0), failed: true, ..one.clone() };
        let text: String = [&one, &two].map(|run| serde_json::to_string(run).unwrap() + "\n").concat();
        let table = render(&parse(&text).unwrap());
        assert!(
            table.contains("| a kill | `a_kill` | Kubernetes | 2 (1 failed) | 30 | 1 | 0 | 0 | 3.0 s |  |\n"),
            "{table}"
        );
        assert!(table.contains("1 faults, 2 runs, 30 requests: 1 lost, 0 repeated, 0 wrong, 1 runs failed."));
        assert!(table.contains("| restart | Kubernetes | 2 | 0.5 s | 0.5 s |"), "{table}");
    }
}
