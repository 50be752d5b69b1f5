//! An answer that is an error: one word for programs, a code after HTTP's, one sentence for people.

use async_nats::{HeaderMap, service::error::Error};

use dispatcher_core::contract::{
    headers::{JOB_ERROR, JOB_ERROR_MESSAGE, JOB_NAME, JOB_REQUEST_ID, JOB_REQUEST_SEQ, safe_value},
    names::{JobName, RequestId},
    rejection::{Reason, Rejection},
};

/// Why there is no answer but an error: the header `Job-Error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// The request is, or would be, rejected.
    Rejected(Reason),
    /// The request is larger than the stream takes.
    TooLarge,
    /// The query itself is not one: no JSON object, an unknown field, a header that has no such value.
    BadRequest,
    /// Nothing is known of that Job.
    NotFound,
    /// Nothing is known of that Job yet: its request is in the queue.
    Queued,
    /// The queue takes no more requests of this template.
    QueueFull,
    /// Too many callers are served or wait at once.
    Overloaded,
    /// NATS or Kubernetes does not answer as it should, or the service is stopping.
    NotReady,
    /// What was waited for has not come in time.
    TimedOut,
}

impl ErrorCode {
    /// The word itself.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rejected(reason) => reason.as_str(),
            Self::TooLarge => "TooLarge",
            Self::BadRequest => "BadRequest",
            Self::NotFound => "NotFound",
            Self::Queued => "Queued",
            Self::QueueFull => "QueueFull",
            Self::Overloaded => "Overloaded",
            Self::NotReady => "NotReady",
            Self::TimedOut => "TimedOut",
        }
    }

    /// The header `Nats-Service-Error-Code`, with the meaning that HTTP gives it (RFC 9110, section 15).
    pub fn code(self) -> usize {
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
            Self::TooLarge => 413,
            Self::NotFound | Self::Queued => 404,
            Self::QueueFull => 429,
            Self::Overloaded | Self::NotReady => 503,
            Self::TimedOut => 504,
        }
    }
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceError {
    /// The word.
    pub word: ErrorCode,
    /// For the reader: what was found, what is allowed, what to do.
    pub message: String,
    /// The Job's name, where it is known and valid.
    pub name: Option<JobName>,
    /// The request's identity, where it has one.
    pub request_id: Option<RequestId>,
    /// The request's sequence in `JOBS`, where it is stored.
    pub request_seq: Option<u64>,
}

impl ServiceError {
    /// A refusal that concerns no request that is known.
    pub fn new(word: ErrorCode, message: impl Into<String>) -> Self {
        Self { word, message: message.into(), name: None, request_id: None, request_seq: None }
    }

    /// [`ErrorCode::NotReady`], with what does not answer.
    pub fn not_ready(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::NotReady, message)
    }

    /// The same, of the Job `name`.
    pub fn of(self, name: &JobName) -> Self {
        Self { name: Some(name.clone()), ..self }
    }

    /// The same, of the request `id`.
    pub fn of_request(self, id: &RequestId) -> Self {
        Self { request_id: Some(id.clone()), ..self }
    }

    /// The same, of a request that is stored.
    pub fn stored_at(self, sequence: u64) -> Self {
        Self { request_seq: Some(sequence), ..self }
    }

    /// As the micro service answers: `Nats-Service-Error` and `Nats-Service-Error-Code`.
    pub fn error(&self) -> Error {
        Error {
            status: safe_value(&format!("{}: {}", self.word.as_str(), self.message)),
            code: self.word.code(),
        }
    }

    /// The headers beside those of the micro service: the same as on a rejection.
    pub fn headers(&self) -> HeaderMap {
        let mut map = HeaderMap::new();
        map.insert(JOB_ERROR, self.word.as_str());
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
    fn each_word_has_the_code_of_the_contract() {
        for (word, code) in [
            (ErrorCode::Rejected(Reason::InvalidRequest), 400),
            (ErrorCode::Rejected(Reason::Refused), 400),
            (ErrorCode::TooLarge, 413),
            (ErrorCode::Queued, 404),
            (ErrorCode::NotFound, 404),
            (ErrorCode::Rejected(Reason::NameTaken), 409),
            (ErrorCode::Rejected(Reason::RequestIdReused), 409),
            (ErrorCode::QueueFull, 429),
            (ErrorCode::Overloaded, 503),
            (ErrorCode::NotReady, 503),
            (ErrorCode::TimedOut, 504),
        ] {
            assert_eq!(word.code(), code, "{}", word.as_str());
        }
    }

    #[test]
    fn an_error_is_one_line_with_word_and_sentence() {
        let rejection = Rejection::new(Reason::InvalidName, "found \"a\r\nb\"\n");
        let refusal = ServiceError::from(rejection).of(&JobName::try_from("a").unwrap()).stored_at(7);
        let error = refusal.error();
        assert_eq!(error.code, 400);
        assert!(error.status.starts_with("InvalidName: found"), "{}", error.status);
        assert!(!error.status.contains(char::is_control));
        let headers = refusal.headers();
        for (name, value) in [("Job-Error", "InvalidName"), ("Job-Name", "a"), ("Job-Request-Seq", "7")] {
            assert_eq!(headers.get(name).unwrap().as_str(), value);
        }
    }
}
