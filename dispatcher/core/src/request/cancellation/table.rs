//! What of the bucket is known here. Pure.

use std::collections::HashMap;

use crate::contract::names::{JobName, RequestId, TemplateName};
use crate::request::cancellation::{Cancel, name_key, request_key};

/// An entry, and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub cancel: Cancel,
    /// Its sequence in the bucket's stream.
    pub revision: u64,
    /// Whether it was looked for a Job that slipped through, since the last time there was a reason to.
    pub looked: bool,
}

#[derive(Debug, Default)]
pub struct Table(HashMap<String, Entry>);

impl Table {
    /// A newer entry takes the place of an older one.
    pub fn put(&mut self, cancel: Cancel, revision: u64) {
        let key = cancel.key();
        if self.0.get(&key).is_none_or(|entry| entry.revision < revision) {
            self.0.insert(key, Entry { cancel, revision, looked: false });
        }
    }

    /// Removes the entry, unless there is a newer one.
    pub fn remove(&mut self, entry: &Entry) {
        let key = entry.cancel.key();
        if self.0.get(&key).is_some_and(|there| there.revision <= entry.revision) {
            self.0.remove(&key);
        }
    }

    pub fn looked(&mut self, entry: &Entry) {
        if let Some(there) = self.0.get_mut(&entry.cancel.key()) {
            there.looked = there.revision == entry.revision;
        }
    }

    /// There is a reason to look for a Job of this name.
    pub fn look_again(&mut self, template: &TemplateName, name: &JobName) {
        let of_it = self.0.values_mut().filter(|entry| entry.cancel.target() == (template, name));
        of_it.for_each(|entry| entry.looked = false);
    }

    /// Whether the request of this name and identity, stored at `sequence`, is cancelled.
    pub fn covers(&self, template: &TemplateName, name: &JobName, id: &RequestId, sequence: u64) -> bool {
        let covers = |key: String| {
            let up_to = self.0.get(&key).and_then(|entry| entry.cancel.up_to());
            up_to.is_some_and(|up_to| sequence <= up_to)
        };
        !self.0.is_empty() && (covers(name_key(template, name)) || covers(request_key(template, id)))
    }

    pub fn entries(&self) -> Vec<Entry> {
        self.0.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{contract::job::JobState, testing::a_job};

    fn template() -> TemplateName {
        TemplateName::try_from("simple").unwrap()
    }

    fn name(text: &str) -> JobName {
        JobName::try_from(text).unwrap()
    }

    fn id(text: &str) -> RequestId {
        RequestId::try_from(text).unwrap()
    }

    fn by_name(up_to: u64) -> Cancel {
        Cancel::Name { template: template(), name: name("a"), up_to }
    }

    fn by_id(up_to: u64) -> Cancel {
        Cancel::Request { template: template(), request_id: id("order *> 1"), name: name("a"), up_to }
    }

    #[test]
    fn a_cancelled_name_concerns_only_what_was_stored_by_then() {
        let mut table = Table::default();
        assert!(!table.covers(&template(), &name("a"), &id("1"), 1));
        table.put(by_name(7), 1);
        assert!(table.covers(&template(), &name("a"), &id("1"), 7));
        assert!(
            !table.covers(&template(), &name("a"), &id("1"), 8),
            "tomorrow's request of that name is free"
        );
        assert!(!table.covers(&template(), &name("b"), &id("1"), 7));
        assert!(!table.covers(&TemplateName::try_from("other").unwrap(), &name("a"), &id("1"), 7));
    }

    #[test]
    fn a_cancelled_request_concerns_no_other_of_its_name() {
        let mut table = Table::default();
        table.put(by_id(7), 1);
        assert!(table.covers(&template(), &name("a"), &id("order *> 1"), 7));
        assert!(!table.covers(&template(), &name("a"), &id("order 2"), 7));
        assert!(!table.covers(&template(), &name("a"), &id("order *> 1"), 8));
    }

    #[test]
    fn the_newest_entry_counts_and_no_older_removal_takes_it_away() {
        let mut table = Table::default();
        table.put(by_name(7), 1);
        let first = table.entries().remove(0);
        table.put(by_name(20), 5);
        table.put(by_name(7), 1);
        assert!(table.covers(&template(), &name("a"), &id("1"), 20));
        table.looked(&first);
        assert!(!table.entries()[0].looked, "of another entry");
        table.remove(&first);
        let newest = table.entries().remove(0);
        assert_eq!(newest.cancel, by_name(20));
        table.remove(&newest);
        assert!(table.entries().is_empty());
    }

    #[test]
    fn an_entry_that_was_looked_after_is_looked_after_again_when_its_job_shows() {
        let mut table = Table::default();
        table.put(by_id(7), 1);
        let entry = table.entries().remove(0);
        table.looked(&entry);
        assert!(table.entries()[0].looked);
        table.look_again(&template(), &name("b"));
        assert!(table.entries()[0].looked);
        table.look_again(&template(), &name("a"));
        assert!(!table.entries()[0].looked);
    }

    #[test]
    fn an_entry_is_of_the_job_that_slipped_through_and_of_no_later_one() {
        let job = |seq: u64, request: &str| JobState {
            template: template(),
            name: name("a"),
            request_seq: seq,
            request_id: id(request),
            ..a_job("u", 1, json!({}))
        };
        assert!(by_name(7).is_of(&job(7, "x")) && !by_name(7).is_of(&job(8, "x")));
        assert!(by_id(7).is_of(&job(7, "order *> 1")) && !by_id(7).is_of(&job(7, "x")));
        let one = Cancel::job(&job(7, "x"));
        assert!(one.is_of(&job(9, "y")), "by its uid alone");
        assert!(!one.is_of(&JobState { uid: "v".into(), ..job(7, "x") }));
    }

    #[test]
    fn a_key_is_made_of_what_a_bucket_takes_and_an_entry_is_json() {
        for cancel in [by_name(7), by_id(7), Cancel::job(&a_job("u-1", 1, json!({})))] {
            let key = cancel.key();
            assert!(key.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c)), "{key}");
            let text = serde_json::to_string(&cancel).unwrap();
            assert_eq!(serde_json::from_str::<Cancel>(&text).unwrap(), cancel, "{text}");
        }
        let entry = serde_json::to_value(by_name(7)).unwrap();
        assert_eq!(entry, json!({"cancel": "name", "template": "simple", "name": "a", "upTo": 7}));
    }
}
