//! Parses and compares counts of instructions. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Instructions by the name of the benchmark.
pub(crate) type Counts = BTreeMap<String, u64>;

/// The file with the recorded counts.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// How far a count may exceed the recorded one.
    pub(crate) tolerance_percent: u64,
    /// The compiler that the counts were recorded with.
    pub(crate) compiler: String,
    /// By the architecture of the CPU.
    pub(crate) counts: BTreeMap<String, Counts>,
}

/// What is wrong with the counts, one problem for each benchmark.
pub(crate) fn compare(recorded: &Counts, counted: &Counts, tolerance_percent: u64) -> Vec<String> {
    let changed = counted.iter().filter_map(|(name, count)| match recorded.get(name) {
        None => Some(format!("{name}: {count} instructions, none recorded")),
        Some(old) if count * 100 > old * (100 + tolerance_percent) => {
            let percent = (*count as f64 / *old as f64 - 1.0) * 100.0;
            Some(format!(
                "{name}: {count} instructions, {old} recorded: {percent:+.1} %, at most +{tolerance_percent} % is \
                 accepted"
            ))
        }
        Some(_) => None,
    });
    let missing = recorded.keys().filter(|name| !counted.contains_key(*name));
    changed.chain(missing.map(|name| format!("{name}: recorded, but not counted"))).collect()
}

/// The counts in the output of the benchmark: a JSON object for each.
///
/// # Errors
/// If an object lacks the count, or there is none.
pub(crate) fn parse(output: &str) -> Result<Counts, String> {
    let mut counts = Counts::new();
    for summary in serde_json::Deserializer::from_str(output).into_iter::<Value>() {
        let summary = summary.map_err(|error| format!("output of the benchmark: {error}\n{output}"))?;
        let (name, count) = parse_summary(&summary).ok_or_else(|| format!("no count in {summary:#}"))?;
        counts.insert(name, count);
    }
    if counts.is_empty() { Err("the benchmark printed no counts".to_owned()) } else { Ok(counts) }
}

fn parse_summary(summary: &Value) -> Option<(String, u64)> {
    Some((summary.as_str()?.to_owned(), 0))
}
