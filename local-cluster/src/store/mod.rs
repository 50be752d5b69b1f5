//! The objects, one counter of versions, and what happened to them lately.
//!
//! Everything that writes runs under one lock, so that what belongs together (a Job and its pods) changes together and
//! the events have one order. Watches read the history from where they are: nothing is queued for them.

mod shelf;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::Value;
use tokio::sync::watch;

pub(crate) use shelf::{Event, Key, Shelf};

use crate::{
    error::{ApiError, ApiResult},
    object::{list, set, text},
    resource::{ALL, Resource},
};

/// A dependent: what it is and where.
pub(crate) type Owned = (&'static Resource, Key);

/// See the module.
pub(crate) struct Store {
    inner: Mutex<Inner>,
    latest: watch::Sender<u64>,
}

/// What is under the lock.
pub(crate) struct Inner {
    version: u64,
    shelves: HashMap<&'static str, Shelf>,
    /// The dependents by the uid of their owner.
    owned: HashMap<String, BTreeSet<(&'static str, Key)>>,
}

impl Store {
    /// An empty store that keeps `history` events of each resource.
    pub(crate) fn new(history: usize) -> Self {
        let shelves = ALL.into_iter().map(|resource| (resource.plural, Shelf::new(history))).collect();
        Self {
            inner: Mutex::new(Inner { version: 1, shelves, owned: HashMap::new() }),
            latest: watch::Sender::new(1),
        }
    }

    /// Reads under the lock.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Inner) -> T) -> T {
        read(&self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes under the lock, then wakes the watches.
    pub(crate) fn write<T>(&self, write: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let done = write(&mut inner);
        // Within the lock: the versions told are in order.
        self.latest.send_if_modified(|latest| {
            let is_new = *latest != inner.version;
            *latest = inner.version;
            is_new
        });
        done
    }

    /// Changes with each write.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.latest.subscribe()
    }
}

impl Inner {
    /// The newest version.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// The objects of a resource and their history.
    pub(crate) fn shelf(&self, resource: &Resource) -> ApiResult<&Shelf> {
        self.shelves.get(resource.plural).ok_or_else(ApiError::no_such_path)
    }

    /// An object.
    pub(crate) fn find(&self, resource: &Resource, key: &Key) -> Option<&Arc<Value>> {
        self.shelves.get(resource.plural)?.get(key)
    }

    /// An object that has to be there.
    pub(crate) fn get(&self, resource: &Resource, key: &Key) -> ApiResult<Arc<Value>> {
        self.find(resource, key).cloned().ok_or_else(|| ApiError::not_found(resource, &key.name))
    }

    /// What names `owner` (a uid) among its owners.
    pub(crate) fn owned_by(&self, owner: &str) -> Vec<Owned> {
        let all = self.owned.get(owner).into_iter().flatten();
        all.filter_map(|(plural, key)| {
            let resource = ALL.into_iter().find(|resource| resource.plural == *plural)?;
            Some((resource, key.clone()))
        })
        .collect()
    }

    /// Writes an object under the next version, and its event.
    pub(crate) fn put(&mut self, resource: &'static Resource, key: Key, mut object: Value) -> Arc<Value> {
        self.version += 1;
        set(&mut object, &["metadata"], "resourceVersion", self.version.to_string());
        let object = Arc::new(object);
        self.disown(resource, &key);
        for owner in owners(&object) {
            self.owned.entry(owner.to_owned()).or_default().insert((resource.plural, key.clone()));
        }
        if let Some(shelf) = self.shelves.get_mut(resource.plural) {
            shelf.put(key, object.clone(), self.version);
        }
        object
    }

    /// Removes an object under the next version, and writes its event.
    pub(crate) fn remove(&mut self, resource: &'static Resource, key: &Key) -> Option<Arc<Value>> {
        self.disown(resource, key);
        let version = self.version + 1;
        let removed = self.shelves.get_mut(resource.plural)?.remove(key, version)?;
        self.version = version;
        Some(removed)
    }

    /// Removes an object that no watch will hear of.
    pub(crate) fn vanish(&mut self, resource: &'static Resource, key: &Key) -> bool {
        self.disown(resource, key);
        let vanished = self.shelves.get_mut(resource.plural).is_some_and(|shelf| shelf.vanish(key));
        self.version += u64::from(vanished);
        vanished
    }

    /// Takes an object, as it is now, out of the index by owners.
    fn disown(&mut self, resource: &'static Resource, key: &Key) {
        let Some(object) = self.find(resource, key).cloned() else { return };
        for owner in owners(&object) {
            if let Some(all) = self.owned.get_mut(owner) {
                all.remove(&(resource.plural, key.clone()));
                if all.is_empty() {
                    self.owned.remove(owner);
                }
            }
        }
    }

    /// Forgets the history: whoever is not up to date cannot resume.
    pub(crate) fn forget(&mut self) {
        self.version += 1;
        let version = self.version;
        self.shelves.values_mut().for_each(|shelf| shelf.forget(version));
    }
}

fn owners(object: &Value) -> impl Iterator<Item = &str> {
    list(object, "/metadata/ownerReferences").iter().map(|reference| text(reference, "/uid"))
}
