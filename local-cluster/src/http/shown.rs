//! What of a change a watch shows. Pure.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use super::table::Shape;
use crate::{
    object::set,
    resource::Resource,
    selector::Selector,
    store::{Event, Key},
};

/// An event as it is sent.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shown {
    pub(super) type_: &'static str,
    pub(super) object: Arc<Value>,
}

impl Shown {
    pub(super) fn added(object: Arc<Value>) -> Self {
        Self { type_: "ADDED", object }
    }

    /// All up to `version` has been sent.
    pub(super) fn bookmark(resource: &Resource, version: u64) -> Self {
        let object = json!({"kind": resource.kind, "apiVersion": resource.api_version(),
            "metadata": {"resourceVersion": version.to_string()}});
        Self { type_: "BOOKMARK", object: Arc::new(object) }
    }

    /// The bookmark between what there was and what comes.
    pub(super) fn initial_events_end(resource: &Resource, version: u64) -> Self {
        let mut object = (*Self::bookmark(resource, version).object).clone();
        set(&mut object, &["metadata", "annotations"], "k8s.io/initial-events-end", "true");
        Self { type_: "BOOKMARK", object: Arc::new(object) }
    }
}

/// What a watch wants to see.
pub(super) struct Wanted {
    pub(super) resource: &'static Resource,
    /// Empty: all.
    pub(super) namespace: String,
    pub(super) selector: Selector,
    pub(super) shape: Shape,
}

impl Wanted {
    /// The event to send for a change, if any. What begins to match is added, what ceases to is deleted: as it was last
    /// when it matched, at the version at which it ceased.
    pub(super) fn show(&self, event: &Event) -> Option<Shown> {
        if !self.namespace.is_empty() && self.namespace != event.key.namespace {
            return None;
        }
        let meant = |object: &&Arc<Value>| self.selector.matches(object);
        let (before, after) = (event.before.as_ref().filter(meant), event.after.as_ref().filter(meant));
        match (before, after) {
            (None, None) => None,
            (None, Some(after)) => Some(Shown::added(after.clone())),
            (Some(_), Some(after)) => Some(Shown { type_: "MODIFIED", object: after.clone() }),
            (Some(_), None) if event.after.is_none() => {
                Some(Shown { type_: "DELETED", object: event.last.clone() })
            }
            (Some(before), None) => {
                let mut last = (**before).clone();
                set(&mut last, &["metadata"], "resourceVersion", event.version.to_string());
                Some(Shown { type_: "DELETED", object: Arc::new(last) })
            }
        }
    }
}

/// Keeps the last event of each object, in their order, with the type that leads from before the first to after the last.
pub(super) fn merge(events: Vec<Shown>) -> Vec<Shown> {
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
        let was_there = first.get(&key).is_some_and(|type_| *type_ != "ADDED");
        let is_there = event.type_ != "DELETED";
        let type_ = match (was_there, is_there) {
            (true, true) => "MODIFIED",
            (false, true) => "ADDED",
            (true, false) => "DELETED",
            (false, false) => return None,
        };
        is_last(index, &key).then_some(Shown { type_, ..event })
    });
    merged.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::JOBS;

    fn object(label: &str) -> Arc<Value> {
        Arc::new(json!({"metadata": {"name": "n", "namespace": "ns", "labels": {"l": label}}}))
    }

    fn shown(before: Option<&str>, after: Option<&str>) -> Option<(&'static str, String)> {
        let selector = Selector::parse(&JOBS, "l=yes", "").unwrap();
        let wanted = Wanted { resource: &JOBS, namespace: "ns".into(), selector, shape: Shape::default() };
        let last = object("last");
        let event = Event {
            version: 7,
            key: Key::new("ns", "n"),
            before: before.map(object),
            after: after.map(object),
            last,
        };
        let shown = wanted.show(&event)?;
        Some((shown.type_, shown.object["metadata"]["labels"]["l"].as_str().unwrap().to_owned()))
    }

    #[test]
    fn a_change_of_labels_adds_and_deletes() {
        let yes = "yes".to_owned();
        assert_eq!(shown(None, Some("yes")), Some(("ADDED", yes.clone())));
        assert_eq!(shown(Some("no"), Some("yes")), Some(("ADDED", yes.clone())));
        assert_eq!(shown(Some("yes"), Some("yes")), Some(("MODIFIED", yes.clone())));
        assert_eq!(shown(Some("yes"), Some("no")), Some(("DELETED", yes)));
        assert_eq!(shown(Some("yes"), None), Some(("DELETED", "last".to_owned())));
        assert_eq!(
            (shown(Some("no"), None), shown(None, Some("no")), shown(Some("no"), Some("no"))),
            (None, None, None)
        );
    }

    #[test]
    fn merged_events_lead_to_the_same_end() {
        let event = |type_, name: &str, n: i32| Shown {
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
