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

/// The problems of the counts, one line for each benchmark.
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
    let function = summary.get("function_name")?.as_str()?;
    let name = match summary.get("id").and_then(Value::as_str) {
        Some(id) => format!("{function}.{id}"),
        None => function.to_owned(),
    };
    let profile =
        summary.get("profiles")?.as_array()?.iter().find(|profile| profile["tool"] == "Callgrind")?;
    Some((name, profile.pointer("/data/total/metrics/Ir/values/new")?.as_u64()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn counts(all: &[(&str, u64)]) -> Counts {
        all.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn only_a_count_above_the_tolerance_is_a_problem() {
        let recorded = counts(&[("a", 1000), ("b", 1000), ("c", 1000)]);
        let counted = counts(&[("a", 1030), ("b", 1031), ("c", 10)]);
        let problems = compare(&recorded, &counted, 3);
        assert_eq!(problems, ["b: 1031 instructions, 1000 recorded: +3.1 %, at most +3 % is accepted"]);
    }

    #[test]
    fn benchmark_that_is_new_or_gone_is_a_problem() {
        let problems = compare(&counts(&[("gone", 1)]), &counts(&[("new", 2)]), 3);
        assert_eq!(problems, ["new: 2 instructions, none recorded", "gone: recorded, but not counted"]);
    }

    #[test]
    fn counts_are_read_from_one_object_per_benchmark() {
        let summary = |id: Value, values: Value| {
            let metrics = json!({"Ir": {"values": values}, "L1hits": {"values": {"new": 1}}});
            json!({"function_name": "f", "id": id,
                   "profiles": [{"tool": "Callgrind", "data": {"total": {"metrics": metrics}}}]})
        };
        // A second run also prints the values of the first one.
        let (first, second) = (json!({"new": 7}), json!({"new": 8, "old": 7}));
        let output = format!("{}\n{}", summary(json!(null), first), summary(json!("x"), second));
        assert_eq!(parse(&output), Ok(counts(&[("f", 7), ("f.x", 8)])));
        for broken in ["", "no JSON", &summary(json!("x"), json!({"old": 7})).to_string()] {
            assert!(parse(broken).is_err(), "{broken}");
        }
    }
}
