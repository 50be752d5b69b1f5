//! Plain HTTP/1.1 over a listener.

use std::{io, sync::Arc, time::Duration};

use axum::{body::Body, extract::Request};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{State, respond};

/// More wait to be accepted.
const CONNECTIONS: usize = 1024;
/// How long a client may take for the head of a request.
const HEAD_DEADLINE: Duration = Duration::from_secs(300);

/// See [`crate::LocalCluster::serve`].
pub(crate) async fn serve(
    state: Arc<State>,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> io::Result<()> {
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
                    if state.faults.refuses() {
                        continue;
                    }
                    let state = state.clone();
                    connections.spawn(async move {
                        connection(state, stream).await;
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

async fn connection(state: Arc<State>, stream: TcpStream) {
    // Small events must not wait for more.
    let _ = stream.set_nodelay(true);
    let refusals = state.faults.clone();
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let state = state.clone();
        // An error ends the connection without an answer.
        async move { respond(state, request.map(Body::new)).await }
    });
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
        () = refusals.refusing() => {}
    }
}
