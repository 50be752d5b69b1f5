//! The objects of one resource, in the order of their keys, and their last events.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use serde_json::Value;

use crate::object::set;

/// Where an object is within its resource. The namespace is empty where the resource has none.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// The key of an object.
    pub(crate) fn of(object: &Value) -> Self {
        Self::new(crate::object::text(object, "/metadata/namespace"), crate::object::name(object))
    }
}

/// What happened to an object.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// The version that it made.
    pub(crate) version: u64,
    pub(crate) key: Key,
    /// Before; none where it was created.
    pub(crate) before: Option<Arc<Value>>,
    /// After; none where it was removed.
    pub(crate) after: Option<Arc<Value>>,
    /// The object as it was last, with the version of its removal.
    pub(crate) last: Arc<Value>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Shelf {
    objects: BTreeMap<Key, Arc<Value>>,
    history: VecDeque<Event>,
    limit: usize,
    /// The newest version whose event is forgotten.
    floor: u64,
}

impl Shelf {
    pub(crate) fn new(limit: usize) -> Self {
        Self { objects: BTreeMap::new(), history: VecDeque::new(), limit, floor: 0 }
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<Value>> {
        self.objects.get(key)
    }

    pub(crate) fn objects(&self) -> &BTreeMap<Key, Arc<Value>> {
        &self.objects
    }

    /// Those of one namespace.
    pub(crate) fn within<'a>(
        &'a self,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> {
        let start = Key::new(namespace, "");
        self.objects.range(start..).take_while(move |(key, _)| key.namespace == namespace)
    }

    pub(crate) fn put(&mut self, key: Key, object: Arc<Value>, version: u64) {
        let before = self.objects.insert(key.clone(), object.clone());
        self.record(Event { version, key, before, after: Some(object.clone()), last: object });
    }

    pub(crate) fn remove(&mut self, key: &Key, version: u64) -> Option<Arc<Value>> {
        let before = self.objects.remove(key)?;
        let mut last = (*before).clone();
        set(&mut last, &["metadata"], "resourceVersion", version.to_string());
        let last = Arc::new(last);
        self.record(Event {
            version,
            key: key.clone(),
            before: Some(before),
            after: None,
            last: last.clone(),
        });
        Some(last)
    }

    pub(crate) fn vanish(&mut self, key: &Key) -> bool {
        self.objects.remove(key).is_some()
    }

    pub(crate) fn forget(&mut self, version: u64) {
        self.history.clear();
        self.floor = version;
    }

    fn record(&mut self, event: Event) {
        self.history.push_back(event);
        while self.history.len() > self.limit {
            let forgotten = self.history.pop_front();
            self.floor = forgotten.map_or(self.floor, |event| event.version);
        }
    }

    /// The events after `version`, oldest first; `None` where some are forgotten.
    pub(crate) fn since(&self, version: u64) -> Option<impl DoubleEndedIterator<Item = &Event>> {
        let start = self.history.partition_point(|event| event.version <= version);
        (version >= self.floor).then(|| self.history.range(start..))
    }

    /// The objects as they were at `version`; `None` where that is forgotten.
    pub(crate) fn at(&self, version: u64) -> Option<BTreeMap<Key, Arc<Value>>> {
        let undone = self.since(version)?.rev();
        let mut objects = self.objects.clone();
        for event in undone {
            match &event.before {
                Some(before) => objects.insert(event.key.clone(), before.clone()),
                None => objects.remove(&event.key),
            };
        }
        Some(objects)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(name: &str) -> Key {
        Key::new("ns", name)
    }

    fn shelf(limit: usize) -> Shelf {
        let mut shelf = Shelf::new(limit);
        shelf.put(key("a"), Arc::new(json!({"n": 1})), 2);
        shelf.put(key("b"), Arc::new(json!({"n": 2})), 3);
        shelf.put(key("a"), Arc::new(json!({"n": 3})), 5);
        shelf.remove(&key("b"), 6);
        shelf
    }

    #[test]
    fn the_past_can_be_listed_while_it_is_remembered() {
        let shelf = shelf(10);
        let names = |version| shelf.at(version).unwrap().into_keys().map(|key| key.name).collect::<Vec<_>>();
        assert_eq!(
            (names(1), names(2), names(4), names(6)),
            (vec![], vec!["a".to_owned()], vec!["a".into(), "b".into()], vec!["a".into()])
        );
        assert_eq!(*shelf.at(4).unwrap()[&key("a")], json!({"n": 1}));
    }

    #[test]
    fn what_is_older_than_the_history_is_expired() {
        let shelf = shelf(2);
        let versions = |from| shelf.since(from).map(|events| events.map(|e| e.version).collect::<Vec<_>>());
        assert_eq!(
            (versions(2), versions(3), versions(5), versions(9)),
            (None, Some(vec![5, 6]), Some(vec![6]), Some(vec![]))
        );
        assert!(shelf.at(2).is_none());
    }

    #[test]
    fn a_removed_object_has_the_version_of_its_removal() {
        let shelf = shelf(10);
        let last = shelf.since(5).unwrap().next().unwrap();
        assert_eq!(*last.last, json!({"n": 2, "metadata": {"resourceVersion": "6"}}));
        assert!(last.after.is_none());
    }

    #[test]
    fn nothing_tells_of_what_vanished() {
        let mut shelf = shelf(10);
        assert!(shelf.vanish(&key("a")));
        assert!(shelf.objects().is_empty());
        assert_eq!(shelf.since(6).unwrap().count(), 0);
        shelf.forget(9);
        assert!(shelf.since(8).is_none() && shelf.since(9).is_some());
    }
}
