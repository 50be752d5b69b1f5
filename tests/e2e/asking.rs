//! A caller of the micro service.

use std::time::Duration;

use async_nats::{Client, HeaderMap, Request};
use serde_json::Value;

use dispatcher_tests::wait::TIMEOUT as PATIENCE;

/// An answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) code: u64,
    pub(crate) word: String,
    pub(crate) message: String,
    pub(crate) headers: HeaderMap,
}

/// Asks `jobs.simple.<verb>`; the answer's JSON, or the error.
pub(crate) async fn ask(
    client: &Client,
    verb: &str,
    headers: &[(&str, &str)],
    payload: &str,
) -> Result<Value, Refused> {
    let subject = format!("jobs.simple.{verb}");
    match try_ask(client, &subject, headers, payload, PATIENCE).await {
        Ok(answer) => answer,
        Err(error) => panic!("{subject} {payload}: {error}"),
    }
}

/// The same with an end to the patience: the error of a caller who got no answer.
pub(crate) async fn try_ask(
    client: &Client,
    subject: &str,
    headers: &[(&str, &str)],
    payload: &str,
    patience: Duration,
) -> Result<Result<Value, Refused>, async_nats::RequestError> {
    let map = headers.iter().fold(HeaderMap::new(), |mut map, (name, value)| {
        map.insert(*name, *value);
        map
    });
    let request = Request::new().headers(map).payload(payload.to_owned().into()).timeout(Some(patience));
    let answer = client.send_request(subject.to_owned(), request).await?;
    let headers = answer.headers.unwrap_or_default();
    let header = |name: &str| headers.get(name).map(|value| value.as_str().to_owned()).unwrap_or_default();
    Ok(match header("Nats-Service-Error-Code") {
        code if code.is_empty() => Ok(serde_json::from_slice(&answer.payload).expect("an answer is JSON")),
        code => Err(Refused {
            code: code.parse().unwrap(),
            word: header("Job-Error"),
            message: header("Nats-Service-Error"),
            headers: headers.clone(),
        }),
    })
}

/// Code and word of an answer that must be an error.
pub(crate) fn refused(answer: Result<Value, Refused>) -> (u64, String) {
    let refused = answer.expect_err("an error");
    (refused.code, refused.word)
}
