//! Requests that NATS stores and that the client library cannot read: none is lost, and none stops the next.

use dispatcher_tests::or_skip;
use dispatcher_tests::wait::{TIMEOUT as PATIENCE, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use dispatcher_tests::job_controller::managed_template;
use dispatcher_tests::test_env::{TestEnv as World, header};

/// Publishes as no client library would, and waits until the server has taken it.
async fn publish_raw(world: &World, headers: &[u8], payload: &[u8]) {
    let mut server = TcpStream::connect(world.nats.url.trim_start_matches("nats://")).await.unwrap();
    let sizes = format!("{} {}", headers.len(), headers.len() + payload.len());
    server.write_all(b"CONNECT {\"headers\":true,\"verbose\":false}\r\n").await.unwrap();
    server.write_all(format!("HPUB jobs.simple.create {sizes}\r\n").as_bytes()).await.unwrap();
    server.write_all(&[headers, payload, b"\r\nPING\r\n"].concat()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"PONG\r\n") {
        let read = tokio::time::timeout(PATIENCE, server.read_buf(&mut answer)).await.unwrap().unwrap();
        assert_ne!(read, 0, "{}", String::from_utf8_lossy(&answer));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_headers_are_no_text_is_rejected_and_stops_no_other() {
    let world = or_skip!(World::start().await);
    let (_folder, templates) = managed_template();
    let dispatcher = world.dispatcher().templates(templates).start().await;
    let bad: [&[u8]; 2] = [b"NATS/1.0\r\nA: \xff\r\n\r\n", b"NATS/1.0\r\nno colon\r\n\r\n"];
    for (sequence, headers) in (1..).zip(bad) {
        publish_raw(&world, headers, br#"{"foo":"bad"}"#).await;
        let letter = world.dead_letter(sequence).await;
        assert_eq!(header(&letter, "Job-Error"), "InvalidHeaders");
        assert!(header(&letter, "Job-Error-Message").contains("headers"), "{:?}", letter.headers);
        assert_eq!(&letter.payload[..], br#"{"foo":"bad"}"#);
    }
    world.request(r#"{"foo":"next"}"#).await;
    world.until_last("simple-job-next", "ADDED").await;
    world.until_queue_is_empty().await;
    assert_eq!(world.dead_letters().await.len(), bad.len());
    assert_eq!(dispatcher.terminate().await, Some(0));
}

/// A carriage return within a value ends the client library for good: the program ends too, and its next start takes
/// the request out before it could be delivered again.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_ends_the_client_library_is_rejected_at_the_next_start() {
    let world = or_skip!(World::start().await);
    let (_folder, templates) = managed_template();
    let dispatcher = world.dispatcher().templates(templates).start().await;
    for _ in 0..2 {
        publish_raw(&world, b"NATS/1.0\r\nA: b\rc\r\n\r\n", br#"{"foo":"bad"}"#).await;
    }
    world.request(r#"{"foo":"next"}"#).await;
    assert_eq!(dispatcher.wait().await, Some(1), "{}", dispatcher.log());
    dispatcher.restart().await;
    world.until_last("simple-job-next", "ADDED").await;
    until("both to be rejected", PATIENCE, || async {
        let letters = world.dead_letters().await;
        if letters.len() == 2 { Ok(()) } else { Err(letters.len()) }
    })
    .await;
    world.until_queue_is_empty().await;
}
