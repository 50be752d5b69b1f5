//! Who waits for which request, bounded in number. Pure but for the channels: it neither reads nor writes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::micro::query::Wait;
use dispatcher_core::contract::{
    event::EventType,
    names::{RequestId, TemplateName},
    rejection::RejectedNotice,
};

/// What waits for one caller: events that meet its wish, and rejections under its identity. What does not fit is found by
/// the next look at the stream.
const HEARD: usize = 8;

/// What was heard of a request.
#[derive(Debug, Clone)]
pub enum WaitResult {
    /// An event that meets the wish.
    Event {
        /// The hash of the request that made the Job, where the message carries it.
        hash: Option<String>,
        /// The event, as it stands in the stream.
        payload: Bytes,
    },
    /// It is rejected, or another request of the same identity is.
    Rejected(Box<RejectedNotice>),
}

type Key = (TemplateName, RequestId);

#[derive(Debug)]
struct Caller {
    number: u64,
    wait: Wait,
    sender: mpsc::Sender<WaitResult>,
}

#[derive(Debug, Default)]
struct Table {
    last: u64,
    waiting: HashMap<Key, Vec<Caller>>,
    count: usize,
}

/// The callers that wait; at most so many.
#[derive(Debug, Clone)]
pub struct Waiting {
    table: Arc<Mutex<Table>>,
    most: usize,
}

/// One caller's place; given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    waiting: Waiting,
    key: Key,
    number: u64,
    heard: mpsc::Receiver<WaitResult>,
}

impl Waiting {
    /// Component for `most` callers.
    pub fn new(most: usize) -> Self {
        Self { table: Arc::default(), most }
    }

    /// A place for one who waits for that request; `None` where all are taken.
    pub fn place(&self, template: &TemplateName, id: &RequestId, wait: Wait) -> Option<Place> {
        let (sender, heard) = mpsc::channel(HEARD);
        let key = (template.clone(), id.clone());
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.count >= self.most {
            return None;
        }
        table.count += 1;
        table.last += 1;
        let number = table.last;
        table.waiting.entry(key.clone()).or_default().push(Caller { number, wait, sender });
        Some(Place { waiting: self.clone(), key, number, heard })
    }

    /// PodState of an event all who wait for one such of that request.
    pub fn event(
        &self,
        template: &TemplateName,
        id: &RequestId,
        event: Option<EventType>,
        hash: Option<&str>,
        payload: &Bytes,
    ) {
        self.tell(template, id, |wait| {
            let heard = || WaitResult::Event { hash: hash.map(str::to_owned), payload: payload.clone() };
            wait.is_met_by(event).then(heard)
        });
    }

    /// PodState of a rejection all who wait for that request.
    pub fn rejected(&self, id: &RequestId, notice: &RejectedNotice) {
        self.tell(&notice.template, id, |_| Some(WaitResult::Rejected(Box::new(notice.clone()))));
    }

    fn tell(&self, template: &TemplateName, id: &RequestId, heard: impl Fn(Wait) -> Option<WaitResult>) {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        for caller in table.waiting.get(&(template.clone(), id.clone())).into_iter().flatten() {
            if let Some(heard) = heard(caller.wait) {
                // Full: it looks at the stream by itself.
                let _ = caller.sender.try_send(heard);
            }
        }
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).count == 0
    }
}

impl Place {
    /// The next thing heard of the request.
    pub async fn next(&mut self) -> Option<WaitResult> {
        self.heard.recv().await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.waiting.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.count = table.count.saturating_sub(1);
        if let Some(callers) = table.waiting.get_mut(&self.key) {
            callers.retain(|caller| caller.number != self.number);
            if callers.is_empty() {
                table.waiting.remove(&self.key);
            }
        }
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

    fn place(waiting: &Waiting, of: &str, wait: Wait) -> Option<Place> {
        waiting.place(&template(of), &id("1"), wait)
    }

    fn tell(waiting: &Waiting, of: &str, event: EventType) {
        waiting.event(&template(of), &id("1"), Some(event), None, &Bytes::new());
    }

    #[test]
    fn places_are_bounded_and_given_back() {
        let waiting = Waiting::new(2);
        let first = place(&waiting, "a", Wait::Outcome).unwrap();
        let _second = place(&waiting, "a", Wait::Outcome).unwrap();
        assert!(place(&waiting, "b", Wait::Outcome).is_none());
        drop(first);
        assert!(place(&waiting, "b", Wait::Outcome).is_some(), "and dropped at once");
        assert!(!waiting.is_empty());
    }

    #[tokio::test]
    async fn all_who_wait_for_a_request_are_told_and_nobody_else() {
        let waiting = Waiting::new(9);
        let mut one = place(&waiting, "a", Wait::Created).unwrap();
        let mut two = place(&waiting, "a", Wait::Created).unwrap();
        let mut other = place(&waiting, "b", Wait::Created).unwrap();
        tell(&waiting, "a", EventType::Added);
        assert!(one.next().await.is_some() && two.next().await.is_some());
        assert!(other.heard.try_recv().is_err());
    }

    #[test]
    fn one_who_waits_for_the_outcome_hears_of_nothing_before() {
        let waiting = Waiting::new(9);
        let mut place = place(&waiting, "a", Wait::Outcome).unwrap();
        for _ in 0..100 {
            tell(&waiting, "a", EventType::Modified);
        }
        tell(&waiting, "a", EventType::Outcome);
        assert!(place.heard.try_recv().is_ok());
        assert!(place.heard.try_recv().is_err());
    }

    #[test]
    fn one_who_does_not_listen_holds_up_nobody_and_leaves_nothing_behind() {
        let waiting = Waiting::new(9);
        let mut place = place(&waiting, "a", Wait::Created).unwrap();
        for _ in 0..100 {
            tell(&waiting, "a", EventType::Modified);
        }
        assert_eq!(std::iter::from_fn(|| place.heard.try_recv().ok()).count(), HEARD);
        drop(place);
        assert!(waiting.table.lock().unwrap().waiting.is_empty());
    }
}
