//! Reads the configurations of streams and consumers as the server returns them, and checks them
//! against the allow-list of `contract::settings`.
//!
//! The JSON is read directly: the client library drops the fields that it does not know.

use std::time::Duration;

use async_nats::jetstream::{self, ErrorCode, context::RequestErrorKind, response::Response};
use dispatcher_core::contract::{
    nats_names::NatsNames,
    settings::{Owner, Severity, findings},
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{cli::StartError, retry::with_deadline};

const DEADLINE: Duration = Duration::from_secs(4);

/// Why there is no answer about a stream or consumer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InfoError {
    /// `JetStream` answered with an error.
    #[error("{0}")]
    Refused(String),
    /// No answer, or none about the object, so nothing is known.
    #[error("{0}")]
    NoAnswer(String),
}

impl InfoError {
    /// An error of the start. Without an answer, the start is repeated.
    pub(crate) fn at_start(&self, setting: impl Into<String>) -> StartError {
        StartError::new(setting, self.to_string()).transient_if(matches!(self, Self::NoAnswer(_)))
    }
}

/// The answer to `STREAM.INFO.<name>` or `CONSUMER.INFO.<stream>.<name>`. `None` if the object does
/// not exist.
///
/// # Errors
/// [`InfoError`] without the name of the object.
pub(crate) async fn info(context: &jetstream::Context, subject: &str) -> Result<Option<Value>, InfoError> {
    let answer = with_deadline(DEADLINE, context.request(subject.to_owned(), &json!({}))).await;
    match answer {
        Ok(Ok(Response::Ok(info))) => Ok(Some(info)),
        Ok(Ok(Response::Err { error }))
            if [ErrorCode::STREAM_NOT_FOUND, ErrorCode::CONSUMER_NOT_FOUND].contains(&error.error_code()) =>
        {
            Ok(None)
        }
        Ok(Ok(Response::Err { error })) if is_unavailable(error.error_code()) => {
            Err(InfoError::NoAnswer(error.to_string()))
        }
        Ok(Ok(Response::Err { error })) => Err(InfoError::Refused(error.to_string())),
        Ok(Err(error)) if error.kind() == RequestErrorKind::NoResponders => {
            Err(InfoError::NoAnswer("JetStream is not available in this account".to_owned()))
        }
        Ok(Err(error)) => Err(InfoError::NoAnswer(error.to_string())),
        Err(error) => Err(InfoError::NoAnswer(error.to_string())),
    }
}

/// The names of the streams whose subjects overlap with a pattern.
///
/// # Errors
/// [`InfoError`] if `JetStream` does not answer.
pub(crate) async fn streams_on(
    context: &jetstream::Context,
    pattern: &str,
) -> Result<Vec<String>, InfoError> {
    let query = json!({ "subject": pattern });
    let answer = with_deadline(DEADLINE, context.request("STREAM.NAMES".to_owned(), &query)).await;
    let answer: Response<Value> = answer
        .map_err(|e| InfoError::NoAnswer(e.to_string()))?
        .map_err(|e| InfoError::NoAnswer(e.to_string()))?;
    match answer {
        Response::Ok(answer) => {
            let names = answer.get("streams").and_then(Value::as_array).cloned().unwrap_or_default();
            Ok(names.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        }
        Response::Err { error } => Err(InfoError::Refused(error.to_string())),
    }
}

/// Whether `JetStream` or the object has no leader at the moment. This passes without a change by an
/// operator.
pub(crate) fn is_unavailable(code: ErrorCode) -> bool {
    const UNAVAILABLE: [ErrorCode; 6] = [
        ErrorCode::CLUSTER_NOT_AVAILABLE,
        ErrorCode::CLUSTER_INCOMPLETE,
        ErrorCode::CLUSTER_NOT_ACTIVE,
        ErrorCode::CLUSTER_NOT_LEADER,
        ErrorCode::STREAM_OFFLINE,
        ErrorCode::CONSUMER_OFFLINE,
    ];
    UNAVAILABLE.contains(&code)
}

/// The settings of one object that are not known to be harmless.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Checked {
    /// Those that break a guarantee.
    pub harmful: Vec<String>,
    /// Those that let one client harm another.
    pub warnings: Vec<String>,
}

/// Checks the configuration in `info`, an answer of [`info`].
pub(crate) fn check(
    names: &NatsNames,
    owner: Owner,
    shipped: &impl Serialize,
    info: &Value,
    max_payload: usize,
) -> Checked {
    let shipped = serde_json::to_value(shipped).unwrap_or(Value::Null);
    let found = info.get("config").unwrap_or(&Value::Null);
    let max_payload = u64::try_from(max_payload).unwrap_or(u64::MAX);
    let mut checked = Checked::default();
    for finding in findings(names, owner, &shipped, found, max_payload) {
        match finding.severity {
            Severity::Harmful => checked.harmful.push(finding.to_string()),
            Severity::Warning => checked.warnings.push(finding.to_string()),
        }
    }
    checked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_missing_leader_passes_without_a_change() {
        for code in [10004, 10006, 10008, 10009, 10118, 10119] {
            assert!(is_unavailable(ErrorCode(code)), "{code}");
        }
        // JetStream is not enabled, no space, no such stream, no error code.
        for code in [10039, 10076, 10002, 10023, 10047, 10059, 0] {
            assert!(!is_unavailable(ErrorCode(code)), "{code}");
        }
    }

    #[test]
    fn start_is_repeated_only_without_an_answer() {
        assert!(InfoError::NoAnswer("no leader".to_owned()).at_start("stream JOBS").is_transient());
        assert!(!InfoError::Refused("no space".to_owned()).at_start("stream JOBS").is_transient());
    }
}
