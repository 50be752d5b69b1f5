//! The report of `dispatcher doctor`.

use std::process::Output;

use serde_json::Value;

use crate::test_env::text;

/// A report, and the exit code of the run.
#[derive(Debug)]
pub struct Report {
    /// The exit code.
    pub code: Option<i32>,
    /// The findings.
    pub findings: Vec<Value>,
}

impl Report {
    /// The report in the output of `dispatcher doctor --output json`.
    ///
    /// # Panics
    /// If it is not JSON, or if something else was printed.
    #[must_use]
    pub fn of(output: &Output) -> Self {
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let report: Value =
            serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"));
        assert_eq!(stderr, "", "printed besides the report");
        let findings = report["findings"].as_array().cloned().expect("a list of findings");
        let report = Self { code: output.status.code(), findings };
        // 1 if and only if there is an error.
        assert_eq!(report.code, Some(i32::from(!report.of_severity("error").is_empty())), "{report:#?}");
        report
    }

    /// The findings of this severity.
    #[must_use]
    pub fn of_severity(&self, severity: &str) -> Vec<&Value> {
        self.findings.iter().filter(|finding| finding["severity"] == severity).collect()
    }

    /// The first finding of this severity and section whose subject contains `subject`.
    ///
    /// # Panics
    /// If there is none.
    pub fn find(&self, severity: &str, section: &str, subject: &str) -> &Value {
        let found = self
            .of_severity(severity)
            .into_iter()
            .find(|finding| finding["section"] == section && text(&finding["subject"]).contains(subject));
        found.unwrap_or_else(|| panic!("no {severity} about {subject:?} in {section}: {:#?}", self.findings))
    }

    /// Asserts that there is such a finding with this text, and that its advice names the remedy.
    ///
    /// # Panics
    /// If not.
    pub fn assert(&self, (severity, section, subject): (&str, &str, &str), message: &str, advice: &str) {
        let finding = self.find(severity, section, subject);
        assert!(text(&finding["message"]).contains(message), "{message:?} is missing: {finding:#}");
        assert!(text(&finding["advice"]).contains(advice), "{advice:?} is missing: {finding:#}");
        assert!(finding["link"].is_string(), "no page of the documentation: {finding:#}");
    }
}
