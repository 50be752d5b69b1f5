//! Watches. Each one reads the store's history from its own position; nothing is queued for it.
//! A watch that falls behind the history receives 410.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures::stream;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    request::ApiRequest,
    response::stream_of,
    state::State,
    table_view::View,
    watch_event::{self, WatchEvent, WatchFilter, encode},
};
use crate::{
    api::{self, ListOptions, parse_version},
    error::{ApiError, ApiResult, Cause},
    faults::{Behaviour, WatchFault, WatchFaultCursor},
    resource::LIST_OPTIONS,
    store::StoreState,
};

/// The number of events per read of the history.
const BATCH_SIZE: usize = 256;
/// The upper limit of `timeoutSeconds`.
const MAX_TIMEOUT: Duration = Duration::from_secs(86_400);

/// A running watch.
struct Watch {
    state: Arc<State>,
    filter: WatchFilter,
    view: View,
    /// The version up to which the watch has read.
    position: u64,
    changes: watch::Receiver<u64>,
    faults: WatchFaultCursor,
    /// Events that are read but not sent: the initial events, or at most one batch.
    unsent: VecDeque<WatchEvent>,
    bookmarks: bool,
    next_bookmark: Instant,
    end: Instant,
    /// The next event is cut in half and ends the watch.
    truncate_next: bool,
    ended: bool,
}

/// Starts a watch. An expired version is reported by an `ERROR` event.
///
/// # Errors
/// 400 for a bad selector or version, 422 for conflicting parameters.
pub(super) fn start(state: &Arc<State>, request: &ApiRequest) -> ApiResult<Response> {
    let call = &request.call;
    let selector = request.selector()?;
    let version = parse_version(request.parameter("resourceVersion"))?;
    let sends_initial = request.is_set("sendInitialEvents");
    if sends_initial && request.parameter("resourceVersionMatch") != "NotOlderThan" {
        let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        let cause = Cause::forbidden("resourceVersionMatch", why);
        return Err(ApiError::invalid(&LIST_OPTIONS, "", &[cause]));
    }
    let bookmarks = request.is_set("allowWatchBookmarks");
    let changes = state.store.subscribe();
    let mut unsent = VecDeque::new();
    let mut position = version;
    if sends_initial || (version == 0 && request.parameter("sendInitialEvents").is_empty()) {
        let options = ListOptions { selector: selector.clone(), ..ListOptions::default() };
        let page = state.store.read(|state| api::list(state, call.resource, &call.namespace, &options))?;
        position = page.version;
        unsent.extend(page.items.into_iter().map(WatchEvent::added));
        if sends_initial && bookmarks {
            unsent.push_back(WatchEvent::initial_events_end(call.resource, position));
        }
    } else if version == 0 {
        position = state.store.read(StoreState::version);
    }
    let timeout =
        request.parameter("timeoutSeconds").parse().map_or(state.options.watch_timeout, Duration::from_secs);
    let now = Instant::now();
    let watch = Watch {
        filter: WatchFilter { resource: call.resource, namespace: call.namespace.clone(), selector },
        view: request.view,
        position,
        changes,
        faults: WatchFaultCursor::new(&state.faults, call),
        unsent,
        bookmarks,
        next_bookmark: now + state.options.bookmark_interval,
        end: now + timeout.min(MAX_TIMEOUT),
        truncate_next: false,
        ended: false,
        state: state.clone(),
    };
    Ok(stream_of(Body::from_stream(stream::unfold(watch, next))))
}

async fn next(mut watch: Watch) -> Option<(io::Result<Bytes>, Watch)> {
    loop {
        if watch.ended {
            return None;
        }
        match watch.step() {
            Step::Send(event) => return Some((Ok(event), watch)),
            Step::Break => {
                watch.ended = true;
                return Some((Err(io::ErrorKind::ConnectionReset.into()), watch));
            }
            Step::Wait => watch.wait().await,
        }
    }
}

enum Step {
    Send(Bytes),
    Break,
    Wait,
}

impl Watch {
    /// The next step, from the faults, the unsent events, the history and the clock, in this order.
    fn step(&mut self) -> Step {
        while let Some(fault) = self.faults.next_fault() {
            match fault {
                WatchFault::Break => return Step::Break,
                WatchFault::End => return self.finish(),
                WatchFault::Truncate => self.truncate_next = true,
                WatchFault::Error(code) => return self.fail(&ApiError::from_code(code)),
            }
        }
        if self.faults.has(Behaviour::Stall) {
            return Step::Wait;
        }
        if self.unsent.is_empty()
            && let Err(error) = self.read()
        {
            return self.fail(&error);
        }
        if let Some(event) = self.unsent.pop_front() {
            return self.send(&event);
        }
        let now = Instant::now();
        if now >= self.end {
            return self.finish();
        }
        if now < self.next_bookmark {
            return Step::Wait;
        }
        self.next_bookmark = now + self.state.options.bookmark_interval;
        match self.bookmarks && !self.faults.has(Behaviour::NoBookmarks) {
            true => self.send(&WatchEvent::bookmark(self.filter.resource, self.position)),
            false => Step::Wait,
        }
    }

    fn send(&mut self, event: &WatchEvent) -> Step {
        let line = encode(event.type_, &self.view.event(self.filter.resource, event));
        if self.truncate_next {
            self.ended = true;
            return Step::Send(line.slice(..line.len() / 2));
        }
        Step::Send(line)
    }

    fn fail(&mut self, error: &ApiError) -> Step {
        self.ended = true;
        Step::Send(encode("ERROR", &error.status()))
    }

    fn finish(&mut self) -> Step {
        self.ended = true;
        Step::Wait
    }

    /// Reads the next events from the history.
    fn read(&mut self) -> ApiResult<()> {
        self.changes.mark_unchanged();
        let merge = self.faults.has(Behaviour::Merge);
        let limit = if merge { usize::MAX } else { BATCH_SIZE };
        let (from, filter) = (self.position, &self.filter);
        let (mut found, position) = self.state.store.read(|state| {
            let now = state.version();
            let changes = state
                .resource_store(filter.resource)?
                .changes_since(from)
                .ok_or_else(|| ApiError::expired(format!("too old resource version: {from} ({now})")))?;
            let mut found = Vec::new();
            for change in changes {
                found.extend(filter.event_for(change));
                if found.len() >= limit {
                    return Ok((found, change.version));
                }
            }
            Ok((found, now.max(from)))
        })?;
        self.position = position;
        if merge {
            found = watch_event::merge(found);
        }
        if self.faults.has(Behaviour::Repeat) {
            found = found.into_iter().flat_map(|event| [event.clone(), event]).collect();
        }
        self.unsent.extend(found);
        Ok(())
    }

    /// Waits for a change, a fault or the clock. A stalled watch waits for a fault only.
    async fn wait(&mut self) {
        if self.ended {
            return;
        }
        if self.faults.has(Behaviour::Stall) {
            return self.faults.changed().await;
        }
        tokio::select! {
            // The watch holds the store, so the channel stays open.
            _ = self.changes.changed() => {}
            () = self.faults.changed() => {}
            () = sleep_until(self.end.min(self.next_bookmark)) => {}
        }
    }
}
