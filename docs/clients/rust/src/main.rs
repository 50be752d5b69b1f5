//! Requests a Job and prints its outcome. Usage: `client-example [REQUEST]`

use std::time::Duration;

#[tokio::main]
async fn main() -> Result<(), async_nats::Error> {
    let payload = std::env::args().nth(1).unwrap_or(r#"{"foo":"rust"}"#.to_owned());
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Job-Wait", "outcome");
    let request = async_nats::Request::new().headers(headers).payload(payload.into());
    let request = request.timeout(Some(Duration::from_secs(60)));

    let client = async_nats::connect(std::env::var("NATS_URL")?).await?;
    let answer = client.send_request("jobs.simple.submit", request).await?;
    let headers = answer.headers.unwrap_or_default();
    if let Some(error) = headers.get("Nats-Service-Error") {
        eprintln!("{error}");
        std::process::exit(1);
    }
    let event: serde_json::Value = serde_json::from_slice(&answer.payload)?;
    let result = event.pointer("/outcome/result").and_then(serde_json::Value::as_str);
    println!("{}", result.ok_or("the answer has no outcome")?);
    Ok(())
}
