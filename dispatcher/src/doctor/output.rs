//! The report as text: a section for each group of checks, a mark for each check, and what to do.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use dispatcher_core::doctor::{Finding, Report, Section, Severity};

const GREEN: Style = AnsiColor::Green.on_default();
const YELLOW: Style = AnsiColor::Yellow.on_default();
const RED: Style = AnsiColor::Red.on_default();
const FAINT: Style = Style::new().dimmed();

/// The text with colours, which the caller removes if stdout is not a terminal.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    for section in Section::ALL {
        let mut findings = report.findings.iter().filter(|finding| finding.section == section).peekable();
        if findings.peek().is_some() {
            let title = section.title();
            let _ = writeln!(text, "{title}\n{}", "-".repeat(title.len()));
            findings.for_each(|finding| write_finding(&mut text, finding));
            text.push('\n');
        }
    }
    let Report { errors, warnings, skipped, .. } = report;
    let (style, mark) = style(if *errors > 0 { Severity::Error } else { Severity::Ok });
    let _ = writeln!(text, "{errors} errors, {warnings} warnings, {skipped} checks skipped");
    let _ = writeln!(text, "The result is {style}{mark}{style:#}");
    text
}

fn write_finding(text: &mut String, finding: &Finding) {
    let (style, mark) = style(finding.severity);
    let Finding { subject, message, advice, link, .. } = finding;
    let _ = writeln!(text, "{style}{mark}{style:#} {subject}: {message}");
    if let Some(advice) = advice {
        let _ = writeln!(text, "    {advice}");
    }
    if let Some(link) = link {
        let _ = writeln!(text, "    see {link}");
    }
}

fn style(severity: Severity) -> (Style, &'static str) {
    match severity {
        Severity::Ok => (GREEN, "√"),
        Severity::Skipped => (FAINT, "-"),
        Severity::Warning => (YELLOW, "‼"),
        Severity::Error => (RED, "×"),
    }
}

#[cfg(test)]
mod tests {
    use dispatcher_core::doctor::configuration::{self, Problem};

    use super::*;

    #[test]
    fn report_has_a_mark_for_each_check_and_a_hint_for_each_failure() {
        let problem = Problem { setting: "DISPATCHER_X".to_owned(), message: "unknown setting".to_owned() };
        let mut findings = configuration::findings(&[problem]);
        findings.push(Section::Clock.skipped("clock of NATS", "no answer contains its time"));
        let text = anstream::adapter::strip_str(&text(&Report::new(findings))).to_string();
        let expected = "Configuration\n-------------\n× DISPATCHER_X: unknown setting\n    correct the name of the \
                        variable DISPATCHER_X, or remove it\n    see docs/configuration.md#startup-errors\n\n\
                        Clock\n-----\n- clock of NATS: no answer contains its time\n\n\
                        1 errors, 0 warnings, 1 checks skipped\nThe result is ×\n";
        assert_eq!(text, expected);
    }
}
