//! A proxy for a single NATS server: plain TCP without TLS.
//!
//! It does not work for a NATS cluster: each server announces the others (`connect_urls`), so
//! clients would bypass the proxy.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::breakpoint::{Breakpoint, Point, Points, Side};
use super::messages::Messages;
use super::protocol::{self, Publish, Published};

/// The free space in the buffer before each read, in bytes. A smaller value would cause more reads,
/// and [`NatsProxy::slow`] delays each read.
const PIECE: usize = 64 << 10;
/// The maximum number of bytes that the proxy buffers while a breakpoint holds them.
const WITHHELD: usize = 16 << 20;

/// A running proxy. Dropping it stops the proxy.
pub struct NatsProxy {
    /// The URL for clients.
    pub url: String,
    /// Counts the messages that clients have `sent` and `received`.
    pub messages: Messages,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

impl NatsProxy {
    /// Starts a proxy for the server at `nats://<host>:<port>`.
    ///
    /// # Panics
    /// If there is no free port.
    pub async fn start(url: &str) -> Self {
        let server = url.trim_start_matches("nats://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port is free");
        let url = format!("nats://{}", listener.local_addr().expect("the listener has an address"));
        let shared = Arc::new(Shared { server, ..Shared::default() });
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(accept(listener, shared.clone())));
        Self { url, messages: shared.messages.clone(), shared, _stop: stop.drop_guard() }
    }

    /// Breaks all connections and refuses new ones, until [`Self::heal`].
    pub fn partition(&self) {
        self.shared.mode.send_replace(Mode::Partition);
    }

    /// Accepts connections but forwards nothing, until [`Self::heal`] forwards the accumulated
    /// data.
    pub fn half_open(&self) {
        self.shared.mode.send_replace(Mode::HalfOpen);
    }

    /// Delays all data in both directions and limits the rate, until [`Self::heal`].
    pub fn slow(&self, delay: Duration, bytes_per_second: u32) {
        self.shared.set_pace(Some((delay, bytes_per_second.max(1))));
    }

    /// Ends [`Self::partition`], [`Self::half_open`] and [`Self::slow`].
    pub fn heal(&self) {
        self.shared.set_pace(None);
        self.shared.mode.send_replace(Mode::Pass);
    }

    /// Holds the `nth` matching publish, and everything that the client sends after it on the same
    /// connection. Counting starts now, at 1.
    #[must_use]
    pub fn hold_before(&self, publishes: Publish, nth: u32) -> Breakpoint {
        self.shared.points.set(Side::Before, publishes, nth)
    }

    /// Forwards the `nth` matching publish, then holds everything that the server sends on the same
    /// connection. Counting starts now, at 1.
    ///
    /// The breakpoint is reached when the proxy receives the server's answer to the publish. If the
    /// publish expects no answer, the breakpoint is reached when the publish is forwarded.
    #[must_use]
    pub fn hold_after(&self, publishes: Publish, nth: u32) -> Breakpoint {
        self.shared.points.set(Side::After, publishes, nth)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    #[default]
    Pass,
    HalfOpen,
    Partition,
}

#[derive(Default)]
struct Shared {
    server: String,
    mode: watch::Sender<Mode>,
    /// The delay, and the rate in bytes per second.
    pace: Mutex<Option<(Duration, u32)>>,
    points: Points<Publish>,
    messages: Messages,
}

impl Shared {
    fn set_pace(&self, pace: Option<(Duration, u32)>) {
        *self.pace.lock().unwrap_or_else(PoisonError::into_inner) = pace;
    }

    /// Sleeps for the configured delay. Called after each read.
    async fn delay(&self) {
        if let Some((delay, _)) = self.pace() {
            sleep(delay).await;
        }
    }

    /// Waits until this many bytes may be forwarded.
    async fn may_pass(&self, length: usize) {
        if let Some((_, bytes_per_second)) = self.pace() {
            sleep(Duration::from_secs_f64(length as f64 / f64::from(bytes_per_second))).await;
        }
        self.until(|mode| mode != Mode::HalfOpen).await;
    }

    fn pace(&self) -> Option<(Duration, u32)> {
        *self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn until(&self, is: impl Fn(Mode) -> bool) {
        // The channel stays open: `self` has its sender.
        let _ = self.mode.subscribe().wait_for(|mode| is(*mode)).await;
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Dropping the set closes every connection.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => drop(connections.spawn(connection(client, shared.clone()))),
                // Too many open files, or the client has disconnected.
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

/// One connection, until either side or a partition ends it.
async fn connection(client: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    if *shared.mode.borrow() == Mode::Partition {
        return Ok(());
    }
    let server = TcpStream::connect(&shared.server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let held = watch::Sender::new(None);
    let answers = held.subscribe();
    tokio::select! {
        ended = requests(from_client, to_server, &shared, held) => ended,
        ended = replies(from_server, to_client, &shared, answers) => ended,
        () = shared.until(|mode| mode == Mode::Partition) => Ok(()),
    }
}

/// A breakpoint that holds everything that the server sends on one connection.
#[derive(Clone)]
struct Held {
    point: Arc<Point>,
    /// The reply subject of the publish, if it expects an answer.
    reply: Option<String>,
}

/// Forwards the client's operations.
async fn requests(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    shared: &Shared,
    held: watch::Sender<Option<Held>>,
) -> io::Result<()> {
    let mut sent = BytesMut::new();
    loop {
        while let Some(operation) = protocol::next(&mut sent).map_err(io::Error::other)? {
            operation.published.iter().for_each(|published| shared.messages.count("sent", published));
            let after = match &operation.published {
                Some(published) => before(published, shared, &mut client, &mut sent).await?,
                None => None,
            };
            shared.may_pass(operation.bytes.len()).await;
            // Set before the publish is forwarded, because the server may answer immediately.
            if let Some(after) = &after {
                held.send_replace(Some(after.clone()));
            }
            server.write_all(&operation.bytes).await?;
            if let Some(Held { point, reply: None }) = after {
                point.reach();
            }
        }
        sent.reserve(PIECE);
        if client.read_buf(&mut sent).await? == 0 {
            return Ok(());
        }
        shared.delay().await;
    }
}

/// Holds the publish at each matching [`Side::Before`] breakpoint until its release.
///
/// Returns the matching [`Side::After`] breakpoint, if any.
async fn before(
    published: &Published,
    shared: &Shared,
    client: &mut OwnedReadHalf,
    sent: &mut BytesMut,
) -> io::Result<Option<Held>> {
    for point in shared.points.hit(Side::Before, |publishes| publishes.matches(published)) {
        point.reach();
        // Reading comes first (`biased`): if the client has disconnected, the proxy drops the held
        // data, even if the breakpoint is released at the same time.
        loop {
            tokio::select! {
                biased;
                read = client.read_buf(sent), if sent.len() < WITHHELD => if read? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                },
                released = point.released() => break released?,
            }
        }
    }
    let met = shared.points.hit(Side::After, |publishes| publishes.matches(published));
    Ok(met.into_iter().next().map(|point| Held { point, reply: published.reply.clone() }))
}

/// Forwards the server's data.
async fn replies(
    mut server: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    shared: &Shared,
    held: watch::Receiver<Option<Held>>,
) -> io::Result<()> {
    let (mut sent, mut uncounted) = (BytesMut::new(), BytesMut::new());
    loop {
        sent.reserve(PIECE);
        if server.read_buf(&mut sent).await? == 0 {
            return Ok(());
        }
        // If the breakpoint has been released, `withhold` returns immediately.
        let holding = held.borrow().clone();
        if let Some(holding) = holding {
            withhold(&holding, &mut server, &mut sent).await?;
        }
        shared.delay().await;
        shared.may_pass(sent.len()).await;
        uncounted.extend_from_slice(&sent);
        while let Some(operation) = protocol::next(&mut uncounted).map_err(io::Error::other)? {
            operation.published.iter().for_each(|received| shared.messages.count("received", received));
        }
        client.write_all(&sent.split()).await?;
    }
}

/// Reads without forwarding until the release; notifies the test when the answer has arrived.
async fn withhold(held: &Held, server: &mut OwnedReadHalf, sent: &mut BytesMut) -> io::Result<()> {
    loop {
        let reply = held.reply.as_deref().unwrap_or_default().as_bytes();
        if sent.windows(reply.len().max(1)).any(|found| found.starts_with(reply)) {
            held.point.reach();
        }
        tokio::select! {
            released = held.point.released() => return released,
            read = server.read_buf(sent), if sent.len() < WITHHELD => if read? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            },
        }
    }
}
