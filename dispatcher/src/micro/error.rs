//! Error answers of the NATS service: an error code, an HTTP status, and a message.

use async_nats::HeaderMap;
use dispatcher_core::contract::{
    headers::{
        JOB_ERROR, JOB_ERROR_MESSAGE, JOB_NAME, JOB_REQUEST_ID, JOB_REQUEST_SEQ, NATS_SERVICE_ERROR,
        NATS_SERVICE_ERROR_CODE, safe_value,
    },
    names::{JobName, RequestId},
    rejection::{Reason, Rejection},
};

/// Classifies an error: the header `Job-Error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorCode {
    /// The request is rejected, or would be.
    Rejected(Reason),
    /// The request is larger than the stream accepts.
    TooLarge,
    /// The payload or a header of the call is invalid.
    BadRequest,
    /// The request belongs to another account.
    Forbidden,
    /// Neither a Job nor a queued request was found.
    NotFound,
    /// The Job does not exist yet: its request is queued.
    Queued,
    /// The queue accepts no more requests of this template.
    QueueFull,
    /// Too many callers are being served or are waiting.
    Overloaded,
    /// NATS or Kubernetes is unavailable, or the dispatcher is stopping.
    NotReady,
    /// The awaited event did not arrive in time.
    TimedOut,
}

impl ErrorCode {
    /// The value of the header.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Rejected(reason) => reason.as_str(),
            Self::TooLarge => "TooLarge",
            Self::BadRequest => "BadRequest",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "NotFound",
            Self::Queued => "Queued",
            Self::QueueFull => "QueueFull",
            Self::Overloaded => "Overloaded",
            Self::NotReady => "NotReady",
            Self::TimedOut => "TimedOut",
        }
    }

    /// The header `Nats-Service-Error-Code`, a status code of HTTP (RFC 9110, section 15).
    #[must_use]
    pub(crate) fn http_status(self) -> u16 {
        match self {
            Self::Rejected(Reason::RequestIdReused | Reason::NameTaken | Reason::Cancelled) => 409,
            Self::Rejected(
                Reason::InvalidJson
                | Reason::InvalidRequest
                | Reason::InvalidName
                | Reason::InvalidHeaders
                | Reason::InvalidRequestId
                | Reason::Refused,
            )
            | Self::BadRequest => 400,
            Self::Forbidden => 403,
            Self::TooLarge => 413,
            Self::NotFound | Self::Queued => 404,
            Self::Rejected(Reason::TemplateDeleted) => 410,
            Self::QueueFull => 429,
            Self::Rejected(Reason::RetriesExhausted) | Self::Overloaded | Self::NotReady => 503,
            Self::TimedOut => 504,
        }
    }
}

/// An error answer, with the Job and the request it concerns as far as they are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceError {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
    name: Option<JobName>,
    request_id: Option<RequestId>,
    request_seq: Option<u64>,
}

impl ServiceError {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), name: None, request_id: None, request_seq: None }
    }

    /// [`ErrorCode::NotReady`]; the message names the unavailable part.
    pub(crate) fn not_ready(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::NotReady, message)
    }

    /// Adds the Job's name.
    #[must_use]
    pub(crate) fn with_job(self, name: &JobName) -> Self {
        Self { name: Some(name.clone()), ..self }
    }

    /// Adds the request's id.
    #[must_use]
    pub(crate) fn with_request(self, id: &RequestId) -> Self {
        Self { request_id: Some(id.clone()), ..self }
    }

    /// Adds the sequence of the stored request.
    #[must_use]
    pub(crate) fn with_sequence(self, sequence: u64) -> Self {
        Self { request_seq: Some(sequence), ..self }
    }

    /// The word and the message on one line: the header `Nats-Service-Error`.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        safe_value(&format!("{}: {}", self.code.as_str(), self.message))
    }

    /// The headers of the answer: those of a dead letter, and those of ADR-32.
    #[must_use]
    pub(crate) fn headers(&self) -> HeaderMap {
        let mut map = HeaderMap::new();
        map.insert(NATS_SERVICE_ERROR, self.text());
        map.insert(NATS_SERVICE_ERROR_CODE, self.code.http_status().to_string());
        map.insert(JOB_ERROR, self.code.as_str());
        map.insert(JOB_ERROR_MESSAGE, safe_value(&self.message));
        if let Some(name) = &self.name {
            map.insert(JOB_NAME, name.as_ref());
        }
        if let Some(id) = &self.request_id {
            map.insert(JOB_REQUEST_ID, safe_value(id.as_ref()));
        }
        if let Some(sequence) = self.request_seq {
            map.insert(JOB_REQUEST_SEQ, sequence.to_string());
        }
        map
    }
}

impl From<Rejection> for ServiceError {
    fn from(rejection: Rejection) -> Self {
        let Rejection { reason, message, name } = rejection;
        Self { name, ..Self::new(ErrorCode::Rejected(reason), message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_code_has_the_http_status_of_the_protocol() {
        for (code, status) in [
            (ErrorCode::Rejected(Reason::InvalidRequest), 400),
            (ErrorCode::Rejected(Reason::Refused), 400),
            (ErrorCode::TooLarge, 413),
            (ErrorCode::Forbidden, 403),
            (ErrorCode::Queued, 404),
            (ErrorCode::NotFound, 404),
            (ErrorCode::Rejected(Reason::NameTaken), 409),
            (ErrorCode::Rejected(Reason::RequestIdReused), 409),
            (ErrorCode::QueueFull, 429),
            (ErrorCode::Overloaded, 503),
            (ErrorCode::NotReady, 503),
            (ErrorCode::TimedOut, 504),
        ] {
            assert_eq!(code.http_status(), status, "{}", code.as_str());
        }
    }

    #[test]
    fn error_headers_are_single_lines_without_control_characters() {
        let rejection = Rejection::new(Reason::InvalidName, "found \"a\r\nb\"\n");
        let name = JobName::try_from("a").unwrap();
        let answer = ServiceError::from(rejection).with_job(&name).with_sequence(7);
        let text = answer.text();
        assert!(text.starts_with("InvalidName: found"), "{text}");
        assert!(!text.contains(char::is_control));
        let headers = answer.headers();
        for (name, value) in [
            ("Nats-Service-Error-Code", "400"),
            ("Job-Error", "InvalidName"),
            ("Job-Name", "a"),
            ("Job-Request-Seq", "7"),
        ] {
            assert_eq!(headers.get(name).unwrap().as_str(), value);
        }
    }
}
