//! The permissions in NATS: what each is needed for, and which ones the server denies.

use std::collections::BTreeSet;

use crate::doctor::{Finding, Section, Severity, links};

const S: Section = Section::NatsPermissions;

/// The direction of a permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// To publish.
    Publish,
    /// To subscribe.
    Subscribe,
}

/// When a permission is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Needed {
    /// Always.
    Always,
    /// The dispatcher works without it, but less well; the text names the effect.
    Better(&'static str),
    /// To create this stream or its parts. Without `--no-provision` only.
    ToProvision(String),
}

/// How a permission is tested without a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// By this subject: a message that the server or a stream refuses, or that has no receiver.
    By(String),
    /// Not at all, for this reason.
    Impossible(&'static str),
}

/// One permission of the role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    /// The direction.
    pub direction: Direction,
    /// The subject, as a line of the role.
    pub subject: String,
    /// When it is needed.
    pub needed: Needed,
    /// How it is tested.
    pub test: Test,
}

/// A subject that the server has denied, in its error to the client.
///
/// `Permissions Violation for Publish to "a.b"`, and the same for `Subscription to`, perhaps with
/// ` using queue "q"`.
#[must_use]
pub fn parse_violation(error: &str) -> Option<(Direction, String)> {
    let (before, rest) = error.split_once('"')?;
    let before = before.to_ascii_lowercase();
    let (subject, _) = rest.split_once('"')?;
    let direction = if before.contains("violation for publish to") {
        Direction::Publish
    } else if before.contains("violation for subscription to") {
        Direction::Subscribe
    } else {
        return None;
    };
    Some((direction, subject.to_owned()))
}

/// The findings about these permissions. The server has `denied` subjects of tests, and the streams
/// `missing` do not exist.
#[must_use]
pub fn findings(
    permissions: &[Permission],
    denied: &BTreeSet<(Direction, String)>,
    missing: &[String],
    verify_only: bool,
) -> Vec<Finding> {
    let used =
        |permission: &&Permission| !(verify_only && matches!(permission.needed, Needed::ToProvision(_)));
    let used: Vec<&Permission> = permissions.iter().filter(used).collect();
    let is_denied = |permission: &&&Permission| match &permission.test {
        Test::By(subject) => denied.contains(&(permission.direction, subject.clone())),
        Test::Impossible(_) => false,
    };
    let tested = used.iter().filter(|permission| matches!(permission.test, Test::By(_))).count();
    let mut found: Vec<_> =
        used.iter().filter(is_denied).map(|permission| finding(permission, missing, verify_only)).collect();
    let granted = tested - found.len();
    if granted > 0 {
        found.insert(0, S.ok("role", format!("{granted} of {tested} tested permissions are granted")));
    }
    let untested = used.iter().filter_map(|permission| match permission.test {
        Test::By(_) => None,
        Test::Impossible(reason) => Some(S.skipped(label(permission), reason)),
    });
    found.extend(untested);
    found
}

fn label(permission: &Permission) -> String {
    let direction = match permission.direction {
        Direction::Publish => "publish to",
        Direction::Subscribe => "subscribe to",
    };
    format!("{direction} {}", permission.subject)
}

fn finding(permission: &Permission, missing: &[String], verify_only: bool) -> Finding {
    let role = if verify_only { "dispatcher-no-provision" } else { "dispatcher" };
    let list = match permission.direction {
        Direction::Publish => "publish",
        Direction::Subscribe => "subscribe",
    };
    let add = format!(
        "add {:?} to `{list}` of the dispatcher's user (nats-config/roles/{role}.conf), and reload the server",
        permission.subject
    );
    let (severity, message, advice) = match &permission.needed {
        Needed::Always => (Severity::Error, "is denied".to_owned(), add),
        Needed::Better(effect) => (Severity::Warning, format!("is denied: {effect}"), add),
        Needed::ToProvision(stream) if missing.contains(stream) => {
            let message = format!("is denied, and {stream} does not exist");
            (Severity::Error, message, format!("{add}, or create the stream and run with --no-provision"))
        }
        Needed::ToProvision(_) => {
            let message = "is denied: a start cannot add subjects or consumers of new templates".to_owned();
            (Severity::Warning, message, format!("{add}, or run with --no-provision"))
        }
    };
    S.finding(severity, label(permission), message).advise(advice).see(links::NATS_PERMISSIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permission(direction: Direction, subject: &str, needed: Needed) -> Permission {
        Permission { direction, subject: subject.to_owned(), needed, test: Test::By(subject.to_owned()) }
    }

    fn denied(subject: &str) -> BTreeSet<(Direction, String)> {
        [(Direction::Publish, subject.to_owned())].into()
    }

    #[test]
    fn violations_of_the_server_are_parsed() {
        for (error, expected) in [
            ("Permissions Violation for Publish to \"a.b\"", Some((Direction::Publish, "a.b"))),
            (
                "Permissions Violation for Subscription to \"a.*\" using queue \"q\"",
                Some((Direction::Subscribe, "a.*")),
            ),
            ("nats: permissions violation for publish to \"A.b\"", Some((Direction::Publish, "A.b"))),
            ("Maximum Payload Violation", None),
            ("Authorization \"x\"", None),
        ] {
            let expected = expected.map(|(direction, subject)| (direction, subject.to_owned()));
            assert_eq!(parse_violation(error), expected, "{error}");
        }
    }

    #[test]
    fn denied_permission_is_an_error_that_names_the_line_of_the_role() {
        let all = [
            permission(Direction::Publish, "a", Needed::Always),
            permission(Direction::Subscribe, "a", Needed::Always),
        ];
        let found = findings(&all, &denied("a"), &[], false);
        assert_eq!(found[0].message, "1 of 2 tested permissions are granted");
        assert_eq!((found[1].severity, found[1].subject.as_str()), (Severity::Error, "publish to a"));
        let advice = found[1].advice.as_ref().unwrap();
        assert!(advice.contains("add \"a\" to `publish`") && advice.contains("roles/dispatcher.conf"));
    }

    #[test]
    fn permission_to_create_is_needed_only_for_missing_streams() {
        let all = [permission(Direction::Publish, "a", Needed::ToProvision("JOBS".to_owned()))];
        let of = |missing: &[String], verify_only| findings(&all, &denied("a"), missing, verify_only);
        assert_eq!(of(&[], true), []);
        assert_eq!(of(&[], false)[0].severity, Severity::Warning);
        let error = of(&["JOBS".to_owned()], false).remove(0);
        assert_eq!(error.severity, Severity::Error);
        assert!(error.advice.unwrap().contains("--no-provision"));
    }

    #[test]
    fn permission_that_cannot_be_tested_says_why() {
        let test = Test::Impossible("readers would receive the message");
        let better = permission(Direction::Publish, "b", Needed::Better("others are not found"));
        let all = [Permission { test, ..permission(Direction::Publish, "a", Needed::Always) }, better];
        let found = findings(&all, &denied("b"), &[], false);
        assert_eq!(found[0].severity, Severity::Warning);
        assert_eq!(found[1].severity, Severity::Skipped);
        assert!(found[1].message.contains("readers would receive"), "{found:?}");
    }
}
