//! A proxy that injects faults in front of another API server.

use std::{collections::HashMap, io};

use axum::{
    body::{Body, BodyDataStream},
    extract::{Query, Request},
    response::Response,
};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    call::{Call, is_watch},
    error::ApiError,
    faults::{Behaviour, Faults, WatchFault, WatchFaultCursor},
    http::{self, apply_failure, encode_event, error_response},
};

/// Serves plain HTTP until `shutdown`, applies `faults` to each request and forwards it to
/// `upstream`.
///
/// `upstream` receives each request with its parsed call. If the path is unknown, the call is
/// `None`, and no fault applies except [`Faults::refuse_connections`]. [`Behaviour::Merge`] has no
/// effect: events are forwarded as they arrive. The proxy refuses requests of web pages, but does
/// not authenticate its clients: it is for tests, on loopback.
///
/// # Errors
/// The listener has no address. A failed `accept` is logged and retried.
pub async fn serve<U, F>(
    faults: &Faults,
    upstream: U,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> io::Result<()>
where
    U: Fn(Option<Call>, Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = io::Result<Response>> + Send + 'static,
{
    let shared = faults.clone();
    let respond = move |request| respond(shared.clone(), upstream.clone(), request);
    http::serve(faults, None, respond, listener, shutdown).await
}

async fn respond<U, F>(faults: Faults, upstream: U, request: Request) -> io::Result<Response>
where
    U: Fn(Option<Call>, Request) -> F,
    F: Future<Output = io::Result<Response>>,
{
    let Some(call) = parse_call(&request) else { return upstream(None, request).await };
    let failure = match faults.evaluate(&call).await {
        Ok(failure) => failure,
        Err(error) => return Ok(error_response(&error)),
    };
    // The cursor starts before the upstream watch, so that the watch misses no fault.
    let cursor = WatchFaultCursor::new(&faults, &call);
    let response = apply_failure(failure, upstream(Some(call.clone()), request)).await?;
    Ok(match call.verb == "watch" && response.status().is_success() {
        true => response.map(|body| relay(body, cursor)),
        false => response,
    })
}

fn parse_call(request: &Request) -> Option<Call> {
    let query = Query::<HashMap<String, String>>::try_from_uri(request.uri()).ok()?.0;
    Call::parse(request.method(), request.uri().path(), is_watch(&query)).ok()
}

/// Forwards a watch line by line.
struct Relay {
    upstream: BodyDataStream,
    /// Bytes that were received but not forwarded.
    unsent: BytesMut,
    faults: WatchFaultCursor,
    /// An event to send a second time.
    repeated: Option<Bytes>,
    truncate_next: bool,
    ended: bool,
}

fn relay(body: Body, faults: WatchFaultCursor) -> Body {
    let upstream = body.into_data_stream();
    let relay = Relay {
        upstream,
        unsent: BytesMut::new(),
        faults,
        repeated: None,
        truncate_next: false,
        ended: false,
    };
    Body::from_stream(stream::unfold(relay, next))
}

async fn next(mut relay: Relay) -> Option<(io::Result<Bytes>, Relay)> {
    loop {
        if relay.ended {
            return None;
        }
        if let Some(sent) = relay.step() {
            return Some((sent, relay));
        }
        if let Some(error) = relay.wait().await {
            return Some((Err(error), relay));
        }
    }
}

impl Relay {
    /// The next output: the effect of a fault, or a received event. `None` if the watch must wait
    /// or has ended.
    fn step(&mut self) -> Option<io::Result<Bytes>> {
        while let Some(fault) = self.faults.next_fault() {
            match fault {
                WatchFault::Break => {
                    self.ended = true;
                    return Some(Err(io::ErrorKind::ConnectionReset.into()));
                }
                WatchFault::End => {
                    self.ended = true;
                    return None;
                }
                WatchFault::Truncate => self.truncate_next = true,
                WatchFault::Error(code) => {
                    self.ended = true;
                    return Some(Ok(encode_event("ERROR", &ApiError::from_code(code).status())));
                }
            }
        }
        if self.faults.has(Behaviour::Stall) {
            return None;
        }
        let event = self.repeated.take().or_else(|| self.next_line())?;
        if self.truncate_next {
            self.ended = true;
            return Some(Ok(event.slice(..event.len() / 2)));
        }
        Some(Ok(event))
    }

    /// The next complete line to forward.
    fn next_line(&mut self) -> Option<Bytes> {
        loop {
            let end = self.unsent.iter().position(|byte| *byte == b'\n')?;
            let event = self.unsent.split_to(end + 1).freeze();
            if self.faults.has(Behaviour::NoBookmarks) && event.starts_with(br#"{"type":"BOOKMARK""#) {
                continue;
            }
            if self.faults.has(Behaviour::Repeat) {
                self.repeated = Some(event.clone());
            }
            return Some(event);
        }
    }

    /// Waits for a fault or for input, and returns the error that ends the watch, if any.
    ///
    /// A stalled watch waits for a fault only and does not notice the end of the upstream watch.
    async fn wait(&mut self) -> Option<io::Error> {
        if self.ended {
            return None;
        }
        if self.faults.has(Behaviour::Stall) {
            self.faults.changed().await;
            return None;
        }
        tokio::select! {
            () = self.faults.changed() => None,
            received = self.upstream.next() => match received {
                Some(Ok(bytes)) => {
                    self.unsent.extend_from_slice(&bytes);
                    None
                }
                Some(Err(error)) => {
                    self.ended = true;
                    Some(io::Error::other(error))
                }
                None => {
                    self.ended = true;
                    None
                }
            },
        }
    }
}
