//! Lists objects in pages and watches them from the version of the list, as a stream of events.
//!
//! List and watch can select different objects: pods are listed while they are unfinished, and
//! watched to their end. After a 410 the stream lists again, and otherwise it resumes.

use std::{time::Duration, vec};

use dispatcher_core::request::error::CallError;
use futures::{Stream, StreamExt, stream, stream::BoxStream};
use kube::{
    Api, Resource, ResourceExt,
    api::{ListParams, WatchParams},
    core::WatchEvent,
};
use serde::de::DeserializeOwned;

use crate::kube::{call_error, call_within};

/// The deadline of one page of a list, and of the start of a watch.
const DEADLINE: Duration = Duration::from_secs(25);
/// How long the API server serves one watch request. Only its end reveals a revoked permission or a
/// dead connection, and `/readyz` has to report both within half a minute.
const WATCH_SECONDS: u32 = 20;
const PAGE_SIZE: u32 = 500;

/// An event of a list or a watch.
#[derive(Debug)]
pub(super) enum Event<K> {
    /// A list begins.
    Init,
    /// An object of the list.
    InitApply(K),
    /// The list is complete.
    InitDone,
    /// The object was created or changed, or entered the selector.
    Apply(K),
    /// The object was deleted, or left the selector. It has the labels of before.
    Delete(K),
}

/// What a list and a watch select. Empty fields select all objects.
#[derive(Debug, Clone, Copy)]
pub(super) struct Selection {
    /// The label selector.
    pub labels: &'static str,
    /// The field selector of the list.
    pub list_fields: &'static str,
    /// The field selector of the watch.
    pub watch_fields: &'static str,
}

enum State<K> {
    Start,
    List { items: vec::IntoIter<K>, version: String, page: Page },
    Watch { version: String },
    Watching { version: String, events: BoxStream<'static, kube::Result<WatchEvent<K>>> },
}

enum Page {
    First,
    Next(String),
    Done,
}

struct ListWatch<K> {
    api: Api<K>,
    selection: Selection,
}

/// The events, forever. After an error, poll the stream again to continue.
pub(super) fn list_watch<K>(
    api: Api<K>,
    selection: Selection,
) -> impl Stream<Item = Result<Event<K>, CallError>>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let this = ListWatch { api, selection };
    stream::unfold((this, State::Start), |(this, mut state)| async move {
        loop {
            let (event, next) = this.step(state).await;
            state = next;
            if let Some(event) = event.transpose() {
                return Some((event, (this, state)));
            }
        }
    })
}

impl<K> ListWatch<K>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    async fn step(&self, state: State<K>) -> (Result<Option<Event<K>>, CallError>, State<K>) {
        match state {
            State::Start => {
                let first =
                    State::List { items: vec![].into_iter(), version: String::new(), page: Page::First };
                (Ok(Some(Event::Init)), first)
            }
            State::List { mut items, version, page } => match (items.next(), page) {
                (Some(object), page) => {
                    (Ok(Some(Event::InitApply(object))), State::List { items, version, page })
                }
                (None, Page::Done) => (Ok(Some(Event::InitDone)), State::Watch { version }),
                (None, Page::First) => self.page(None).await,
                (None, Page::Next(token)) => self.page(Some(token)).await,
            },
            State::Watch { version } => self.start_watch(version).await,
            State::Watching { version, mut events } => match events.next().await {
                Some(Ok(event)) => Self::watched(event, version, events),
                Some(Err(error)) => (Err(call_error(error)), State::Watch { version }),
                None => (Ok(None), State::Watch { version }),
            },
        }
    }

    async fn page(&self, token: Option<String>) -> (Result<Option<Event<K>>, CallError>, State<K>) {
        let Selection { labels, list_fields, .. } = self.selection;
        let params = ListParams { continue_token: token, ..ListParams::default() };
        let params = params.labels(labels).fields(list_fields).limit(PAGE_SIZE);
        let found = match call_within(DEADLINE, self.api.list(&params)).await {
            Ok(found) => found,
            Err(error) => return (Err(error), State::Start),
        };
        let page = found.metadata.continue_.filter(|token| !token.is_empty()).map_or(Page::Done, Page::Next);
        let version = found.metadata.resource_version.unwrap_or_default();
        (Ok(None), State::List { items: found.items.into_iter(), version, page })
    }

    async fn start_watch(&self, version: String) -> (Result<Option<Event<K>>, CallError>, State<K>) {
        let Selection { labels, watch_fields, .. } = self.selection;
        let params = WatchParams::default().labels(labels).fields(watch_fields).timeout(WATCH_SECONDS);
        match call_within(DEADLINE, self.api.watch(&params, &version)).await {
            Ok(events) => (Ok(None), State::Watching { version, events: events.boxed() }),
            Err(error) => {
                let next = after(&error, version);
                (Err(error), next)
            }
        }
    }

    fn watched(
        event: WatchEvent<K>,
        version: String,
        events: BoxStream<'static, kube::Result<WatchEvent<K>>>,
    ) -> (Result<Option<Event<K>>, CallError>, State<K>) {
        let version_of = |object: &K| object.resource_version().unwrap_or_else(|| version.clone());
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                let version = version_of(&object);
                (Ok(Some(Event::Apply(object))), State::Watching { version, events })
            }
            WatchEvent::Deleted(object) => {
                let version = version_of(&object);
                (Ok(Some(Event::Delete(object))), State::Watching { version, events })
            }
            WatchEvent::Bookmark(bookmark) => {
                let version = bookmark.metadata.resource_version;
                (Ok(None), State::Watching { version, events })
            }
            WatchEvent::Error(status) => {
                let error = CallError::Status(status);
                let next = after(&error, version);
                (Err(error), next)
            }
        }
    }
}

/// Whether the resourceVersion has expired, so that everything is listed again.
pub(super) fn is_gone(error: &CallError) -> bool {
    error.code() == Some(410)
}

fn after<K>(error: &CallError, version: String) -> State<K> {
    if is_gone(error) { State::Start } else { State::Watch { version } }
}
