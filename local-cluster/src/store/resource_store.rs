//! The objects of one resource, ordered by key, and their recent changes.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use serde_json::Value;

use crate::object::set;

/// The key of an object within its resource. The namespace is empty for cluster-scoped resources.
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

/// A change of an object.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// The version of the change.
    pub(crate) version: u64,
    pub(crate) key: Key,
    /// The object before the change; `None` for a creation.
    pub(crate) before: Option<Arc<Value>>,
    /// The object after the change; `None` for a removal.
    pub(crate) after: Option<Arc<Value>>,
    /// The last state of the object; for a removal, with the version of the removal.
    pub(crate) last: Arc<Value>,
}

/// The objects of one resource and their history.
#[derive(Debug)]
pub(crate) struct ResourceStore {
    objects: BTreeMap<Key, Arc<Value>>,
    history: VecDeque<Change>,
    limit: usize,
    /// The newest version whose change is dropped.
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

    /// The objects of one namespace.
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

    fn record(&mut self, change: Change) {
        self.history.push_back(change);
        while self.history.len() > self.limit {
            let dropped = self.history.pop_front();
            self.floor = dropped.map_or(self.floor, |change| change.version);
        }
    }

    /// The changes after `version`, oldest first; `None` if some of them are dropped.
    pub(crate) fn changes_since(&self, version: u64) -> Option<impl DoubleEndedIterator<Item = &Change>> {
        let start = self.history.partition_point(|change| change.version <= version);
        (version >= self.floor).then(|| self.history.range(start..))
    }

    /// The objects at `version`; `None` if the version is below the history.
    pub(crate) fn snapshot_at(&self, version: u64) -> Option<BTreeMap<Key, Arc<Value>>> {
        let reverted = self.changes_since(version)?.rev();
        let mut objects = self.objects.clone();
        for change in reverted {
            match &change.before {
                Some(before) => objects.insert(change.key.clone(), before.clone()),
                None => objects.remove(&change.key),
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
    fn past_versions_are_readable_within_the_history() {
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
    fn versions_below_the_history_are_expired() {
        let resource_store = resource_store(2);
        let versions = |from| {
            resource_store
                .changes_since(from)
                .map(|changes| changes.map(|change| change.version).collect::<Vec<_>>())
        };
        assert_eq!(
            (versions(2), versions(3), versions(5), versions(9)),
            (None, Some(vec![5, 6]), Some(vec![6]), Some(vec![]))
        );
        assert!(resource_store.snapshot_at(2).is_none());
    }

    #[test]
    fn removed_object_has_the_version_of_its_removal() {
        let resource_store = resource_store(10);
        let last = resource_store.changes_since(5).unwrap().next().unwrap();
        assert_eq!(*last.last, json!({"n": 2, "metadata": {"resourceVersion": "6"}}));
        assert!(last.after.is_none());
    }

    #[test]
    fn silent_delete_records_no_change() {
        let mut resource_store = resource_store(10);
        assert!(resource_store.delete_silently(&key("a")));
        assert!(resource_store.objects().is_empty());
        assert_eq!(resource_store.changes_since(6).unwrap().count(), 0);
        resource_store.compact(9);
        assert!(resource_store.changes_since(8).is_none() && resource_store.changes_since(9).is_some());
    }
}
