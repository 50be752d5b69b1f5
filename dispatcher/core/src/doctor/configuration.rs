//! Settings: the errors that also end a start.

use crate::doctor::{Finding, Section, links};

const S: Section = Section::Configuration;
/// The begin of the message about a variable that is no setting.
const UNKNOWN: &str = "unknown setting";

/// A setting that prevents the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The flag or variable.
    pub setting: String,
    /// The error.
    pub message: String,
}

/// The findings about the settings: each problem, or that there is none.
#[must_use]
pub fn findings(problems: &[Problem]) -> Vec<Finding> {
    if problems.is_empty() {
        return vec![S.ok("settings", "flags and environment variables are valid")];
    }
    problems.iter().map(finding).collect()
}

/// The parts whose settings are wrong, so that a check would use other ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unusable {
    /// The connection to NATS.
    pub nats: bool,
    /// The cluster and its namespace.
    pub kubernetes: bool,
}

impl Unusable {
    /// The parts that these problems concern.
    #[must_use]
    pub fn of(problems: &[Problem]) -> Self {
        let concerns = |prefixes: &[&str]| {
            let is_about =
                |problem: &Problem| prefixes.iter().any(|prefix| problem.setting.starts_with(prefix));
            problems.iter().filter(|problem| !problem.message.starts_with(UNKNOWN)).any(is_about)
        };
        Self {
            nats: concerns(&["NATS_", "DISPATCHER_PREFIX"]),
            kubernetes: concerns(&["KUBECONFIG", "DISPATCHER_NAMESPACE", "DISPATCHER_LEASE"]),
        }
    }
}

fn finding(problem: &Problem) -> Finding {
    let Problem { setting, message } = problem;
    let name = setting.split('=').next().unwrap_or_default();
    let advice = if message.starts_with(UNKNOWN) {
        format!("correct the name of the variable {name}, or remove it")
    } else {
        format!("correct {name}: the dispatcher does not start with it")
    };
    S.error(setting, message).advise(advice).see(links::STARTUP_ERRORS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Severity;

    #[test]
    fn wrong_value_makes_only_its_part_unusable() {
        let of = |setting: &str, message: &str| {
            Unusable::of(&[Problem { setting: setting.to_owned(), message: message.to_owned() }])
        };
        assert_eq!(of("NATS_TOKEN", "x"), Unusable { nats: true, kubernetes: false });
        assert_eq!(of("DISPATCHER_NAMESPACE=A", "x"), Unusable { nats: false, kubernetes: true });
        assert_eq!(of("DISPATCHER_MAX_WAIT=0", "x"), Unusable::default());
        assert_eq!(of("DISPATCHER_NAMESPACES", "unknown setting (known: x)"), Unusable::default());
    }

    #[test]
    fn each_wrong_setting_is_an_error_that_names_it() {
        let problem = |setting: &str, message: &str| Problem {
            setting: setting.to_owned(),
            message: message.to_owned(),
        };
        let found = findings(&[
            problem("DISPATCHER_CONCURENCY", "unknown setting (known: DISPATCHER_CONCURRENCY)"),
            problem("DISPATCHER_MAX_WAIT=0", "expected a whole number from 1 to 86400"),
        ]);
        let advice: Vec<_> = found.iter().filter_map(|finding| finding.advice.as_deref()).collect();
        assert_eq!(
            advice,
            [
                "correct the name of the variable DISPATCHER_CONCURENCY, or remove it",
                "correct DISPATCHER_MAX_WAIT: the dispatcher does not start with it",
            ]
        );
        assert!(found.iter().all(|finding| finding.severity == Severity::Error));
        assert_eq!(findings(&[])[0].severity, Severity::Ok);
    }
}
