//! Plain HTTP/1.1 over a listener.

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

use crate::Faults;

/// More wait to be accepted.
const CONNECTIONS: usize = 1024;
/// How long a client may take for the head of a request.
const HEAD_DEADLINE: Duration = Duration::from_secs(300);

/// Serves what `respond` answers until `shutdown`, then ends every connection. An error of `respond` breaks the connection;
/// so do `faults` that refuse connections.
///
/// # Errors
/// When the listener fails for good.
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
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    // Dropped at the end, with all that is in it.
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
                    if faults.refuses() {
                        continue;
                    }
                    let (faults, respond) = (faults.clone(), respond.clone());
                    connections.spawn(async move {
                        connection(faults, respond, stream).await;
                        drop(permit);
                    });
                }
                (_, Err(error)) => {
                    // No more files, or a client that left already.
                    tracing::warn!(%error, "accepting a connection");
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
    // Small events must not wait for more.
    let _ = stream.set_nodelay(true);
    // An error ends the connection without an answer.
    let service = service_fn(move |request: Request<hyper::body::Incoming>| respond(request.map(Body::new)));
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        result = serving => {
            if let Err(error) = result {
                tracing::debug!(%error, "a connection ended");
            }
        }
        () = faults.refusing() => {}
    }
}
