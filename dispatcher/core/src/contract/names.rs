//! Validated names.
//!
//! A `TemplateName` and a `JobName` are RFC 1123 labels. Kubernetes requires that for pod names and
//! label values, and such a label is always a single NATS subject token.

use std::{fmt, sync::Arc};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Stream metadata with the uid of the Jobs' namespace: the stream belongs to this cluster.
pub const METADATA_NAMESPACE_UID: &str = prefixed!("namespace-uid");

/// The longest RFC 1123 label (Kubernetes: "Object Names and IDs").
pub const MAX_LABEL: usize = 63;

/// The longest request id, in bytes. It is part of headers, annotations and every event.
pub const MAX_REQUEST_ID: usize = 256;

/// The text is not a valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not `[a-z0-9]([-a-z0-9]*[a-z0-9])?`.
    #[error(
        "{0} is not an RFC 1123 label (at most 63 characters of a-z, 0-9 and '-', \
         starting and ending with a letter or digit)"
    )]
    NotALabel(Quoted),
    /// Empty, too long, or with control characters.
    #[error("{0} is not a valid request id (1 to 256 bytes without control characters)")]
    NotARequestId(Quoted),
}

/// Untrusted text in an error message: quoted, escaped and truncated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quoted(String);

impl Quoted {
    /// Quotes the first 80 characters of `text`.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut start: String = text.chars().take(80).collect();
        if start.len() < text.len() {
            start.push('…');
        }
        Self(format!("{start:?}"))
    }
}

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `text` is an RFC 1123 label.
#[must_use]
pub fn is_label(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.len() <= MAX_LABEL
        && bytes.first().is_some_and(|b| alphanumeric(*b))
        && bytes.last().is_some_and(|b| alphanumeric(*b))
        && bytes.iter().all(|b| alphanumeric(*b) || *b == b'-')
}

fn label_schema() -> Schema {
    json_schema!({"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": MAX_LABEL})
}

/// Defines a newtype over a string that only `TryFrom` can build, also when serde decodes it. Clones
/// share the text: many parts of the dispatcher hold the same names.
macro_rules! validated_name {
    ($(#[$doc:meta])* $name:ident, $is_valid:expr, $error:path, $schema:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::try_from(text.as_str())
            }
        }
        impl TryFrom<&str> for $name {
            type Error = NameError;
            fn try_from(text: &str) -> Result<Self, NameError> {
                if $is_valid(text) { Ok(Self(text.into())) } else { Err($error(Quoted::new(text))) }
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
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

validated_name!(
    /// The name of a template: a token of every subject.
    TemplateName,
    is_label,
    NameError::NotALabel,
    label_schema()
);
validated_name!(
    /// The name of a Job: the last token of its status subject.
    JobName,
    is_label,
    NameError::NotALabel,
    label_schema()
);
validated_name!(
    /// The id of a request: its `Nats-Msg-Id`, or an id derived from its position in the stream.
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
        Self(uuid.to_string().into())
    }
}

impl TemplateName {
    /// The durable consumer of this template's requests.
    #[must_use]
    pub fn consumer_name(&self) -> String {
        format!("dispatcher-{self}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn job_name_is_an_rfc_1123_label() {
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
    fn name_error_shows_the_text_and_the_rule() {
        let error = JobName::try_from("No.Label").unwrap_err().to_string();
        assert!(error.contains("\"No.Label\"") && error.contains("at most 63"), "{error}");
    }

    #[test]
    fn request_id_has_bounded_length_and_no_control_characters() {
        assert!(RequestId::try_from("order 17/äöü").is_ok());
        for bad in ["", "a\nb", "a\rb", "\u{7f}", &"x".repeat(257)] {
            assert!(RequestId::try_from(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn consumer_has_the_name_of_its_template() {
        assert_eq!(TemplateName::try_from("simple").unwrap().consumer_name(), "dispatcher-simple");
    }

    proptest! {
        #[test]
        fn job_name_is_one_token_without_wildcards(text in ".{0,70}") {
            if let Ok(name) = JobName::try_from(text) {
                prop_assert!(!name.as_ref().contains(['.', '*', '>', ' ']));
            }
        }
    }
}
