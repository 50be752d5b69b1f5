//! Poison messages: requests that NATS stores and that the client library cannot decode. Each
//! becomes a dead letter, and none blocks the next request.

use dispatcher_tests::job_controller::managed_template;
use dispatcher_tests::or_skip;
use dispatcher_tests::test_env::{TestEnv, header};
use dispatcher_tests::wait::{TIMEOUT, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Publishes raw bytes as headers, which no client library does, and waits for the server.
async fn publish_raw(env: &TestEnv, headers: &[u8], payload: &[u8]) {
    let mut server = TcpStream::connect(env.nats.url.trim_start_matches("nats://")).await.unwrap();
    let sizes = format!("{} {}", headers.len(), headers.len() + payload.len());
    server.write_all(b"CONNECT {\"headers\":true,\"verbose\":false}\r\n").await.unwrap();
    server.write_all(format!("HPUB jobs.simple.create {sizes}\r\n").as_bytes()).await.unwrap();
    server.write_all(&[headers, payload, b"\r\nPING\r\n"].concat()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"PONG\r\n") {
        let read = tokio::time::timeout(TIMEOUT, server.read_buf(&mut answer)).await.unwrap().unwrap();
        assert_ne!(read, 0, "{}", String::from_utf8_lossy(&answer));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn request_with_undecodable_headers_is_rejected_and_blocks_no_other() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let dispatcher = env.dispatcher().templates(templates).start().await;
    let bad: [&[u8]; 2] = [b"NATS/1.0\r\nA: \xff\r\n\r\n", b"NATS/1.0\r\nno colon\r\n\r\n"];
    for (sequence, headers) in (1..).zip(bad) {
        publish_raw(&env, headers, br#"{"foo":"bad"}"#).await;
        let dead_letter = env.dead_letter(sequence).await;
        assert_eq!(header(&dead_letter, "Job-Error"), "InvalidHeaders");
        assert!(header(&dead_letter, "Job-Error-Message").contains("headers"), "{:?}", dead_letter.headers);
        assert_eq!(&dead_letter.payload[..], br#"{"foo":"bad"}"#);
    }
    env.request(r#"{"foo":"next"}"#).await;
    env.until_last("simple-job-next", "ADDED").await;
    env.until_queue_is_empty().await;
    assert_eq!(env.dead_letters().await.len(), bad.len());
    assert_eq!(dispatcher.terminate().await, Some(0));
}

/// A carriage return in a header value closes the client permanently, so the dispatcher exits. Its
/// next start removes the message before it is redelivered.
#[tokio::test(flavor = "multi_thread")]
async fn request_that_closes_the_client_is_rejected_at_the_next_start() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let dispatcher = env.dispatcher().templates(templates).start().await;
    for _ in 0..2 {
        publish_raw(&env, b"NATS/1.0\r\nA: b\rc\r\n\r\n", br#"{"foo":"bad"}"#).await;
    }
    env.request(r#"{"foo":"next"}"#).await;
    assert_eq!(dispatcher.wait().await, Some(1), "{}", dispatcher.log());
    dispatcher.restart().await;
    env.until_last("simple-job-next", "ADDED").await;
    until("both dead letters", TIMEOUT, || async {
        let dead_letters = env.dead_letters().await;
        if dead_letters.len() == 2 { Ok(()) } else { Err(dead_letters.len()) }
    })
    .await;
    env.until_queue_is_empty().await;
}
