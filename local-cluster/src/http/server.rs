//! An HTTP/1.1 server, with TLS or without. A guard checks each request.

use std::{io, sync::Arc, time::Duration};

use axum::{body::Body, extract::Request, response::Response};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{guard::Guard, response};
use crate::{credentials::Credentials, faults::Faults};

/// The limit of open connections. Further connections wait to be accepted.
const MAX_CONNECTIONS: usize = 1024;
/// The time limit for receiving the headers of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(300);
/// The time limit for a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves the responses of `respond` until `shutdown`, then closes every connection.
///
/// With `credentials`, the server uses TLS, and every request needs the token. An error of `respond` breaks the connection. `faults` that refuse connections break it too.
///
/// # Errors
/// The listener has no address. A failed `accept` is logged and retried.
pub(crate) async fn serve<R, F>(
    faults: &Faults,
    credentials: Option<&Credentials>,
    respond: R,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> io::Result<()>
where
    R: Fn(Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = io::Result<Response>> + Send + 'static,
{
    let server = Server {
        faults: faults.clone(),
        guard: Guard {
            port: listener.local_addr()?.port(),
            is_https: credentials.is_some(),
            token: credentials.map(|credentials| credentials.token.clone()),
        },
        tls: credentials.map(|credentials| credentials.acceptor.clone()),
        respond,
    };
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Dropping the set at the end closes every connection.
    let mut connections = JoinSet::new();
    loop {
        let accept = async {
            let permit = permits.clone().acquire_owned().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((permit, listener.accept().await))
        };
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            Some(_) = connections.join_next() => {}
            accepted = accept => match accepted? {
                (permit, Ok((stream, _))) => {
                    if faults.refuses_connections() {
                        continue;
                    }
                    let server = server.clone();
                    connections.spawn(async move {
                        server.connection(stream).await;
                        drop(permit);
                    });
                }
                (_, Err(error)) => {
                    // Transient: no file descriptors left, or the client has disconnected.
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

#[derive(Clone)]
struct Server<R> {
    faults: Faults,
    guard: Guard,
    tls: Option<TlsAcceptor>,
    respond: R,
}

impl<R, F> Server<R>
where
    R: Fn(Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = io::Result<Response>> + Send + 'static,
{
    async fn connection(self, stream: TcpStream) {
        // Watch events are small and must not wait for more data.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else { return self.requests(stream).await };
        match timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.requests(stream).await,
            // A client that speaks plain HTTP, or does not trust the certificate.
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
            Err(_) => tracing::debug!("TLS handshake timed out"),
        }
    }

    async fn requests(self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let Self { faults, guard, respond, .. } = self;
        // An error closes the connection without a response.
        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
            let (parts, body) = request.into_parts();
            let allowed = guard.check(&parts);
            let respond = respond.clone();
            async move {
                match allowed {
                    Ok(()) => respond(Request::from_parts(parts, Body::new(body))).await,
                    Err(error) => Ok(response::error(&error)),
                }
            }
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            result = serving => {
                if let Err(error) = result {
                    tracing::debug!(%error, "connection ended");
                }
            }
            () = faults.connections_refused() => {}
        }
    }
}
