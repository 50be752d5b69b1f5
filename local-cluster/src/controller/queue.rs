//! The Jobs to look at, each once, by the time at which it is due.

use std::collections::{BTreeSet, HashMap};

use tokio::time::Instant;

/// A Job by namespace and name.
pub(super) type Key = (String, String);

/// A Job that is being worked on is not handed out again until that is done.
#[derive(Default)]
pub(super) struct Queue {
    order: BTreeSet<(Instant, Key)>,
    due: HashMap<Key, Instant>,
    /// What is being worked on, with the time at which it is due again.
    busy: HashMap<Key, Option<Instant>>,
}

impl Queue {
    /// Has `key` looked at by `at`; an earlier time that was asked for stands.
    pub(super) fn add(&mut self, key: Key, at: Instant) {
        if let Some(again) = self.busy.get_mut(&key) {
            *again = Some(again.map_or(at, |planned| planned.min(at)));
            return;
        }
        match self.due.get(&key) {
            Some(planned) if *planned <= at => return,
            Some(planned) => {
                self.order.remove(&(*planned, key.clone()));
            }
            None => {}
        }
        self.order.insert((at, key.clone()));
        self.due.insert(key, at);
    }

    /// The next that is due, to be worked on.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Key> {
        let next = self.next().filter(|next| *next <= now)?;
        let (_, key) = self.order.pop_first()?;
        debug_assert!(next <= now);
        self.due.remove(&key);
        self.busy.insert(key.clone(), None);
        Some(key)
    }

    /// The work on `key` is done; it is due again at `again`, or when it was asked for meanwhile.
    pub(super) fn done(&mut self, key: Key, again: Option<Instant>) {
        let asked = self.busy.remove(&key).flatten();
        if let Some(at) = asked.into_iter().chain(again).min() {
            self.add(key, at);
        }
    }

    /// When the next is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn key(name: &str) -> Key {
        ("default".to_owned(), name.to_owned())
    }

    #[test]
    fn the_earliest_comes_first_and_none_before_its_time() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let later = now + Duration::from_secs(1);
        queue.add(key("a"), later);
        queue.add(key("b"), now);
        assert_eq!(queue.pop(now), Some(key("b")));
        assert_eq!(queue.pop(now), None);
        assert_eq!(queue.next(), Some(later));
        assert_eq!(queue.pop(later), Some(key("a")));
    }

    #[test]
    fn the_earlier_of_two_times_stands() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let later = now + Duration::from_secs(1);
        for at in [later, now, later] {
            queue.add(key("a"), at);
        }
        assert_eq!(queue.pop(now), Some(key("a")));
        assert_eq!(queue.next(), None);
    }

    #[test]
    fn what_is_worked_on_waits_for_its_end() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(key("a"), now);
        assert_eq!(queue.pop(now), Some(key("a")));
        queue.add(key("a"), now);
        assert_eq!(queue.pop(now), None);
        queue.done(key("a"), Some(now + Duration::from_secs(9)));
        assert_eq!(queue.pop(now), Some(key("a")));
        queue.done(key("a"), None);
        assert_eq!(queue.next(), None);
    }
}
