//! A client of the NATS service `dispatcher` (ADR-32).

use std::time::Duration;

use async_nats::{Client, HeaderMap, Request};
use dispatcher_tests::wait::TIMEOUT;
use serde_json::Value;

/// An error answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceError {
    pub(crate) code: u64,
    /// The header `Job-Error`.
    pub(crate) error: String,
    pub(crate) message: String,
    pub(crate) headers: HeaderMap,
}

/// Calls `jobs.simple.<endpoint>` and returns the answer's JSON or its error.
pub(crate) async fn call_service(
    client: &Client,
    endpoint: &str,
    headers: &[(&str, &str)],
    payload: &str,
) -> Result<Value, ServiceError> {
    let subject = format!("jobs.simple.{endpoint}");
    try_call_service(client, &subject, headers, payload, TIMEOUT)
        .await
        .unwrap_or_else(|error| panic!("no answer on {subject} to {payload}: {error}"))
}

/// Like [`call_service`], but a timeout is the outer error.
pub(crate) async fn try_call_service(
    client: &Client,
    subject: &str,
    headers: &[(&str, &str)],
    payload: &str,
    timeout: Duration,
) -> Result<Result<Value, ServiceError>, async_nats::RequestError> {
    let map = headers.iter().fold(HeaderMap::new(), |mut map, (name, value)| {
        map.insert(*name, *value);
        map
    });
    let request = Request::new().headers(map).payload(payload.to_owned().into()).timeout(Some(timeout));
    let answer = client.send_request(subject.to_owned(), request).await?;
    let headers = answer.headers.unwrap_or_default();
    let header = |name: &str| headers.get(name).map(|value| value.as_str().to_owned()).unwrap_or_default();
    Ok(match header("Nats-Service-Error-Code") {
        code if code.is_empty() => {
            Ok(serde_json::from_slice(&answer.payload).expect("the answer is not JSON"))
        }
        code => Err(ServiceError {
            code: code.parse().unwrap(),
            error: header("Job-Error"),
            message: header("Nats-Service-Error"),
            headers: headers.clone(),
        }),
    })
}

/// The code and the `Job-Error` of an answer.
///
/// # Panics
/// If the call succeeded.
pub(crate) fn code_and_error(answer: Result<Value, ServiceError>) -> (u64, String) {
    let error = answer.expect_err("the call succeeded");
    (error.code, error.error)
}
