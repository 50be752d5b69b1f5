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
pub(crate) struct Change {
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
pub(crate) struct ResourceStore {
    objects: BTreeMap<Key, Arc<Value>>,
    history: VecDeque<Change>,
    limit: usize,
    /// The newest version whose event is forgotten.
    floor: u64,
}

impl ResourceStore {
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
    pub(crate) fn in_namespace<'a>(
        &'a self,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> {
        let start = Key::new(namespace, "");
        self.objects.range(start..).take_while(move |(key, _)| key.namespace == namespace)
    }

    pub(crate) fn put(&mut self, key: Key, object: Arc<Value>, version: u64) {
        let before = self.objects.insert(key.clone(), object.clone());
        self.record(Change { version, key, before, after: Some(object.clone()), last: object });
    }

    pub(crate) fn remove(&mut self, key: &Key, version: u64) -> Option<Arc<Value>> {
        let before = self.objects.remove(key)?;
        let mut last = (*before).clone();
        set(&mut last, &["metadata"], "resourceVersion", version.to_string());
        let last = Arc::new(last);
        self.record(Change {
            version,
            key: key.clone(),
            before: Some(before),
            after: None,
            last: last.clone(),
        });
        Some(last)
    }

    pub(crate) fn delete_silently(&mut self, key: &Key) -> bool {
        self.objects.remove(key).is_some()
    }

    pub(crate) fn compact(&mut self, version: u64) {
        self.history.clear();
        self.floor = version;
    }

    fn record(&mut self, event: Change) {
        self.history.push_back(event);
        while self.history.len() > self.limit {
            let forgotten = self.history.pop_front();
            self.floor = forgotten.map_or(self.floor, |event| event.version);
        }
    }

    /// The events after `version`, oldest first; `None` where some are forgotten.
    pub(crate) fn changes_since(&self, version: u64) -> Option<impl DoubleEndedIterator<Item = &Change>> {
        let start = self.history.partition_point(|event| event.version <= version);
        (version >= self.floor).then(|| self.history.range(start..))
    }

    /// The objects as they were at `version`; `None` where that is forgotten.
    pub(crate) fn snapshot_at(&self, version: u64) -> Option<BTreeMap<Key, Arc<Value>>> {
        let undone = self.changes_since(version)?.rev();
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

    fn resource_store(limit: usize) -> ResourceStore {
        let mut resource_store = ResourceStore::new(limit);
        resource_store.put(key("a"), Arc::new(json!({"n": 1})), 2);
        resource_store.put(key("b"), Arc::new(json!({"n": 2})), 3);
        resource_store.put(key("a"), Arc::new(json!({"n": 3})), 5);
        resource_store.remove(&key("b"), 6);
        resource_store
    }

    #[test]
    fn the_past_can_be_listed_while_it_is_remembered() {
        let resource_store = resource_store(10);
        let names = |version| {
            resource_store.snapshot_at(version).unwrap().into_keys().map(|key| key.name).collect::<Vec<_>>()
        };
        assert_eq!(
            (names(1), names(2), names(4), names(6)),
            (vec![], vec!["a".to_owned()], vec!["a".into(), "b".into()], vec!["a".into()])
        );
        assert_eq!(*resource_store.snapshot_at(4).unwrap()[&key("a")], json!({"n": 1}));
    }

    #[test]
    fn what_is_older_than_the_history_is_expired() {
        let resource_store = resource_store(2);
        let versions = |from| {
            resource_store.changes_since(from).map(|events| events.map(|e| e.version).collect::<Vec<_>>())
        };
        assert_eq!(
            (versions(2), versions(3), versions(5), versions(9)),
            (None, Some(vec![5, 6]), Some(vec![6]), Some(vec![]))
        );
        assert!(resource_store.snapshot_at(2).is_none());
    }

    #[test]
    fn a_removed_object_has_the_version_of_its_removal() {
        let resource_store = resource_store(10);
        let last = resource_store.changes_since(5).unwrap().next().unwrap();
        assert_eq!(*last.last, json!({"n": 2, "metadata": {"resourceVersion": "6"}}));
        assert!(last.after.is_none());
    }

    #[test]
    fn nothing_tells_of_what_vanished() {
        let mut resource_store = resource_store(10);
        assert!(resource_store.delete_silently(&key("a")));
        assert!(resource_store.objects().is_empty());
        assert_eq!(resource_store.changes_since(6).unwrap().count(), 0);
        resource_store.compact(9);
        assert!(resource_store.changes_since(8).is_none() && resource_store.changes_since(9).is_some());
    }
}
