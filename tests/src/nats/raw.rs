//! A NATS client that sends any bytes as headers and reply subjects, as a careless library does.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::wait::TIMEOUT;

/// The subject that answers to [`RawClient::publish`] arrive on.
const INBOX: &str = "_INBOX.raw";

/// A raw connection to a server.
#[derive(Debug)]
pub struct RawClient(TcpStream);

impl RawClient {
    /// Connects to a server without a login.
    ///
    /// # Panics
    /// If the server is not there.
    pub async fn connect(url: &str) -> Self {
        let mut client = Self(TcpStream::connect(url.trim_start_matches("nats://")).await.unwrap());
        let hello = b"CONNECT {\"headers\":true,\"no_responders\":true,\"verbose\":false}\r\n";
        client.0.write_all(hello).await.unwrap();
        client.0.write_all(format!("SUB {INBOX} 1\r\n").as_bytes()).await.unwrap();
        client.until(b"PONG\r\n").await;
        client
    }

    /// Publishes a message and waits until the server has it.
    pub async fn send(&mut self, subject: &str, reply: &[u8], headers: &[u8], payload: &[u8]) {
        self.write(subject, reply, headers, payload).await;
        self.until(b"PONG\r\n").await;
    }

    /// Publishes a request and returns the stream's answer: a `PubAck` or an error.
    ///
    /// # Panics
    /// If no stream answers.
    pub async fn publish(&mut self, subject: &str, headers: &[u8], payload: &[u8]) -> Value {
        self.write(subject, INBOX.as_bytes(), headers, payload).await;
        let answer = self.until(b"}\r\n").await;
        let start = answer.windows(2).position(|bytes| bytes == b"\n{").expect("a JSON answer") + 1;
        let rest = &answer[start..];
        let end = rest.windows(2).position(|bytes| bytes == b"\r\n").expect("the end of the answer");
        serde_json::from_slice(&rest[..end]).expect("a JSON answer")
    }

    async fn write(&mut self, subject: &str, reply: &[u8], headers: &[u8], payload: &[u8]) {
        let sizes = format!(" {} {}\r\n", headers.len(), headers.len() + payload.len());
        let line = [b"HPUB ", subject.as_bytes(), b" ", reply, sizes.as_bytes()].concat();
        self.0.write_all(&[&line, headers, payload, b"\r\n"].concat()).await.unwrap();
    }

    /// Sends a ping and reads until the bytes end with `end`.
    async fn until(&mut self, end: &[u8]) -> Vec<u8> {
        if end == b"PONG\r\n" {
            self.0.write_all(b"PING\r\n").await.unwrap();
        }
        let mut bytes = vec![];
        while !bytes.ends_with(end) {
            let read = timeout(TIMEOUT, self.0.read_buf(&mut bytes)).await.unwrap().unwrap();
            assert_ne!(read, 0, "{}", String::from_utf8_lossy(&bytes));
            if bytes.ends_with(b"PING\r\n") {
                self.0.write_all(b"PONG\r\n").await.unwrap();
                bytes.truncate(bytes.len() - b"PING\r\n".len());
            }
        }
        bytes
    }
}
