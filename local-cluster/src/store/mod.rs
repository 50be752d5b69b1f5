//! The objects with one version counter, and the history of recent changes.
//!
//! All writes run under one lock: related objects (a Job and its pods) change together, and changes
//! have a total order. Watches read the history from their position; nothing is queued for them.

mod resource_store;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::Value;
use tokio::sync::watch;

pub(crate) use resource_store::{Change, Key, ResourceStore};

use crate::{
    error::{ApiError, ApiResult},
    object::{list, set, text},
    resource::{ALL, Resource},
};

/// A dependent of an owner: its resource and key.
pub(crate) type Dependent = (&'static Resource, Key);

/// The store.
pub(crate) struct Store {
    state: Mutex<StoreState>,
    latest: watch::Sender<u64>,
}

/// The state under the lock.
pub(crate) struct StoreState {
    version: u64,
    resources: HashMap<&'static str, ResourceStore>,
    /// The dependents by owner uid.
    dependents: HashMap<String, BTreeSet<(&'static str, Key)>>,
}

impl Store {
    /// Creates an empty store that keeps `history` changes of each resource.
    pub(crate) fn new(history: usize) -> Self {
        let resources =
            ALL.into_iter().map(|resource| (resource.plural, ResourceStore::new(history))).collect();
        Self {
            state: Mutex::new(StoreState { version: 1, resources, dependents: HashMap::new() }),
            latest: watch::Sender::new(1),
        }
    }

    /// Reads under the lock.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&StoreState) -> T) -> T {
        read(&self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes under the lock, then wakes the watches.
    pub(crate) fn write<T>(&self, write: impl FnOnce(&mut StoreState) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = write(&mut state);
        // Under the lock, so that receivers observe versions in order.
        self.latest.send_if_modified(|latest| {
            let is_new = *latest != state.version;
            *latest = state.version;
            is_new
        });
        result
    }

    /// Notifies about each write.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.latest.subscribe()
    }
}

impl StoreState {
    /// The newest version.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// The objects of a resource, with their history.
    pub(crate) fn resource_store(&self, resource: &Resource) -> ApiResult<&ResourceStore> {
        self.resources.get(resource.plural).ok_or_else(ApiError::path_not_found)
    }

    /// An object, if it exists.
    pub(crate) fn find(&self, resource: &Resource, key: &Key) -> Option<&Arc<Value>> {
        self.resources.get(resource.plural)?.get(key)
    }

    /// An object.
    ///
    /// # Errors
    /// 404 if it is absent.
    pub(crate) fn get(&self, resource: &Resource, key: &Key) -> ApiResult<Arc<Value>> {
        self.find(resource, key).cloned().ok_or_else(|| ApiError::not_found(resource, &key.name))
    }

    /// The objects with the uid `owner` among their owners.
    pub(crate) fn dependents_of(&self, owner: &str) -> Vec<Dependent> {
        let all = self.dependents.get(owner).into_iter().flatten();
        all.filter_map(|(plural, key)| {
            let resource = ALL.into_iter().find(|resource| resource.plural == *plural)?;
            Some((resource, key.clone()))
        })
        .collect()
    }

    /// Stores an object under the next version and records the change.
    pub(crate) fn put(&mut self, resource: &'static Resource, key: Key, mut object: Value) -> Arc<Value> {
        self.version += 1;
        set(&mut object, &["metadata"], "resourceVersion", self.version.to_string());
        let object = Arc::new(object);
        self.unindex_owners(resource, &key);
        for owner in owner_uids(&object) {
            self.dependents.entry(owner.to_owned()).or_default().insert((resource.plural, key.clone()));
        }
        if let Some(resource_store) = self.resources.get_mut(resource.plural) {
            resource_store.put(key, object.clone(), self.version);
        }
        object
    }

    /// Removes an object under the next version and records the change.
    pub(crate) fn remove(&mut self, resource: &'static Resource, key: &Key) -> Option<Arc<Value>> {
        self.unindex_owners(resource, key);
        let version = self.version + 1;
        let removed = self.resources.get_mut(resource.plural)?.remove(key, version)?;
        self.version = version;
        Some(removed)
    }

    /// Removes an object without recording the change.
    pub(crate) fn delete_silently(&mut self, resource: &'static Resource, key: &Key) -> bool {
        self.unindex_owners(resource, key);
        let deleted = self
            .resources
            .get_mut(resource.plural)
            .is_some_and(|resource_store| resource_store.delete_silently(key));
        self.version += u64::from(deleted);
        deleted
    }

    /// Removes the stored object from the index of dependents.
    fn unindex_owners(&mut self, resource: &'static Resource, key: &Key) {
        let Some(object) = self.find(resource, key).cloned() else { return };
        for owner in owner_uids(&object) {
            if let Some(all) = self.dependents.get_mut(owner) {
                all.remove(&(resource.plural, key.clone()));
                if all.is_empty() {
                    self.dependents.remove(owner);
                }
            }
        }
    }

    /// Drops the history. Watches from an older version expire.
    pub(crate) fn compact(&mut self) {
        self.version += 1;
        let version = self.version;
        self.resources.values_mut().for_each(|resource_store| resource_store.compact(version));
    }
}

fn owner_uids(object: &Value) -> impl Iterator<Item = &str> {
    list(object, "/metadata/ownerReferences").iter().map(|reference| text(reference, "/uid"))
}
