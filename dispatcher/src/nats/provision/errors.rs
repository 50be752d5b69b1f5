//! Errors of the start about the server, a stream or a consumer: which setting is wrong, or whether the
//! start is repeated.

use std::fmt::Write;

use async_nats::jetstream::{
    ErrorCode,
    context::{CreateStreamError, CreateStreamErrorKind},
    stream::{Config, ConsumerError, ConsumerErrorKind},
};
use dispatcher_core::versions;

use crate::{cli::StartError, kube::chain, nats::settings};

/// The server or the account has no space for a stream.
const NO_SPACE: [ErrorCode; 3] = [
    ErrorCode::STORAGE_RESOURCES_EXCEEDED,
    ErrorCode::INSUFFICIENT_RESOURCES,
    ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
];

/// The error for a stream or consumer that `--no-provision` does not find.
pub(super) const NOT_FOUND: &str = "not found, and --no-provision forbids to create it";

/// The server does not create a stream.
pub(super) fn create_error(expected: &Config, error: &CreateStreamError) -> StartError {
    let mut message = chain(error);
    let code = match error.kind() {
        CreateStreamErrorKind::JetStream(error) => Some(error.error_code()),
        _ => None,
    };
    if code.is_some_and(|code| NO_SPACE.contains(&code)) {
        let _ = write!(
            message,
            " (it reserves max_bytes={}: raise max_file_store of the server or the limits of the account, \
             or create the stream with a smaller max_bytes)",
            expected.max_bytes
        );
    }
    let away = code.is_none_or(settings::is_unavailable);
    StartError::new(format!("stream {}", expected.name), message).transient_if(away)
}

/// Without an answer, or without a leader, the start is repeated.
pub(super) fn consumer_error(setting: &str, error: &ConsumerError) -> StartError {
    let away = match error.kind() {
        // A missing consumer is created, except with `--no-provision`.
        _ if is_missing(error) => return StartError::new(setting, NOT_FOUND),
        ConsumerErrorKind::JetStream(error) => settings::is_unavailable(error.error_code()),
        ConsumerErrorKind::TimedOut | ConsumerErrorKind::Request | ConsumerErrorKind::Other => true,
        ConsumerErrorKind::InvalidConsumerType | ConsumerErrorKind::InvalidName => false,
    };
    StartError::new(setting, chain(error)).transient_if(away)
}

/// Whether the consumer does not exist.
pub(super) fn is_missing(error: &ConsumerError) -> bool {
    matches!(error.kind(), ConsumerErrorKind::JetStream(error) if error.error_code() == ErrorCode::CONSUMER_NOT_FOUND)
}

/// Refuses a server that is too old.
pub(super) fn check_server(version: &str) -> Result<(), StartError> {
    if !versions::is_too_old(version) {
        return Ok(());
    }
    let (major, minor) = versions::OLDEST_NATS;
    Err(StartError::new("NATS_URL", format!("the server is {version}, {major}.{minor} or newer is needed")))
}

#[cfg(test)]
mod tests {
    use dispatcher_core::contract::nats_names::NatsNames;

    use super::*;
    use crate::nats::definitions;

    #[test]
    fn unanswered_requests_repeat_the_start() {
        let expected = definitions::job_status(&NatsNames::default());
        let answer = |code: u16| -> async_nats::jetstream::Error {
            serde_json::from_value(serde_json::json!({"code": 500, "err_code": code})).unwrap()
        };
        let create = |kind| create_error(&expected, &CreateStreamError::new(kind)).is_transient();
        let consumer = |kind| consumer_error("consumer", &ConsumerError::new(kind)).is_transient();
        for away in [CreateStreamErrorKind::TimedOut, CreateStreamErrorKind::JetStreamUnavailable] {
            assert!(create(away.clone()), "{away}");
        }
        assert!(create(CreateStreamErrorKind::Response) && create(CreateStreamErrorKind::ResponseParse));
        for away in [ConsumerErrorKind::TimedOut, ConsumerErrorKind::Request, ConsumerErrorKind::Other] {
            assert!(consumer(away.clone()), "{away}");
        }
        // Without a leader; without space; without the consumer.
        for (code, transient) in [(10009, true), (10047, false), (10014, false)] {
            assert_eq!(create(CreateStreamErrorKind::JetStream(answer(code))), transient, "{code}");
            assert_eq!(consumer(ConsumerErrorKind::JetStream(answer(code))), transient, "{code}");
        }
        assert!(!consumer(ConsumerErrorKind::InvalidConsumerType));
    }
}
