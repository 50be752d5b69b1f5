//! One viewer: a response of server-sent events that lasts as long as the page is open.
//!
//! First comes the board, page by page, then every change. A viewer that falls behind gets the board
//! again. The connection of a viewer that does not read ends after the time-out of the admin server.

use std::{convert::Infallible, time::Duration};

use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{Stream, stream};
use serde_json::json;
use tokio::{
    sync::{
        OwnedSemaphorePermit,
        broadcast::{Receiver, error::RecvError},
    },
    time::timeout,
};

use crate::{
    admin::Connection,
    console::{
        answer::Failure,
        live::{complete_frame, frame, is_reset, reset_frame},
        state::{Console, MAX_VIEWERS},
        templates,
    },
};

/// The pause between two frames at most: each shows that the viewer still reads.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// The live board.
pub(super) async fn live(
    State(console): State<Console>,
    Extension(connection): Extension<Connection>,
) -> Result<Response, Failure> {
    let backend = console.backend()?;
    let Ok(place) = console.0.viewers.clone().try_acquire_owned() else {
        let message = format!("{MAX_VIEWERS} viewers are connected; try again later");
        return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "Overloaded", message));
    };
    let mode = console.0.mode.as_str();
    let version = env!("CARGO_PKG_VERSION");
    let names = backend.scans.names();
    let nats = json!({"prefix": names.prefix(), "statusStream": names.job_status()});
    let hello = json!({"mode": mode, "namespace": backend.namespace, "version": version, "nats": nats});
    let hello = frame("hello", &hello);
    templates::send(&console);
    connection.release_place();
    let frames = frames(console, connection, place, hello);
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        // No other request follows on this connection.
        (header::CONNECTION, "close"),
    ];
    Ok((headers, Body::from_stream(frames)).into_response())
}

/// What a viewer gets next.
enum Next {
    /// The rows before this id, or the newest ones.
    Page(Option<u64>),
    Changes,
}

struct Viewer {
    console: Console,
    connection: Connection,
    _place: OwnedSemaphorePermit,
    changes: Receiver<Bytes>,
    next: Next,
}

fn frames(
    console: Console,
    connection: Connection,
    place: OwnedSemaphorePermit,
    hello: Bytes,
) -> impl Stream<Item = Result<Bytes, Infallible>> {
    let (first, changes) = console.0.live.join();
    let viewer = Viewer { console, connection, _place: place, changes, next: Next::Page(None) };
    let first = [hello, reset_frame(), first].concat();
    let state = (viewer, Some(Bytes::from(first)));
    stream::unfold(state, |(mut viewer, first)| async move {
        let connection = viewer.connection.clone();
        let frame = if let Some(first) = first {
            first
        } else {
            tokio::select! {
                frame = viewer.next() => frame,
                () = connection.stopped() => return None,
            }
        };
        connection.extend();
        Some((Ok(frame), (viewer, None)))
    })
}

impl Viewer {
    async fn next(&mut self) -> Bytes {
        match self.next {
            Next::Page(before) => {
                let (rows, next) = self.console.0.live.page(before);
                // Other tasks go between the pages of many viewers.
                tokio::task::yield_now().await;
                if next.is_some() {
                    self.next = Next::Page(next);
                    return rows;
                }
                self.next = Next::Changes;
                [rows, complete_frame()].concat().into()
            }
            Next::Changes => match timeout(HEARTBEAT, self.changes.recv()).await {
                Ok(Ok(frame)) => {
                    if is_reset(&frame) {
                        self.next = Next::Page(None);
                    }
                    frame
                }
                Ok(Err(RecvError::Lagged(_) | RecvError::Closed)) => self.rejoin(),
                Err(_) => Bytes::from_static(b": nothing has changed\n\n"),
            },
        }
    }

    /// The viewer missed frames: it gets the board again.
    fn rejoin(&mut self) -> Bytes {
        let (first, changes) = self.console.0.live.join();
        self.changes = changes;
        self.next = Next::Page(None);
        [reset_frame(), first].concat().into()
    }
}
