//! The work queue: Jobs ordered by due time, each at most once.

use std::collections::{BTreeSet, HashMap};

use tokio::time::Instant;

/// A Job by namespace and name.
pub(super) type Key = (String, String);

/// A Job in progress is not returned again before [`Queue::done`].
#[derive(Default)]
pub(super) struct Queue {
    order: BTreeSet<(Instant, Key)>,
    due: HashMap<Key, Instant>,
    /// The Jobs in progress, each with its next due time.
    in_progress: HashMap<Key, Option<Instant>>,
}

impl Queue {
    /// Adds `key` with the due time `at`, unless it is already due earlier.
    pub(super) fn add(&mut self, key: Key, at: Instant) {
        if let Some(next) = self.in_progress.get_mut(&key) {
            *next = Some(next.map_or(at, |planned| planned.min(at)));
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

    /// Takes the next due Job.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Key> {
        let next = self.next().filter(|next| *next <= now)?;
        let (_, key) = self.order.pop_first()?;
        debug_assert!(next <= now);
        self.due.remove(&key);
        self.in_progress.insert(key.clone(), None);
        Some(key)
    }

    /// Completes `key`. It is due again at `requeue_at`, or at an earlier time that was added
    /// meanwhile.
    pub(super) fn done(&mut self, key: Key, requeue_at: Option<Instant>) {
        let added = self.in_progress.remove(&key).flatten();
        if let Some(at) = added.into_iter().chain(requeue_at).min() {
            self.add(key, at);
        }
    }

    /// The due time of the next Job.
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
    fn earliest_job_comes_first_and_none_before_its_due_time() {
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
    fn earlier_of_two_due_times_applies() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let later = now + Duration::from_secs(1);
        for at in [later, now, later] {
            queue.add(key("a"), at);
        }
        assert_eq!(queue.pop(now), Some(key("a")));
        assert_eq!(queue.next(), None);
    }

    #[test]
    fn job_in_progress_is_not_returned_again() {
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
