//! The results of the benchmarks: the measured values of each side, and the goals.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dispatcher_tests::paths;
use serde::{Deserialize, Serialize};

/// The side of the plain Kubernetes client.
pub(crate) const BARE: &str = "bare client";
/// The side of this workspace's dispatcher.
pub(crate) const OURS: &str = "dispatcher";
/// The side of the dispatcher of `BASELINE`.
pub(crate) const BASELINE: &str = "baseline";

/// What a row must reach, in the unit of the row.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    /// The dispatcher's median is at most this.
    AtMost(f64),
    /// The dispatcher's median is at most this part of another side's median.
    AtMostOf(f64, Side),
    /// The dispatcher's median is at least this part of the bare client's median.
    AtLeastOfBare(f64),
    /// The dispatcher's median exceeds that of the bare client by at most this.
    AboveBare(f64),
}

/// A side that a goal refers to.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Side {
    Baseline,
}

/// One measured quantity.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Row {
    pub(crate) title: String,
    pub(crate) unit: String,
    pub(crate) goal: Option<Goal>,
    /// The result of each round, by side. Rounds with the same index ran one after the other.
    pub(crate) samples: BTreeMap<String, Vec<f64>>,
}

/// A quantity that depends on another one.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Curve {
    pub(crate) title: String,
    /// The label of the other quantity.
    pub(crate) x: String,
    pub(crate) unit: String,
    pub(crate) lines: BTreeMap<String, Vec<Point>>,
}

/// The results of the rounds at one place of a curve.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) samples: Vec<f64>,
}

/// The results of one benchmark.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Results {
    pub(crate) rows: Vec<Row>,
    pub(crate) curves: Vec<Curve>,
}

/// The results of a run.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: String,
    pub(crate) size: String,
    /// By the name of the benchmark.
    pub(crate) results: BTreeMap<String, Results>,
}

impl Row {
    pub(crate) fn new(title: &str, unit: &str) -> Self {
        Self { title: title.to_owned(), unit: unit.to_owned(), goal: None, samples: BTreeMap::new() }
    }

    pub(crate) fn goal(mut self, goal: Goal) -> Self {
        self.goal = Some(goal);
        self
    }

    pub(crate) fn add(&mut self, side: &str, value: f64) {
        self.samples.entry(side.to_owned()).or_default().push(value);
    }

    /// The median of a side.
    pub(crate) fn median(&self, side: &str) -> Option<f64> {
        self.samples.get(side).filter(|all| !all.is_empty()).map(|all| median(all))
    }

    /// The median of the ratios of the rounds, ours to the other side's.
    pub(crate) fn ratio_to(&self, other: &str) -> Option<f64> {
        let (ours, other) = (self.samples.get(OURS)?, self.samples.get(other)?);
        if ours.len() != other.len() {
            return Some(median(ours) / median(other));
        }
        let ratios: Vec<f64> = ours.iter().zip(other).map(|(ours, other)| ours / other).collect();
        (!ratios.is_empty()).then(|| median(&ratios))
    }

    /// Whether the goal is reached; `None` without a goal, or if a side was not measured.
    pub(crate) fn reached(&self) -> Option<bool> {
        let ours = self.median(OURS)?;
        Some(match self.goal? {
            Goal::AtMost(limit) => ours <= limit,
            Goal::AtMostOf(part, Side::Baseline) => self.ratio_to(BASELINE)? <= part,
            Goal::AtLeastOfBare(part) => self.ratio_to(BARE)? >= part,
            Goal::AboveBare(more) => ours <= self.median(BARE)? + more,
        })
    }
}

impl Curve {
    pub(crate) fn new(title: &str, x: &str, unit: &str) -> Self {
        let (title, x, unit) = (title.to_owned(), x.to_owned(), unit.to_owned());
        Self { title, x, unit, lines: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, line: &str, x: usize, value: f64) {
        let points = self.lines.entry(line.to_owned()).or_default();
        match points.iter_mut().find(|point| point.x == x as f64) {
            Some(point) => point.samples.push(value),
            None => points.push(Point { x: x as f64, samples: vec![value] }),
        }
    }
}

impl Report {
    /// The report of an earlier run of this size, or a new one. A result replaces its predecessor.
    pub(crate) fn continued(size: &str) -> Self {
        let earlier = Self::read(&Self::path(size)).unwrap_or_default();
        Self { machine: machine(), size: size.to_owned(), results: earlier.results }
    }

    /// The file of the last runs of this size.
    pub(crate) fn path(size: &str) -> PathBuf {
        paths::workspace().join(format!("target/bench/{size}.json"))
    }

    /// The file that the documentation is generated from.
    pub(crate) fn published() -> PathBuf {
        paths::workspace().join("docs/performance/bench.json")
    }

    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
        serde_json::from_str(&text).map_err(|error| failed(&error))
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), String> {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = serde_json::to_string_pretty(self).map_err(|error| failed(&error))?;
        path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(|error| failed(&error))?;
        std::fs::write(path, text + "\n").map_err(|error| failed(&error))
    }
}

/// The middle of the sorted values, or the mean of the two in the middle.
pub(crate) fn median(values: &[f64]) -> f64 {
    f64::midpoint(quantile(values, 0.5, f64::floor), quantile(values, 0.5, f64::ceil))
}

/// The value below which this part of the values lies.
pub(crate) fn at(values: &[f64], part: f64) -> f64 {
    quantile(values, part, f64::round)
}

#[expect(clippy::cast_possible_truncation, reason = "an index of a small vector")]
fn quantile(values: &[f64], part: f64, round: impl Fn(f64) -> f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get(round(last as f64 * part) as usize).copied().unwrap_or(f64::NAN)
}

/// The processor and its number of cores, from `/proc/cpuinfo`.
fn machine() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("{cores} cores of {}", model.map_or("an unknown processor", |(_, name)| name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(goal: Goal, ours: &[f64], bare: &[f64], baseline: &[f64]) -> Row {
        let mut row = Row::new("t", "u").goal(goal);
        for (side, values) in [(OURS, ours), (BARE, bare), (BASELINE, baseline)] {
            values.iter().for_each(|value| row.add(side, *value));
        }
        row
    }

    #[test]
    fn ratio_is_the_median_of_the_ratios_of_the_rounds() {
        let row = row(Goal::AtLeastOfBare(0.95), &[90.0, 50.0, 97.0], &[100.0, 50.0, 100.0], &[]);
        assert_eq!(row.ratio_to(BARE), Some(0.97));
        assert_eq!(row.ratio_to(BASELINE), None);
        assert_eq!(row.reached(), Some(true));
    }

    #[test]
    fn goal_is_decided_by_medians_and_only_if_its_side_was_measured() {
        let ours = &[1.0, 5.0, 2.0];
        assert_eq!(row(Goal::AtMost(2.0), ours, &[], &[]).reached(), Some(true));
        assert_eq!(row(Goal::AtMost(1.9), ours, &[], &[]).reached(), Some(false));
        assert_eq!(row(Goal::AboveBare(0.5), ours, &[1.5], &[]).reached(), Some(true));
        assert_eq!(row(Goal::AboveBare(0.5), ours, &[1.4], &[]).reached(), Some(false));
        assert_eq!(row(Goal::AtMostOf(0.5, Side::Baseline), ours, &[1.0], &[]).reached(), None);
        assert_eq!(row(Goal::AtMostOf(0.5, Side::Baseline), ours, &[], &[4.0]).reached(), Some(true));
        assert_eq!(row(Goal::AtMost(2.0), &[], &[1.0], &[]).reached(), None);
    }

    #[test]
    fn median_and_quantiles_sort_the_values() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0]), 2.5);
        assert_eq!(at(&[5.0, 1.0, 3.0], 0.99), 5.0);
        assert!(median(&[]).is_nan());
    }
}
