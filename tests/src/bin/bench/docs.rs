//! Renders results as Markdown, and writes the published ones into `docs/performance.md`.

use std::fmt::Write;

use dispatcher_tests::paths;

use crate::plot;
use crate::report::{BARE, BASELINE, Curve, Goal, OURS, Report, Results, Row, Side, median};

const BEGIN: &str = "<!-- results of `make bench`, written by `make bench-docs` -->\n";
const END: &str = "<!-- end of the results -->\n";

/// Publishes the last full run: the results, the plots and the tables in the documentation.
pub(crate) fn publish() -> Result<(), String> {
    let report = Report::read(&Report::path("full"))?;
    let published = Report::published();
    report.write(&published)?;
    plot::draw_all(&report, published.parent().ok_or("no folder of the documentation")?)?;
    let document = paths::workspace().join("docs/performance.md");
    let failed = |error: std::io::Error| format!("{}: {error}", document.display());
    let old = std::fs::read_to_string(&document).map_err(failed)?;
    let new = replaced(&old, &report).map_err(|error| format!("{}: {error}", document.display()))?;
    std::fs::write(&document, new).map_err(failed)
}

/// The document with the results of this report between the markers.
fn replaced(old: &str, report: &Report) -> Result<String, String> {
    let missing = || format!("the lines {BEGIN:?} and {END:?} are missing");
    let (before, rest) = old.split_once(BEGIN).ok_or_else(missing)?;
    let (_, after) = rest.split_once(END).ok_or_else(missing)?;
    Ok(format!("{before}{BEGIN}\n{}\n{END}{after}", render(report)))
}

fn render(report: &Report) -> String {
    let mut text = format!("Machine: {}.\n\n", report.machine);
    text.push_str(&rows(report.results.values().flat_map(|results| &results.rows)));
    for (name, curve) in plot::curves(report) {
        let _ = write!(text, "\n### {}\n\n![{}](performance/{name}.svg)\n\n", curve.title, curve.title);
        text.push_str(&points(curve));
    }
    text
}

/// The results of one benchmark, for the terminal.
pub(crate) fn text(results: &Results) -> String {
    let mut text = String::new();
    if !results.rows.is_empty() {
        text.push_str(&rows(results.rows.iter()));
    }
    for curve in &results.curves {
        let _ = write!(text, "\n{}\n\n{}", curve.title, points(curve));
    }
    text
}

/// A table with a column for each side that was measured.
fn rows<'a>(all: impl Iterator<Item = &'a Row>) -> String {
    let all: Vec<&Row> = all.collect();
    let measured = |side: &&str| all.iter().any(|row| row.samples.contains_key(*side));
    let sides: Vec<&str> = [BARE, BASELINE, OURS].into_iter().filter(measured).collect();
    let others = || sides.iter().filter(|side| **side != OURS);
    let mut columns = vec!["measurement".to_owned()];
    columns.extend(sides.iter().map(ToString::to_string));
    columns.extend(others().map(|side| format!("against {side}")));
    columns.extend(["goal".to_owned(), "reached".to_owned()]);
    let mut text = format!("| {} |\n{}|\n", columns.join(" | "), "|---".repeat(columns.len()));
    for row in &all {
        let ratio = |side: &&str| row.ratio_to(side).map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
        let reached = row.reached().map(|reached| if reached { "yes" } else { "no" });
        let mut cells = vec![format!("{}, {}", row.title, row.unit)];
        cells.extend(sides.iter().map(|side| cell(row, side)));
        cells.extend(others().map(ratio));
        cells.push(row.goal.map(|goal| goal_text(goal, &row.unit)).unwrap_or_default());
        cells.push(reached.unwrap_or_default().to_owned());
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text
}

fn cell(row: &Row, side: &str) -> String {
    row.samples.get(side).map(|samples| spread(samples)).unwrap_or_default()
}

/// The median, and the smallest and the largest value.
fn spread(samples: &[f64]) -> String {
    let (low, high) = samples.iter().fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(*v), high.max(*v)));
    match samples.len() {
        0 => String::new(),
        1 => number(low),
        _ => format!("{} ({} to {})", number(median(samples)), number(low), number(high)),
    }
}

/// Three significant digits, at least the integer part.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn goal_text(goal: Goal, unit: &str) -> String {
    match goal {
        Goal::AtMost(limit) => format!("at most {limit} {unit}"),
        Goal::AtMostOf(part, Side::Baseline) => format!("at most {part} of the {BASELINE}"),
        Goal::AtLeastOfBare(part) => format!("at least {part} of the {BARE}"),
        Goal::AboveBare(more) => format!("{BARE} + {more} {unit}"),
    }
}

fn points(curve: &Curve) -> String {
    let columns = curve.lines.keys().map(|line| format!(" {line}, {} |", curve.unit));
    let mut text = format!("| {} |{}", curve.x, columns.collect::<String>());
    let _ = writeln!(text, "\n|---{}|", "|---".repeat(curve.lines.len()));
    let mut places: Vec<f64> = curve.lines.values().flatten().map(|point| point.x).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    for x in places {
        let _ = write!(text, "| {x} |");
        for line in curve.lines.values() {
            let samples = line.iter().find(|point| point.x == x).map(|point| spread(&point.samples));
            let _ = write!(text, " {} |", samples.unwrap_or_default());
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut row = Row::new("Jobs created", "Jobs/s").goal(Goal::AtLeastOfBare(0.95));
        for (side, value) in [(BARE, 700.0), (BARE, 710.0), (OURS, 650.0), (OURS, 690.0)] {
            row.add(side, value);
        }
        let mut curve = Curve::new("Start with finished Jobs", "finished Jobs", "s");
        curve.add(OURS, 0, 0.25);
        curve.add(OURS, 5_000, 0.5);
        curve.add(BASELINE, 5_000, 1.5);
        let mut report = Report::default();
        report.results.insert("a".to_owned(), Results { rows: vec![row], curves: vec![curve] });
        report
    }

    #[test]
    fn row_shows_median_spread_ratio_goal_and_whether_it_is_reached() {
        let text = render(&report());
        let line = "| Jobs created, Jobs/s | 705 (700 to 710) | 670 (650 to 690) | 0.95 \
                    | at least 0.95 of the bare client | yes |";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn curve_is_a_table_with_a_column_per_side_and_a_plot() {
        let text = render(&report());
        let table = "| finished Jobs | baseline, s | dispatcher, s |\n|---|---|---|\n| 0 |  | 0.250 |\n\
                     | 5000 | 1.50 | 0.500 |\n";
        assert!(text.contains(table), "{text}");
        assert!(text.contains("(performance/a-1.svg)"), "{text}");
    }

    #[test]
    fn results_replace_the_text_between_the_markers_only() {
        let old = format!("a\n{BEGIN}old\n{END}b\n");
        let new = replaced(&old, &report()).unwrap();
        assert!(new.starts_with("a\n") && new.ends_with("b\n") && !new.contains("old\n"), "{new}");
        assert_eq!(replaced(&new, &report()).unwrap(), new);
        assert!(replaced("no markers", &report()).unwrap_err().contains("make bench"));
    }

    #[test]
    fn documentation_has_the_published_results() {
        let path = Report::published();
        let document = paths::workspace().join("docs/performance.md");
        let text = std::fs::read_to_string(&document).unwrap();
        assert!(text.contains(BEGIN) && text.contains(END), "{}: no markers", document.display());
        if path.exists() {
            let expected = replaced(&text, &Report::read(&path).unwrap()).unwrap();
            assert_eq!(text, expected, "run `make bench-docs`");
        }
    }
}
