//! Watches: each reads the history from where it is. One that is slower than the history is long gets a 410.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    io,
    sync::Arc,
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderValue, header::CONTENT_TYPE},
    response::Response,
};
use bytes::Bytes;
use futures::stream;
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    State,
    shown::{self, Shown, Wanted},
    verbs::Asked,
};
use crate::{
    api::{self, ListOptions, parse_version},
    error::{ApiError, ApiResult, Cause},
    faults::{Behaviour, Strike, WatchFaults},
    resource::LIST_OPTIONS,
};

/// How many events are read at once.
const BATCH: usize = 256;
/// How long a watch lasts at most.
const LONGEST: Duration = Duration::from_secs(86_400);

/// A running watch.
struct Running {
    state: Arc<State>,
    wanted: Wanted,
    /// The version up to which events were read.
    at: u64,
    changes: watch::Receiver<u64>,
    faults: WatchFaults,
    /// What was read and is not sent; no more than a batch after the initial events.
    unsent: VecDeque<Shown>,
    bookmarks: bool,
    next_bookmark: Instant,
    end: Instant,
    truncates: bool,
    ended: bool,
}

/// Whether the query parameters of a list ask for a watch.
pub(crate) fn is_asked_for(query: &HashMap<String, String>) -> bool {
    query.get("watch").is_some_and(|watch| ["true", "1"].contains(&watch.as_str()))
}

/// Begins a watch.
///
/// # Errors
/// 400 for a bad selector or version, 422 for parameters that exclude each other. What is too old is told by an event.
pub(super) fn start(state: &Arc<State>, asked: &Asked) -> ApiResult<Response> {
    let call = &asked.call;
    let selector = asked.selector()?;
    let version = parse_version(asked.parameter("resourceVersion"))?;
    let streams_list = asked.is_set("sendInitialEvents");
    if streams_list && asked.parameter("resourceVersionMatch") != "NotOlderThan" {
        let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        let cause = Cause::forbidden("resourceVersionMatch", why);
        return Err(ApiError::invalid(&LIST_OPTIONS, "", &[cause]));
    }
    let bookmarks = asked.is_set("allowWatchBookmarks");
    let changes = state.store.changes();
    let mut unsent = VecDeque::new();
    let mut at = version;
    if streams_list || (version == 0 && asked.parameter("sendInitialEvents").is_empty()) {
        let options = ListOptions { selector: selector.clone(), ..ListOptions::default() };
        let page = state.store.read(|inner| api::list(inner, call.resource, &call.namespace, &options))?;
        at = page.version;
        unsent.extend(page.items.into_iter().map(Shown::added));
        if streams_list && bookmarks {
            unsent.push_back(Shown::initial_events_end(call.resource, at));
        }
    } else if version == 0 {
        at = state.store.read(crate::store::Inner::version);
    }
    let lasts =
        asked.parameter("timeoutSeconds").parse().map_or(state.options.watch_timeout, Duration::from_secs);
    let now = Instant::now();
    let running = Running {
        wanted: Wanted {
            resource: call.resource,
            namespace: call.namespace.clone(),
            selector,
            shape: asked.shape,
        },
        at,
        changes,
        faults: WatchFaults::new(&state.faults, call),
        unsent,
        bookmarks,
        next_bookmark: now + state.options.bookmark_interval,
        end: now + lasts.min(LONGEST),
        truncates: false,
        ended: false,
        state: state.clone(),
    };
    Ok(response(Body::from_stream(stream::unfold(running, next))))
}

/// A watch whose only event is an error.
pub(super) fn only_error(error: &ApiError) -> Response {
    let line = line("ERROR", &error.status());
    response(Body::from_stream(stream::once(async { Ok::<_, Infallible>(line) })))
}

fn response(body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An event as it is sent.
pub(crate) fn line(type_: &str, object: &Value) -> Bytes {
    // The type first, as Kubernetes has it.
    format!("{{\"type\":\"{type_}\",\"object\":{object}}}\n").into()
}

async fn next(mut running: Running) -> Option<(io::Result<Bytes>, Running)> {
    loop {
        if running.ended {
            return None;
        }
        match running.step() {
            Step::Send(line) => return Some((Ok(line), running)),
            Step::Break => {
                running.ended = true;
                return Some((Err(io::ErrorKind::ConnectionReset.into()), running));
            }
            Step::Wait => running.wait().await,
        }
    }
}

enum Step {
    Send(Bytes),
    Break,
    Wait,
}

impl Running {
    /// What to do now, by the faults, what is unsent, the history and the clock.
    fn step(&mut self) -> Step {
        while let Some(strike) = self.faults.strike() {
            match strike {
                Strike::Break => return Step::Break,
                Strike::End => return self.finish(),
                Strike::Truncate => self.truncates = true,
                Strike::Error(code) => return self.fail(&ApiError::of_code(code)),
            }
        }
        if self.faults.is(Behaviour::Stall) {
            return Step::Wait;
        }
        if self.unsent.is_empty()
            && let Err(error) = self.read()
        {
            return self.fail(&error);
        }
        if let Some(shown) = self.unsent.pop_front() {
            return self.send(&shown);
        }
        let now = Instant::now();
        if now >= self.end {
            return self.finish();
        }
        if now < self.next_bookmark {
            return Step::Wait;
        }
        self.next_bookmark = now + self.state.options.bookmark_interval;
        match self.bookmarks && !self.faults.is(Behaviour::NoBookmarks) {
            true => self.send(&Shown::bookmark(self.wanted.resource, self.at)),
            false => Step::Wait,
        }
    }

    fn send(&mut self, shown: &Shown) -> Step {
        let line = line(shown.type_, &self.wanted.shape.event(self.wanted.resource, shown));
        if self.truncates {
            self.ended = true;
            return Step::Send(line.slice(..line.len() / 2));
        }
        Step::Send(line)
    }

    fn fail(&mut self, error: &ApiError) -> Step {
        self.ended = true;
        Step::Send(line("ERROR", &error.status()))
    }

    fn finish(&mut self) -> Step {
        self.ended = true;
        Step::Wait
    }

    /// Reads the next events.
    fn read(&mut self) -> ApiResult<()> {
        self.changes.mark_unchanged();
        let merge = self.faults.is(Behaviour::Merge);
        let limit = if merge { usize::MAX } else { BATCH };
        let (asked, wanted) = (self.at, &self.wanted);
        let (mut found, at) = self.state.store.read(|inner| {
            let now = inner.version();
            let events = inner
                .shelf(wanted.resource)?
                .since(asked)
                .ok_or_else(|| ApiError::expired(format!("too old resource version: {asked} ({now})")))?;
            let mut found = Vec::new();
            for event in events {
                found.extend(wanted.show(event));
                if found.len() >= limit {
                    return Ok((found, event.version));
                }
            }
            Ok((found, now.max(asked)))
        })?;
        self.at = at;
        if merge {
            found = shown::merge(found);
        }
        if self.faults.is(Behaviour::Repeat) {
            found = found.into_iter().flat_map(|shown| [shown.clone(), shown]).collect();
        }
        self.unsent.extend(found);
        Ok(())
    }

    /// Waits for a change, a fault, or the clock. A stalled watch waits for a fault only.
    async fn wait(&mut self) {
        if self.ended {
            return;
        }
        if self.faults.is(Behaviour::Stall) {
            return self.faults.changed().await;
        }
        tokio::select! {
            // The store outlives the watch.
            _ = self.changes.changed() => {}
            () = self.faults.changed() => {}
            () = sleep_until(self.end.min(self.next_bookmark)) => {}
        }
    }
}
