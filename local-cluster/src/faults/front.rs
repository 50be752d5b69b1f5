//! The same faults in front of another API server: a proxy that goes wrong.

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

use super::{Behaviour, Call, Faults, Strike, WatchFaults};
use crate::{
    error::ApiError,
    http::{carry_out, error_answer, is_asked_for, line, serve},
};

/// Serves plain HTTP until `shutdown`: each request meets `faults`, and what they let pass is answered by `upstream`, which
/// is told what is asked for (`None`: a path that is no resource's known here; no fault of calls strikes it).
///
/// [`Behaviour::Merge`] does nothing here: events are passed on as they come. There is no authentication: listen on loopback
/// only.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve_before<U, F>(
    faults: &Faults,
    upstream: U,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> io::Result<()>
where
    U: Fn(Option<Call>, Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = io::Result<Response>> + Send + 'static,
{
    let front = faults.clone();
    let respond = move |request| respond(front.clone(), upstream.clone(), request);
    serve(faults, respond, listener, shutdown).await
}

async fn respond<U, F>(faults: Faults, upstream: U, request: Request) -> io::Result<Response>
where
    U: Fn(Option<Call>, Request) -> F,
    F: Future<Output = io::Result<Response>>,
{
    let Some(call) = read(&request) else { return upstream(None, request).await };
    let verdict = match faults.meet(&call).await {
        Ok(verdict) => verdict,
        Err(error) => return Ok(error_answer(&error)),
    };
    // Before the watch begins: what strikes from now on concerns it.
    let watch = WatchFaults::new(&faults, &call);
    let answer = carry_out(verdict, upstream(Some(call.clone()), request)).await?;
    Ok(match call.verb == "watch" && answer.status().is_success() {
        true => answer.map(|body| relay(body, watch)),
        false => answer,
    })
}

fn read(request: &Request) -> Option<Call> {
    let query = Query::<HashMap<String, String>>::try_from_uri(request.uri()).ok()?.0;
    Call::parse(request.method(), request.uri().path(), is_asked_for(&query)).ok()
}

/// A watch that is passed on, line by line.
struct Relay {
    upstream: BodyDataStream,
    /// What came and is not sent.
    unsent: BytesMut,
    faults: WatchFaults,
    again: Option<Bytes>,
    truncates: bool,
    ended: bool,
}

fn relay(body: Body, faults: WatchFaults) -> Body {
    let upstream = body.into_data_stream();
    let relay =
        Relay { upstream, unsent: BytesMut::new(), faults, again: None, truncates: false, ended: false };
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
    /// What to send now, by the faults and what came.
    fn step(&mut self) -> Option<io::Result<Bytes>> {
        while let Some(strike) = self.faults.strike() {
            match strike {
                Strike::Break => {
                    self.ended = true;
                    return Some(Err(io::ErrorKind::ConnectionReset.into()));
                }
                Strike::End => {
                    self.ended = true;
                    return None;
                }
                Strike::Truncate => self.truncates = true,
                Strike::Error(code) => {
                    self.ended = true;
                    return Some(Ok(line("ERROR", &ApiError::of_code(code).status())));
                }
            }
        }
        if self.faults.is(Behaviour::Stall) {
            return None;
        }
        let event = self.again.take().or_else(|| self.read())?;
        if self.truncates {
            self.ended = true;
            return Some(Ok(event.slice(..event.len() / 2)));
        }
        Some(Ok(event))
    }

    /// The next whole line that is to be sent.
    fn read(&mut self) -> Option<Bytes> {
        loop {
            let end = self.unsent.iter().position(|byte| *byte == b'\n')?;
            let event = self.unsent.split_to(end + 1).freeze();
            if self.faults.is(Behaviour::NoBookmarks) && event.starts_with(br#"{"type":"BOOKMARK""#) {
                continue;
            }
            if self.faults.is(Behaviour::Repeat) {
                self.again = Some(event.clone());
            }
            return Some(event);
        }
    }

    /// Waits for a fault, or for more; the error with which the watch ends, if one does. A stalled watch waits for a fault
    /// only, and hears of no end.
    async fn wait(&mut self) -> Option<io::Error> {
        if self.ended {
            return None;
        }
        if self.faults.is(Behaviour::Stall) {
            self.faults.changed().await;
            return None;
        }
        tokio::select! {
            () = self.faults.changed() => None,
            came = self.upstream.next() => match came {
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
