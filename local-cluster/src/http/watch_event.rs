//! The watch events for a change of the store, filtered by namespace and selector. Pure.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    object::set,
    resource::Resource,
    selector::Selector,
    store::{Change, Key},
};

/// A watch event.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct WatchEvent {
    pub(super) type_: &'static str,
    pub(super) object: Arc<Value>,
}

impl WatchEvent {
    pub(super) fn added(object: Arc<Value>) -> Self {
        Self { type_: "ADDED", object }
    }

    /// A bookmark: the watch has sent every event up to `version`.
    pub(super) fn bookmark(resource: &Resource, version: u64) -> Self {
        let object = json!({"kind": resource.kind, "apiVersion": resource.api_version(),
            "metadata": {"resourceVersion": version.to_string()}});
        Self { type_: "BOOKMARK", object: Arc::new(object) }
    }

    /// The bookmark that ends the initial events of `sendInitialEvents`.
    pub(super) fn initial_events_end(resource: &Resource, version: u64) -> Self {
        let mut object = (*Self::bookmark(resource, version).object).clone();
        set(&mut object, &["metadata", "annotations"], "k8s.io/initial-events-end", "true");
        Self { type_: "BOOKMARK", object: Arc::new(object) }
    }
}

/// The objects that a watch selects.
pub(super) struct WatchFilter {
    pub(super) resource: &'static Resource,
    /// Empty for all namespaces.
    pub(super) namespace: String,
    pub(super) selector: Selector,
}

impl WatchFilter {
    /// The event to send for a change, if any.
    ///
    /// An object that starts to match is `ADDED`. One that stops matching is `DELETED`: the event
    /// holds the last matching object with the version of the change.
    pub(super) fn event_for(&self, change: &Change) -> Option<WatchEvent> {
        if !self.namespace.is_empty() && self.namespace != change.key.namespace {
            return None;
        }
        let matches = |object: &&Arc<Value>| self.selector.matches(object);
        let (before, after) = (change.before.as_ref().filter(matches), change.after.as_ref().filter(matches));
        match (before, after) {
            (None, None) => None,
            (None, Some(after)) => Some(WatchEvent::added(after.clone())),
            (Some(_), Some(after)) => Some(WatchEvent { type_: "MODIFIED", object: after.clone() }),
            (Some(_), None) if change.after.is_none() => {
                Some(WatchEvent { type_: "DELETED", object: change.last.clone() })
            }
            (Some(before), None) => {
                let mut last = (**before).clone();
                set(&mut last, &["metadata"], "resourceVersion", change.version.to_string());
                Some(WatchEvent { type_: "DELETED", object: Arc::new(last) })
            }
        }
    }
}

/// Merges the events of each object into its last one, whose type describes the total change.
pub(super) fn merge(events: Vec<WatchEvent>) -> Vec<WatchEvent> {
    let mut first = BTreeMap::new();
    let mut last = BTreeMap::new();
    for (index, event) in events.iter().enumerate() {
        let key = Key::of(&event.object);
        first.entry(key.clone()).or_insert(event.type_);
        last.insert(key, index);
    }
    let is_last = |index: usize, key: &Key| last.get(key) == Some(&index);
    let merged = events.into_iter().enumerate().filter_map(|(index, event)| {
        let key = Key::of(&event.object);
        let existed_before = first.get(&key).is_some_and(|type_| *type_ != "ADDED");
        let exists_after = event.type_ != "DELETED";
        let type_ = match (existed_before, exists_after) {
            (true, true) => "MODIFIED",
            (false, true) => "ADDED",
            (true, false) => "DELETED",
            (false, false) => return None,
        };
        is_last(index, &key).then_some(WatchEvent { type_, ..event })
    });
    merged.collect()
}

/// Encodes an event as one line of JSON.
pub(crate) fn encode(type_: &str, object: &Value) -> Bytes {
    // As in Kubernetes, the type comes first.
    format!("{{\"type\":\"{type_}\",\"object\":{object}}}\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::JOBS;

    fn object(label: &str) -> Arc<Value> {
        Arc::new(json!({"metadata": {"name": "n", "namespace": "ns", "labels": {"l": label}}}))
    }

    fn event(before: Option<&str>, after: Option<&str>) -> Option<(&'static str, String)> {
        let selector = Selector::parse(&JOBS, "l=yes", "").unwrap();
        let filter = WatchFilter { resource: &JOBS, namespace: "ns".into(), selector };
        let last = object("last");
        let change = Change {
            version: 7,
            key: Key::new("ns", "n"),
            before: before.map(object),
            after: after.map(object),
            last,
        };
        let event = filter.event_for(&change)?;
        Some((event.type_, event.object["metadata"]["labels"]["l"].as_str().unwrap().to_owned()))
    }

    #[test]
    fn label_change_adds_and_deletes() {
        let yes = "yes".to_owned();
        assert_eq!(event(None, Some("yes")), Some(("ADDED", yes.clone())));
        assert_eq!(event(Some("no"), Some("yes")), Some(("ADDED", yes.clone())));
        assert_eq!(event(Some("yes"), Some("yes")), Some(("MODIFIED", yes.clone())));
        assert_eq!(event(Some("yes"), Some("no")), Some(("DELETED", yes)));
        assert_eq!(event(Some("yes"), None), Some(("DELETED", "last".to_owned())));
        assert_eq!(
            (event(Some("no"), None), event(None, Some("no")), event(Some("no"), Some("no"))),
            (None, None, None)
        );
    }

    #[test]
    fn merged_events_lead_to_the_same_state() {
        let event = |type_, name: &str, n: i32| WatchEvent {
            type_,
            object: Arc::new(json!({"metadata": {"name": name}, "n": n})),
        };
        let merged = merge(vec![
            event("ADDED", "a", 1),
            event("MODIFIED", "a", 2),
            event("MODIFIED", "b", 1),
            event("DELETED", "b", 2),
            event("ADDED", "c", 1),
            event("DELETED", "c", 2),
            event("DELETED", "d", 1),
            event("ADDED", "d", 2),
        ]);
        assert_eq!(merged, [event("ADDED", "a", 2), event("DELETED", "b", 2), event("MODIFIED", "d", 2)]);
    }
}
