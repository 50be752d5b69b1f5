//! The clients in `dispatcher dev`: readiness probes for NATS and the dispatcher, and a subscriber
//! that prints status events.

use std::{io, net::Ipv4Addr, time::Duration};

use async_nats::{Client, ConnectOptions, jetstream};
use futures::StreamExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::dev::output;

/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(50);
/// The time limit of one try.
const DEADLINE: Duration = Duration::from_secs(5);

/// Connects to NATS and returns once `JetStream` answers. The caller sets the overall time limit.
pub(super) async fn connect(url: &str) -> Client {
    loop {
        let options = ConnectOptions::new().name("dispatcher dev").connection_timeout(DEADLINE);
        if let Ok(client) = options.max_reconnects(None).connect(url).await {
            let context = jetstream::ContextBuilder::new().timeout(DEADLINE).build(client.clone());
            if context.query_account().await.is_ok() {
                return client;
            }
        }
        sleep(PAUSE).await;
    }
}

/// Returns once the dispatcher's `/readyz` answers 200. The caller sets the overall time limit.
pub(super) async fn dispatcher_ready(port: u16) {
    while !matches!(timeout(DEADLINE, is_ready(port)).await, Ok(Ok(true))) {
        sleep(PAUSE).await;
    }
}

async fn is_ready(port: u16) -> io::Result<bool> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.starts_with("HTTP/1.1 200 "))
}

/// Prints status events until `stop` is cancelled and every received event is printed.
///
/// # Errors
/// The subscription fails or ends.
pub(super) async fn print_events(client: Client, stop: CancellationToken) -> Result<(), String> {
    let mut messages = client.subscribe("jobs.*.status.>").await.map_err(|error| error.to_string())?;
    loop {
        tokio::select! {
            biased;
            message = messages.next() => match message {
                Some(message) => output::print(&output::event(&message.subject, &message.payload)),
                None => return Err("the subscription ended".to_owned()),
            },
            () = stop.cancelled() => return Ok(()),
        }
    }
}
