//! A plain HTTP/1.1 server.

use std::{io, sync::Arc, time::Duration};

use axum::{body::Body, extract::Request, response::Response};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::faults::Faults;

/// The limit of open connections. Further connections wait to be accepted.
const MAX_CONNECTIONS: usize = 1024;
/// The time limit for receiving the headers of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(300);

/// Serves the responses of `respond` until `shutdown`, then closes every connection.
///
/// An error of `respond` breaks the connection. `faults` that refuse connections break it too.
///
/// # Errors
/// Never at present: a failed `accept` is logged and retried.
pub(crate) async fn serve<R, F>(
    faults: &Faults,
    respond: R,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> io::Result<()>
where
    R: Fn(Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = io::Result<Response>> + Send + 'static,
{
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
                    let (faults, respond) = (faults.clone(), respond.clone());
                    connections.spawn(async move {
                        connection(faults, respond, stream).await;
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

async fn connection<R, F>(faults: Faults, respond: R, stream: TcpStream)
where
    R: Fn(Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = io::Result<Response>> + Send + 'static,
{
    // Watch events are small and must not wait for more data.
    let _ = stream.set_nodelay(true);
    // An error closes the connection without a response.
    let service = service_fn(move |request: Request<hyper::body::Incoming>| respond(request.map(Body::new)));
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
