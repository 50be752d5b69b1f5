//! What a check found, and what to do about it.

use serde::Serialize;

/// What a finding means for the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Not checked; the message has the reason.
    Skipped,
    /// The dispatcher works, but something should change.
    Warning,
    /// The dispatcher does not start, or requests fail.
    Error,
}

/// A group of checks, in the order of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Section {
    /// Flags and environment variables.
    Configuration,
    /// Servers, login, `JetStream` and the limits of the account.
    Nats,
    /// Streams and consumers.
    Streams,
    /// What the dispatcher may publish and subscribe to.
    NatsPermissions,
    /// The API server and the objects of the namespace.
    Kubernetes,
    /// RBAC.
    KubernetesPermissions,
    /// Template files and `JobTemplate` objects.
    Templates,
    /// The clocks of this machine, the API server and NATS.
    Clock,
}

impl Section {
    /// All sections, in the order of the output.
    pub const ALL: [Self; 8] = [
        Self::Configuration,
        Self::Nats,
        Self::Streams,
        Self::NatsPermissions,
        Self::Kubernetes,
        Self::KubernetesPermissions,
        Self::Templates,
        Self::Clock,
    ];

    /// The heading.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Configuration => "Configuration",
            Self::Nats => "NATS",
            Self::Streams => "Streams and consumers",
            Self::NatsPermissions => "NATS permissions",
            Self::Kubernetes => "Kubernetes",
            Self::KubernetesPermissions => "Kubernetes permissions",
            Self::Templates => "Templates",
            Self::Clock => "Clock",
        }
    }

    pub(crate) fn ok(self, subject: impl Into<String>, message: impl Into<String>) -> Finding {
        self.finding(Severity::Ok, subject, message)
    }

    pub(crate) fn warning(self, subject: impl Into<String>, message: impl Into<String>) -> Finding {
        self.finding(Severity::Warning, subject, message)
    }

    pub(crate) fn error(self, subject: impl Into<String>, message: impl Into<String>) -> Finding {
        self.finding(Severity::Error, subject, message)
    }

    /// A check that was not made, and why.
    #[must_use]
    pub fn skipped(self, subject: impl Into<String>, reason: impl Into<String>) -> Finding {
        self.finding(Severity::Skipped, subject, reason)
    }

    pub(crate) fn finding(
        self,
        severity: Severity,
        subject: impl Into<String>,
        message: impl Into<String>,
    ) -> Finding {
        let message: String = message.into();
        Finding {
            section: self,
            severity,
            subject: subject.into(),
            message: message.replace('\n', " "),
            advice: None,
            link: None,
        }
    }
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The group of the check.
    pub section: Section,
    /// The severity.
    pub severity: Severity,
    /// The checked object: a server, a stream, a permission, a file.
    pub subject: String,
    /// The observation.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// The page of the documentation, as a path in the repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<&'static str>,
}

impl Finding {
    pub(crate) fn advise(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }

    pub(crate) fn see(self, link: &'static str) -> Self {
        Self { link: Some(link), ..self }
    }
}

/// All findings, ordered by section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The findings.
    pub findings: Vec<Finding>,
    /// How many are errors.
    pub errors: usize,
    /// How many are warnings.
    pub warnings: usize,
    /// How many checks were not made.
    pub skipped: usize,
}

impl Report {
    /// The report of these findings. Within a section, they keep their order.
    #[must_use]
    pub fn new(mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| finding.section);
        let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
        let (errors, warnings, skipped) =
            (count(Severity::Error), count(Severity::Warning), count(Severity::Skipped));
        Self { findings, errors, warnings, skipped }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_is_ordered_by_section_and_counts_by_severity() {
        let report = Report::new(vec![
            Section::Clock.error("clock", "b"),
            Section::Nats.ok("server", "first"),
            Section::Clock.skipped("clock", "c"),
            Section::Nats.warning("server", "second"),
        ]);
        let order: Vec<_> = report.findings.iter().map(|finding| finding.message.as_str()).collect();
        assert_eq!(order, ["first", "second", "b", "c"]);
        assert_eq!((report.errors, report.warnings, report.skipped), (1, 1, 1));
    }

    #[test]
    fn json_of_a_finding_has_no_empty_fields_and_one_line_per_message() {
        let finding = Section::NatsPermissions.ok("s", "two\nlines");
        let json = serde_json::to_value(&finding).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"section": "nats-permissions", "severity": "ok", "subject": "s",
                               "message": "two lines"})
        );
    }
}
