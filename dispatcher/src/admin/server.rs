//! An HTTP/1.1 server for few and short requests: bounded connections, each with time-outs.
//!
//! A client that sends slowly or not at all loses its connection. A client address has a share of
//! the connections, so that one address cannot take those of the kubelet. A handler whose response
//! never ends uses [`Connection`].

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, body::Body, extract::Request, http::StatusCode, response::IntoResponse};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// How many connections are open, and how many of them from one address.
const MAX_CONNECTIONS: usize = 64;
const MAX_PER_ADDRESS: usize = 16;
/// The largest headers of a request, in bytes. The smallest that hyper allows.
const MAX_HEADERS: usize = 8192;
/// How long the headers of a request may take, and how long a connection may be idle.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a handler may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection lives, also while its client reads slowly, unless a handler extends it.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// The pause after a failed `accept`: no file descriptors are left, or the client is gone.
const ACCEPT_DELAY: Duration = Duration::from_millis(50);

/// Serves until `stop` is cancelled; then it finishes the requests in progress.
pub(super) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let open = OpenConnections::default();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let Some(admitted) = open.admit(peer) else {
                        tracing::debug!(%peer, "too many connections to the admin server");
                        continue;
                    };
                    let (router, stop) = (router.clone(), stop.clone());
                    let (own, expired) = Connection::new(admitted, stop.clone());
                    connections.spawn(async move {
                        tokio::select! {
                            () = connection(stream, (router, own), stop) => {}
                            () = expired => tracing::debug!(%peer, "connection to the admin server took too long"),
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "admin server: accept failed");
                    sleep(ACCEPT_DELAY).await;
                }
            }
        }
    }
    while connections.join_next().await.is_some() {}
}

async fn connection(stream: TcpStream, (router, own): (Router, Connection), stop: CancellationToken) {
    let respond = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(own.clone());
        respond(router.clone(), request)
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), respond);
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection to the admin server ended");
    }
}

/// A request whose body no route reads gets its answer, and its connection is closed.
async fn respond(
    router: Router,
    request: Request,
) -> Result<axum::response::Response, std::convert::Infallible> {
    let answered = timeout(REQUEST_TIMEOUT, router.oneshot(request)).await;
    Ok(match answered {
        Ok(Ok(response)) => response,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    })
}

/// The connection of a request, for handlers whose response never ends. An extension of the request.
#[derive(Clone)]
pub(crate) struct Connection {
    deadline: Arc<watch::Sender<Instant>>,
    place: Arc<Mutex<Option<Admitted>>>,
    stop: CancellationToken,
}

impl Connection {
    /// The connection, and a future that ends when its time is over.
    fn new(place: Admitted, stop: CancellationToken) -> (Self, impl Future<Output = ()>) {
        let deadline = Arc::new(watch::Sender::new(Instant::now() + CONNECTION_TIMEOUT));
        let mut changes = deadline.subscribe();
        let expired = async move {
            loop {
                let end = *changes.borrow_and_update();
                tokio::select! {
                    () = sleep_until(end) => return,
                    changed = changes.changed() => if changed.is_err() {
                        return sleep_until(end).await;
                    },
                }
            }
        };
        (Self { deadline, place: Arc::new(Mutex::new(Some(place))), stop }, expired)
    }

    /// Gives the place of the connection to others. The caller bounds such connections itself.
    pub(crate) fn release_place(&self) {
        drop(self.place.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// The client has read: the connection lives for another [`CONNECTION_TIMEOUT`].
    pub(crate) fn extend(&self) {
        self.deadline.send_replace(Instant::now() + CONNECTION_TIMEOUT);
    }

    /// Ends when the server stops: a response that never ends must end then.
    pub(crate) async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// A connection of no server, for tests.
    #[cfg(test)]
    pub(crate) fn detached() -> Self {
        let deadline = Arc::new(watch::Sender::new(Instant::now()));
        Self { deadline, place: Arc::default(), stop: CancellationToken::new() }
    }
}

/// The open connections by address.
#[derive(Clone, Default)]
struct OpenConnections(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One open connection; dropping it frees its place.
struct Admitted {
    open: OpenConnections,
    address: IpAddr,
}

impl OpenConnections {
    /// A place for a connection, unless there are too many of all or of this address.
    fn admit(&self, peer: SocketAddr) -> Option<Admitted> {
        let address = peer.ip();
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, own) = (open.values().sum::<usize>(), open.get(&address).copied().unwrap_or(0));
        if all >= MAX_CONNECTIONS || own >= MAX_PER_ADDRESS {
            return None;
        }
        open.insert(address, own + 1);
        Some(Admitted { open: self.clone(), address })
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut open = self.open.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = open.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::{Extension, routing::get};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn peer(last: u8) -> SocketAddr {
        ([127, 0, 0, last], 1).into()
    }

    #[test]
    fn connections_are_bounded_in_total_and_for_each_address() {
        let open = OpenConnections::default();
        let of = |last: u8| std::iter::from_fn(|| open.admit(peer(last))).collect::<Vec<_>>();
        let one = of(1);
        assert_eq!(one.len(), MAX_PER_ADDRESS);
        let others: Vec<_> = (2..10).flat_map(of).collect();
        assert_eq!(one.len() + others.len(), MAX_CONNECTIONS);
        drop(one);
        assert!(open.admit(peer(1)).is_some());
    }

    async fn server() -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let router = Router::new()
            .route("/livez", get(|| async { "ok\n" }))
            .route("/slow", get(std::future::pending::<&'static str>))
            .route("/endless", get(endless));
        let task = tokio::spawn(serve(listener, router, stop.clone()));
        (address, stop, task)
    }

    /// A response that never ends, in pieces of 64 KiB as fast as the client reads.
    async fn endless(Extension(connection): Extension<Connection>) -> Body {
        connection.release_place();
        let pieces = futures::stream::repeat_with(move || {
            connection.extend();
            Ok::<_, std::convert::Infallible>(vec![b'x'; 64 * 1024])
        });
        Body::from_stream(pieces)
    }

    /// Sends bytes and returns what the server sends until it closes the connection.
    async fn exchange(address: SocketAddr, sent: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(sent).await.unwrap();
        let mut answer = Vec::new();
        // A reset is a closed connection too.
        let read = timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await;
        let _ = read.expect("the connection stays open");
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn client_that_never_ends_its_headers_loses_its_connection() {
        let (address, ..) = server().await;
        for unfinished in ["", "GET /livez HTTP/1.1\r\n", "GET /livez HTTP/1.1\r\nHost: a\r\nX: y"] {
            let answer = exchange(address, unfinished.as_bytes()).await;
            assert!(!answer.contains("200 OK"), "{answer}");
        }
    }

    #[tokio::test]
    async fn request_is_answered_while_other_connections_are_idle() {
        let (address, ..) = server().await;
        let mut idle = Vec::new();
        for _ in 0..MAX_PER_ADDRESS - 1 {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        let answer = exchange(address, b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    }

    #[tokio::test]
    async fn large_headers_and_unread_bodies_are_not_kept() {
        let (address, ..) = server().await;
        let header = format!("GET /livez HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(100_000));
        assert!(!exchange(address, header.as_bytes()).await.contains("200 OK"));
        let body = "GET /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\nxxxx";
        assert!(exchange(address, body.as_bytes()).await.starts_with("HTTP/1.1 200 OK"));
    }

    #[tokio::test]
    async fn handler_that_takes_too_long_is_answered() {
        let (address, ..) = server().await;
        let answer = exchange(address, b"GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    }

    #[tokio::test]
    async fn responses_that_never_end_take_no_connection_from_other_requests() {
        let (address, ..) = server().await;
        let mut endless = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            let mut first = [0; 15];
            timeout(Duration::from_secs(60), stream.read_exact(&mut first)).await.unwrap().unwrap();
            assert_eq!(&first, b"HTTP/1.1 200 OK");
            endless.push(stream);
        }
        let answer = exchange(address, b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    }

    #[tokio::test(start_paused = true)]
    async fn connection_ends_unless_its_client_reads() {
        let place = OpenConnections::default().admit(peer(1)).unwrap();
        let (connection, expired) = Connection::new(place, CancellationToken::new());
        let expired = tokio::spawn(expired);
        let begin = Instant::now();
        for _ in 0..10 {
            sleep(CONNECTION_TIMEOUT / 2).await;
            assert!(!expired.is_finished());
            connection.extend();
        }
        expired.await.unwrap();
        assert!(begin.elapsed() >= CONNECTION_TIMEOUT * 6, "{:?}", begin.elapsed());
    }

    #[tokio::test]
    async fn stop_closes_idle_connections() {
        let (address, stop, task) = server().await;
        let _idle = TcpStream::connect(address).await.unwrap();
        stop.cancel();
        timeout(Duration::from_secs(60), task).await.expect("the server still runs").unwrap();
    }
}
