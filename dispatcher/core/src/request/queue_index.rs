//! An index of the queued requests of one template: which sequence may have a name or request id.
//!
//! JetStream cannot search a work queue. Each use adds the requests that were stored since the last
//! one, so each request is read once for all callers. An entry is a hint: the request may have left
//! the queue, and two names may have the same hash.

use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hash, Hasher},
};

use crate::contract::names::{JobName, RequestId};

/// The request to look for.
#[derive(Debug, Clone, Copy)]
pub enum Lookup<'a> {
    /// A request whose Job has this name.
    Name(&'a JobName),
    /// The request with this id.
    Id(&'a RequestId),
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    sequence: u64,
    /// `None` for a request without a valid name: it gets no Job.
    name: Option<u64>,
    id: u64,
}

/// The first requests of a queue.
#[derive(Debug)]
pub struct QueueIndex {
    max: usize,
    /// The stream's incarnation. Another stream's sequences mean other requests.
    incarnation: String,
    /// In the order of the sequences.
    entries: VecDeque<Entry>,
    /// The sequence from which the stream has not been read.
    next: u64,
}

impl QueueIndex {
    /// An index of at most `max` requests.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, incarnation: String::new(), entries: VecDeque::new(), next: 1 }
    }

    /// Drops what left the queue: `first` is the queue's first sequence, `None` if it is empty.
    /// Another incarnation drops everything.
    pub fn begin(&mut self, incarnation: &str, first: Option<u64>) {
        if self.incarnation != incarnation {
            *self = Self { incarnation: incarnation.to_owned(), ..Self::new(self.max) };
        }
        match first {
            None => self.entries.clear(),
            Some(first) => {
                while self.entries.front().is_some_and(|entry| entry.sequence < first) {
                    self.entries.pop_front();
                }
                // Nothing is queued before `first`.
                self.next = self.next.max(first);
            }
        }
    }

    /// The sequence from which to read on; `None` if the index is full.
    #[must_use]
    pub fn next(&self) -> Option<u64> {
        (self.entries.len() < self.max).then_some(self.next)
    }

    /// Adds the request at this sequence.
    pub fn add(&mut self, sequence: u64, name: Option<&JobName>, id: &RequestId) {
        self.entries.push_back(Entry { sequence, name: name.map(hash), id: hash(id) });
        self.skip(sequence);
    }

    /// The message at this sequence is not a request.
    pub fn skip(&mut self, sequence: u64) {
        self.next = sequence.saturating_add(1);
    }

    /// The sequences of the requests that may match, oldest first.
    #[must_use]
    pub fn candidates(&self, lookup: Lookup<'_>) -> Vec<u64> {
        let matches: Box<dyn Fn(&&Entry) -> bool> = match lookup {
            Lookup::Name(name) => {
                let name = Some(hash(name));
                Box::new(move |entry| entry.name == name)
            }
            Lookup::Id(id) => {
                let id = hash(id);
                Box::new(move |entry| entry.id == id)
            }
        };
        self.entries.iter().filter(matches).map(|entry| entry.sequence).collect()
    }
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> JobName {
        JobName::try_from(text).unwrap()
    }

    fn id(text: &str) -> RequestId {
        RequestId::try_from(text).unwrap()
    }

    fn index_of(count: u64, max: usize) -> QueueIndex {
        let mut index = QueueIndex::new(max);
        index.begin("JOBS 1", Some(1));
        for n in 1..=count {
            index.add(n, Some(&name(&format!("job-{n}"))), &id(&format!("id-{n}")));
        }
        index
    }

    #[test]
    fn request_is_found_by_name_and_by_id() {
        let index = index_of(100, 1000);
        assert_eq!(index.candidates(Lookup::Name(&name("job-7"))), [7]);
        assert_eq!(index.candidates(Lookup::Id(&id("id-7"))), [7]);
        assert!(index.candidates(Lookup::Name(&name("job-101"))).is_empty());
        assert_eq!(index.next(), Some(101), "only later requests are read");
    }

    #[test]
    fn requests_that_left_the_queue_are_dropped() {
        let mut index = index_of(100, 100);
        assert_eq!(index.next(), None, "full");
        index.begin("JOBS 1", Some(51));
        assert_eq!(index.next(), Some(101));
        assert!(index.candidates(Lookup::Name(&name("job-50"))).is_empty());
        assert_eq!(index.candidates(Lookup::Name(&name("job-51"))), [51]);
        index.begin("JOBS 1", None);
        assert!(index.candidates(Lookup::Name(&name("job-51"))).is_empty());
        assert_eq!(index.next(), Some(101));
    }

    #[test]
    fn another_stream_is_read_from_its_start() {
        let mut index = index_of(100, 100);
        index.begin("JOBS 2", Some(3));
        assert!(index.candidates(Lookup::Name(&name("job-51"))).is_empty());
        assert_eq!(index.next(), Some(3));
    }

    #[test]
    fn several_requests_for_one_name_are_all_candidates() {
        let mut index = QueueIndex::new(10);
        index.begin("JOBS 1", Some(1));
        index.add(4, Some(&name("a")), &id("1"));
        index.add(5, None, &id("2"));
        index.add(9, Some(&name("a")), &id("3"));
        assert_eq!(index.candidates(Lookup::Name(&name("a"))), [4, 9]);
        assert_eq!(index.candidates(Lookup::Id(&id("2"))), [5]);
    }
}
