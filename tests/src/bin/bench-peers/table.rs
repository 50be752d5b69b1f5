//! Renders a report as Markdown tables.

use std::fmt::Write;

use crate::report::{Entry, Report};
use crate::side::Side;

/// The speed of each side, and what a crash leaves of its requests.
pub(crate) fn render(report: &Report) -> Result<String, String> {
    let sides: Vec<(Side, &Entry)> = report
        .sides
        .iter()
        .map(|entry| match Side::from_key(&entry.side) {
            Some(side) => Ok((side, entry)),
            None => Err(format!("unknown side {:?} in the report", entry.side)),
        })
        .collect::<Result<_, _>>()?;
    let mut text = String::from(
        "| | Jobs/s | of the bare client | publish → Job, p50 | p99 | CPU per Job | memory |\n\
         |---|---|---|---|---|---|---|\n",
    );
    let bare = sides.iter().find(|(side, _)| *side == Side::Bare);
    let bare = bare.and_then(|(_, entry)| median(&entry.jobs_per_second));
    for (side, entry) in sides.iter().filter(|(_, entry)| !entry.jobs_per_second.is_empty()) {
        let ratio =
            median(&entry.jobs_per_second).zip(bare).map(|(rate, bare)| format!("{:.2}", rate / bare));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} |",
            side.title(),
            with_spread(&entry.jobs_per_second, ""),
            ratio.unwrap_or_default(),
            milliseconds(entry.delay_p50_ms),
            milliseconds(entry.delay_p99_ms),
            with_spread(&entry.cpu_ms_per_job, " ms"),
            with_spread(&entry.memory_mib, " MiB"),
        );
    }
    let _ = write!(
        text,
        "\n| `kill -9` in the middle of {} requests | Jobs at the kill | requests lost | Jobs too many |\n\
         |---|---|---|---|\n",
        report.crash_requests
    );
    for (side, entry) in sides.iter().filter(|(_, entry)| !entry.lost.is_empty()) {
        let counts =
            |counts: &[usize]| with_spread(&counts.iter().map(|count| *count as f64).collect::<Vec<_>>(), "");
        let (at_kill, lost, duplicated) =
            (counts(&entry.jobs_at_kill), counts(&entry.lost), counts(&entry.duplicated));
        let _ = writeln!(text, "| {} | {at_kill} | {lost} | {duplicated} |", side.title());
    }
    Ok(text)
}

fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len().checked_sub(1)? / 2).copied()
}

/// The median, and the least and the greatest value if they differ.
fn with_spread(values: &[f64], unit: &str) -> String {
    let least = values.iter().copied().reduce(f64::min);
    let (Some(median), Some(least)) = (median(values), least) else { return String::new() };
    let greatest = values.iter().copied().fold(least, f64::max);
    let (middle, least, greatest) = (short(median), short(least), short(greatest));
    match least == greatest {
        true => format!("{middle}{unit}"),
        false => format!("{middle}{unit} ({least}–{greatest})"),
    }
}

fn milliseconds(value: Option<f64>) -> String {
    match value {
        Some(value) if value >= 1000.0 => format!("{} s", short(value / 1000.0)),
        Some(value) => format!("{} ms", short(value)),
        None => String::new(),
    }
}

/// Two or three significant digits; counts in full.
fn short(value: f64) -> String {
    match value {
        value if value.fract() == 0.0 || value >= 100.0 => format!("{value:.0}"),
        value if value >= 1.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::render;
    use crate::report::{Entry, Report};

    fn entry(side: &str, rates: &[f64]) -> Entry {
        Entry { side: side.to_owned(), jobs_per_second: rates.to_vec(), ..Entry::default() }
    }

    #[test]
    fn rates_are_medians_with_their_spread_and_a_ratio_to_the_bare_client() {
        let sides = vec![entry("bare", &[700.0, 600.0, 500.0]), entry("dispatcher", &[540.0])];
        let text = render(&Report { sides, ..Report::default() }).unwrap();
        assert!(text.contains("| bare client | 600 (500–700) | 1.00 |"), "{text}");
        assert!(text.contains("| dispatcher | 540 | 0.90 |"), "{text}");
    }

    #[test]
    fn delays_have_the_unit_that_fits() {
        let mut slow = entry("keda-shipped", &[20.0]);
        (slow.delay_p50_ms, slow.delay_p99_ms) = (Some(4.72), Some(15_300.0));
        let text = render(&Report { sides: vec![slow], ..Report::default() }).unwrap();
        assert!(text.contains("| 4.7 ms | 15.3 s |"), "{text}");
    }

    #[test]
    fn a_side_that_was_only_killed_is_in_the_second_table_only() {
        let mut named = entry("argo-at-least-once-named", &[]);
        (named.jobs_at_kill, named.lost, named.duplicated) = (vec![500], vec![0, 3, 1], vec![0]);
        let report = Report { sides: vec![named], crash_requests: 1000, ..Report::default() };
        let text = render(&report).unwrap();
        assert!(text.contains("Job named by the request | 500 | 1 (0–3) | 0 |"), "{text}");
        assert_eq!(text.matches("Job named by the request").count(), 1, "{text}");
    }

    #[test]
    fn an_unknown_side_is_named() {
        let error = render(&Report { sides: vec![entry("nex", &[])], ..Report::default() }).unwrap_err();
        assert!(error.contains("nex"), "{error}");
    }
}
