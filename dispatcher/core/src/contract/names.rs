//! Names that cannot be wrong, and the subjects made of them.
//!
//! A `TemplateName` and a `JobName` are RFC 1123 labels: Kubernetes needs that for the names of the pods and for label
//! values, NATS for a single subject token. They are checked once, before any subject or object is built.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The longest RFC 1123 label (Kubernetes: "Object Names and IDs").
pub const MAX_LABEL: usize = 63;

/// The longest request identity, in bytes: it travels in headers, annotations and every event.
pub const MAX_REQUEST_ID: usize = 256;

/// Why a text is not the name it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not `[a-z0-9]([-a-z0-9]*[a-z0-9])?`.
    #[error(
        "{0} is not an RFC 1123 label: allowed are at most 63 characters of a-z, 0-9 and '-', \
         beginning and ending with a letter or digit"
    )]
    NotALabel(Quoted),
    /// Empty, too long, or with control characters.
    #[error("{0} is not a request id: allowed are 1 to 256 bytes without control characters")]
    NotARequestId(Quoted),
}

/// Somebody's text in an error message: quoted, escaped and cut to a readable length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quoted(String);

impl Quoted {
    /// Quotes `text`, keeping its first 80 characters.
    pub fn new(text: &str) -> Self {
        let mut cut: String = text.chars().take(80).collect();
        if cut.len() < text.len() {
            cut.push('…');
        }
        Self(format!("{cut:?}"))
    }
}

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `text` is an RFC 1123 label.
pub fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.len() <= MAX_LABEL
        && bytes.first().is_some_and(|b| inner(*b))
        && bytes.last().is_some_and(|b| inner(*b))
        && bytes.iter().all(|b| inner(*b) || *b == b'-')
}

fn label_schema() -> Schema {
    json_schema!({"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": MAX_LABEL})
}

/// Makes a checked newtype over `String`: built only through `TryFrom`, also by serde.
macro_rules! checked_name {
    ($(#[$doc:meta])* $name:ident, $check:expr, $error:path, $schema:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                if $check(&text) { Ok(Self(text)) } else { Err($error(Quoted::new(&text))) }
            }
        }
        impl TryFrom<&str> for $name {
            type Error = NameError;
            fn try_from(text: &str) -> Result<Self, NameError> {
                Self::try_from(text.to_owned())
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

checked_name!(
    /// A template of Job, named by its template: the second token of every subject.
    TemplateName,
    is_label,
    NameError::NotALabel,
    label_schema()
);
checked_name!(
    /// The name of a Job: the last token of its status subject.
    JobName,
    is_label,
    NameError::NotALabel,
    label_schema()
);
checked_name!(
    /// The identity of a request: its `Nats-Msg-Id`, or one derived from its place in the stream.
    RequestId,
    is_request_id,
    NameError::NotARequestId,
    json_schema!({"type": "string", "minLength": 1, "maxLength": MAX_REQUEST_ID})
);

fn is_request_id(text: &str) -> bool {
    (1..=MAX_REQUEST_ID).contains(&text.len()) && !text.chars().any(char::is_control)
}

impl From<Uuid> for RequestId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid.to_string())
    }
}

impl TemplateName {
    /// Where clients publish requests of this template.
    pub fn create_subject(&self) -> String {
        format!("jobs.{self}.create")
    }

    /// Where requests that could not become a Job are kept.
    pub fn rejected_subject(&self) -> String {
        format!("jobs.{self}.rejected")
    }

    /// Where a rejection is told to whoever watches `jobs.<template>.status.>`; `_rejected` is no RFC 1123 label.
    pub fn rejected_notice_subject(&self) -> String {
        format!("jobs.{self}.status._rejected")
    }

    /// Where the stream stores and republishes what is said of the Job `name`.
    pub fn status_subject(&self, name: &JobName) -> String {
        format!("jobs.{self}.status.{name}")
    }

    /// Where the dispatcher publishes an event of the Job `name`: only what `JOB_STATUS` accepts goes on from here.
    pub fn event_subject(&self, name: &JobName) -> String {
        format!("dispatcher.event.{self}.{name}")
    }

    /// The durable consumer of this template's requests.
    pub fn consumer_name(&self) -> String {
        format!("dispatcher-{self}")
    }
}

/// Reads `jobs.<template>.status.<name>`; `None` for any other subject.
pub fn parse_status_subject(subject: &str) -> Option<(TemplateName, JobName)> {
    let (template, name) = subject.strip_prefix("jobs.")?.split_once(".status.")?;
    Some((TemplateName::try_from(template).ok()?, JobName::try_from(name).ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn labels_are_as_in_rfc_1123() {
        for good in ["a", "simple-job-15", "0", "a--b", &"x".repeat(63)] {
            assert!(JobName::try_from(good).is_ok(), "{good}");
        }
        for bad in
            ["", "-a", "a-", "A", "a.b", "a/b", "a b", "a*", ">", "é", "_rejected", "a\n", &"x".repeat(64)]
        {
            assert!(JobName::try_from(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bad_name_is_told_with_what_was_found_and_what_is_allowed() {
        let error = JobName::try_from("No.Label").unwrap_err().to_string();
        assert!(error.contains("\"No.Label\"") && error.contains("at most 63"), "{error}");
    }

    #[test]
    fn a_request_id_is_one_bounded_line() {
        assert!(RequestId::try_from("order 17/äöü").is_ok());
        for bad in ["", "a\nb", "a\rb", "\u{7f}", &"x".repeat(257)] {
            assert!(RequestId::try_from(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn subjects_are_those_of_the_contract() {
        let (template, name) = (TemplateName::try_from("simple").unwrap(), JobName::try_from("a-1").unwrap());
        assert_eq!(template.create_subject(), "jobs.simple.create");
        assert_eq!(template.rejected_subject(), "jobs.simple.rejected");
        assert_eq!(template.rejected_notice_subject(), "jobs.simple.status._rejected");
        assert_eq!(template.status_subject(&name), "jobs.simple.status.a-1");
        assert_eq!(template.event_subject(&name), "dispatcher.event.simple.a-1");
        assert_eq!(template.consumer_name(), "dispatcher-simple");
    }

    #[test]
    fn only_status_subjects_of_jobs_are_read_as_such() {
        assert!(parse_status_subject("jobs.simple.status.a-1").is_some());
        for other in ["jobs.simple.status._rejected", "jobs.simple.create", "jobs.simple.status.a.b", "x"] {
            assert_eq!(parse_status_subject(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn a_name_never_adds_a_token_or_a_wildcard(text in ".{0,70}") {
            if let Ok(name) = JobName::try_from(text) {
                let template = TemplateName::try_from("simple").unwrap();
                let subject = template.status_subject(&name);
                prop_assert_eq!(subject.split('.').count(), 4);
                prop_assert!(!subject.contains(['*', '>', ' ']));
                prop_assert_eq!(parse_status_subject(&subject), Some((template, name)));
            }
        }
    }
}
