//! Passes status events and rejections to the callers of `submit` that wait for them.
//!
//! One subscription serves all callers. Core NATS can lose messages, so a caller also reads the
//! streams at intervals; what this module drops is found there. The number of callers is bounded.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_nats::Message;
use bytes::Bytes;
use dispatcher_core::contract::{
    event::EventType,
    headers::{JOB_EVENT, JOB_REQUEST_HASH, JOB_REQUEST_ID},
    names::{RequestId, TemplateName},
    nats_names::NatsNames,
    rejection::RejectedNotice,
};
use futures::{StreamExt, stream::BoxStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    micro::{
        api::Wait,
        places::{Place, Places, TemplateCount},
    },
    nats::{
        connection::Connection,
        scan,
        subscription::{self, Subject},
    },
    retry::with_deadline,
};

/// How many results are buffered for a caller.
const BUFFER: usize = 2;

/// Something that can end a caller's wait.
#[derive(Debug, Clone)]
pub(super) enum WaitResult {
    /// An event of the awaited type.
    Event {
        /// The hash of the request that created the Job, if the message carries it.
        hash: Option<String>,
        /// The event as it is stored.
        payload: Bytes,
    },
    /// The rejection of the request, or of another request with the same id.
    Rejected(Box<RejectedNotice>),
}

type Key = (TemplateName, RequestId);

struct Entry {
    number: u64,
    wait: Wait,
    sender: mpsc::Sender<WaitResult>,
}

#[derive(Default)]
struct Table {
    last_number: u64,
    entries: HashMap<Key, Vec<Entry>>,
}

/// The waiting callers; clones share them.
#[derive(Clone)]
pub(crate) struct Waiters {
    table: Arc<Mutex<Table>>,
    places: Places,
}

/// One waiting caller; dropping it removes the caller.
pub(super) struct Waiter {
    waiters: Waiters,
    key: Key,
    number: u64,
    receiver: mpsc::Receiver<WaitResult>,
    _place: Place,
}

impl Waiters {
    /// Allows up to `max` waiting callers, which the templates share.
    pub(crate) fn new(max: usize, templates: TemplateCount) -> Self {
        Self { table: Arc::default(), places: Places::new(max, templates) }
    }

    /// Adds a caller that waits for this request; `None` if too many wait already, or too many of
    /// this template.
    pub(super) fn register(&self, template: &TemplateName, id: &RequestId, wait: Wait) -> Option<Waiter> {
        let place = self.places.take(template)?;
        let (sender, receiver) = mpsc::channel(BUFFER);
        let key = (template.clone(), id.clone());
        let mut table = self.lock();
        table.last_number += 1;
        let number = table.last_number;
        table.entries.entry(key.clone()).or_default().push(Entry { number, wait, sender });
        Some(Waiter { waiters: self.clone(), key, number, receiver, _place: place })
    }

    /// Passes an event to the callers that wait for it. `None` is an unknown event type.
    fn event(
        &self,
        template: &TemplateName,
        id: &RequestId,
        event: Option<EventType>,
        hash: Option<&str>,
        payload: &Bytes,
    ) {
        self.send(template, id, |wait| {
            let result = || WaitResult::Event {
                hash: hash.map(str::to_owned),
                // A part of the message would keep the whole read buffer of the connection alive.
                payload: Bytes::copy_from_slice(payload),
            };
            wait.is_met_by(event).then(result)
        });
    }

    /// Passes a rejection to all callers that wait for the request.
    fn rejected(&self, id: &RequestId, notice: &RejectedNotice) {
        self.send(&notice.template, id, |_| Some(WaitResult::Rejected(Box::new(notice.clone()))));
    }

    fn send(&self, template: &TemplateName, id: &RequestId, result: impl Fn(Wait) -> Option<WaitResult>) {
        let table = self.lock();
        for entry in table.entries.get(&(template.clone(), id.clone())).into_iter().flatten() {
            if let Some(result) = result(entry.wait) {
                // A caller with a full buffer finds the event in the stream.
                let _ = entry.sender.try_send(result);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter {
    /// The next result for this caller.
    pub(super) async fn next(&mut self) -> Option<WaitResult> {
        self.receiver.recv().await
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut table = self.waiters.lock();
        if let Some(entries) = table.entries.get_mut(&self.key) {
            entries.retain(|entry| entry.number != self.number);
            if entries.is_empty() {
                table.entries.remove(&self.key);
            }
        }
    }
}

/// Subscribes to every status subject that `JOB_STATUS` republishes, and to `_rejected`. After it
/// returns, only a lost connection loses messages; callers then read the streams.
pub(super) async fn subscribe(events: &Connection) -> BoxStream<'static, Message> {
    let subject = Subject { name: events.names().status_subjects(), queue_group: None };
    let messages = subscription::subscribe(events, subject, CancellationToken::new()).await;
    if let Ok(Err(error)) = with_deadline(scan::DEADLINE, events.client().flush()).await {
        tracing::debug!(%error, "the client ended after it subscribed");
    }
    messages
}

/// Passes messages to the waiting callers until the subscription ends.
pub(super) async fn dispatch(names: NatsNames, mut messages: BoxStream<'static, Message>, waiters: Waiters) {
    while let Some(message) = messages.next().await {
        if !waiters.is_empty() {
            dispatch_one(&names, &message, &waiters);
        }
    }
}

fn dispatch_one(names: &NatsNames, message: &Message, waiters: &Waiters) {
    let header = |name: &str| message.headers.as_ref()?.get(name).map(|value| value.as_str().to_owned());
    if let Some((template, _)) = names.parse_status_subject(&message.subject) {
        let Some(id) = header(JOB_REQUEST_ID).and_then(|id| RequestId::try_from(id).ok()) else { return };
        let event = header(JOB_EVENT).as_deref().and_then(EventType::parse);
        waiters.event(&template, &id, event, header(JOB_REQUEST_HASH).as_deref(), &message.payload);
    } else if let Ok(notice) = serde_json::from_slice::<RejectedNotice>(&message.payload)
        && let Ok(id) = RequestId::try_from(notice.request_id.as_str())
    {
        waiters.rejected(&id, &notice);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(name: &str) -> TemplateName {
        TemplateName::try_from(name).unwrap()
    }

    fn id(text: &str) -> RequestId {
        RequestId::try_from(text).unwrap()
    }

    fn register(waiters: &Waiters, name: &str, wait: Wait) -> Option<Waiter> {
        waiters.register(&template(name), &id("1"), wait)
    }

    fn publish(waiters: &Waiters, name: &str, event: EventType) {
        waiters.event(&template(name), &id("1"), Some(event), None, &Bytes::new());
    }

    #[test]
    fn callers_are_bounded_and_removed_when_dropped() {
        let waiters = Waiters::new(2, Arc::new(|| 1));
        let first = register(&waiters, "a", Wait::Outcome).unwrap();
        let _second = register(&waiters, "a", Wait::Outcome).unwrap();
        assert!(register(&waiters, "b", Wait::Outcome).is_none());
        drop(first);
        assert!(register(&waiters, "b", Wait::Outcome).is_some(), "and dropped immediately");
        assert!(!waiters.is_empty());
    }

    #[test]
    fn waiting_callers_of_one_template_leave_places_for_another() {
        let waiters = Waiters::new(10, Arc::new(|| 2));
        let loud: Vec<_> = std::iter::from_fn(|| register(&waiters, "loud", Wait::Outcome)).collect();
        assert_eq!(loud.len(), 5);
        assert!(register(&waiters, "other", Wait::Outcome).is_some());
    }

    #[tokio::test]
    async fn every_caller_of_a_request_gets_its_event_and_no_other_caller_does() {
        let waiters = Waiters::new(9, Arc::new(|| 1));
        let mut one = register(&waiters, "a", Wait::Created).unwrap();
        let mut two = register(&waiters, "a", Wait::Created).unwrap();
        let mut other = register(&waiters, "b", Wait::Created).unwrap();
        publish(&waiters, "a", EventType::Added);
        assert!(one.next().await.is_some() && two.next().await.is_some());
        assert!(other.receiver.try_recv().is_err());
    }

    #[test]
    fn caller_that_waits_for_the_outcome_gets_no_earlier_event() {
        let waiters = Waiters::new(9, Arc::new(|| 1));
        let mut waiter = register(&waiters, "a", Wait::Outcome).unwrap();
        for _ in 0..100 {
            publish(&waiters, "a", EventType::Modified);
        }
        publish(&waiters, "a", EventType::Outcome);
        assert!(waiter.receiver.try_recv().is_ok());
        assert!(waiter.receiver.try_recv().is_err());
    }

    #[test]
    fn slow_caller_blocks_no_other_and_leaves_no_entry() {
        let waiters = Waiters::new(9, Arc::new(|| 1));
        let mut waiter = register(&waiters, "a", Wait::Created).unwrap();
        for _ in 0..100 {
            publish(&waiters, "a", EventType::Modified);
        }
        assert_eq!(std::iter::from_fn(|| waiter.receiver.try_recv().ok()).count(), BUFFER);
        drop(waiter);
        assert!(waiters.lock().entries.is_empty());
    }
}
