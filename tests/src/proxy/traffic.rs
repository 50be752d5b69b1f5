//! Counts what passes a proxy, by name: `create jobs`, `publish $JS.ACK`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts of all calls or messages since the start of the proxy. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct Traffic(Arc<Mutex<BTreeMap<String, Count>>>);

/// How many calls or messages of one name there were, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// How many.
    pub times: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Traffic {
    /// Everything so far.
    #[must_use]
    pub fn total(&self) -> BTreeMap<String, Count> {
        self.counts().clone()
    }

    /// What was added since the counts `before`.
    #[must_use]
    pub fn since(&self, before: &BTreeMap<String, Count>) -> BTreeMap<String, Count> {
        let added = self.total().into_iter().map(|(name, now)| {
            let before = before.get(&name).copied().unwrap_or_default();
            (name, Count { times: now.times - before.times, bytes: now.bytes - before.bytes })
        });
        added.filter(|(_, count)| *count != Count::default()).collect()
    }

    pub(super) fn add(&self, name: &str, bytes: usize) {
        let mut counts = self.counts();
        let count = counts.entry(name.to_owned()).or_default();
        count.times += 1;
        count.bytes += bytes as u64;
    }

    /// Adds bytes to something that is counted already.
    pub(super) fn add_bytes(&self, name: &str, bytes: usize) {
        self.counts().entry(name.to_owned()).or_default().bytes += bytes as u64;
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Count>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_added_since_is_counted() {
        let traffic = Traffic::default();
        traffic.add("get jobs", 0);
        traffic.add("watch jobs", 0);
        let before = traffic.total();
        traffic.add("create jobs", 0);
        traffic.add_bytes("watch jobs", 7);
        let added = traffic.since(&before);
        let expected =
            [("create jobs", Count { times: 1, bytes: 0 }), ("watch jobs", Count { times: 0, bytes: 7 })];
        assert_eq!(added, expected.map(|(name, count)| (name.to_owned(), count)).into());
    }
}
