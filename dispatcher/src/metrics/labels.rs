//! The labels, and what keeps them few.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{Arc, OnceLock},
};

use prometheus_client::encoding::EncodeLabelSet;

use crate::contract::names::Kind;

/// The kind of whatever has no template: whoever may create Jobs may label one with any word.
const OTHER_KIND: &str = "other";
/// A watch's place in the history is gone (410).
pub(super) const EXPIRED: &str = "expired";
/// Any other error of a watch.
pub(super) const OTHER: &str = "other";

/// A kind's word as a label.
pub(super) type Label = Arc<str>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfKind {
    pub(super) kind: Label,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfKindResult {
    pub(super) kind: Label,
    pub(super) result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfReason {
    pub(super) kind: Label,
    pub(super) reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfEvent {
    pub(super) kind: Label,
    pub(super) event: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfQueue {
    pub(super) kind: Label,
    pub(super) state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfResult {
    pub(super) result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfResource {
    pub(super) resource: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfWatchError {
    pub(super) resource: &'static str,
    pub(super) reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfRoom {
    pub(super) room: String,
}

/// The kinds that are served, each with its limit; known once the templates are.
#[derive(Debug, Clone, Default)]
pub(super) struct Kinds(Arc<OnceLock<Served>>);

/// With the limit of each.
type Served = BTreeMap<Kind, (Label, Option<NonZeroU32>)>;

impl Kinds {
    /// Counts once.
    pub(super) fn set(&self, kinds: impl Iterator<Item = (Kind, Option<NonZeroU32>)>) {
        let _ =
            self.0.set(kinds.map(|(kind, limit)| (kind.clone(), (kind.as_ref().into(), limit))).collect());
    }

    /// The label of a kind.
    pub(super) fn label(&self, kind: &Kind) -> Label {
        let known = self.0.get().and_then(|kinds| kinds.get(kind));
        known.map_or_else(|| OTHER_KIND.into(), |(label, _)| label.clone())
    }

    /// Those of all that are served.
    pub(super) fn labels(&self) -> Vec<Label> {
        self.0.get().into_iter().flatten().map(|(_, (label, _))| label.clone()).collect()
    }

    /// Those with a limit of unfinished Jobs.
    pub(super) fn limits(&self) -> Vec<(Label, NonZeroU32)> {
        let kinds = self.0.get().into_iter().flatten();
        kinds.filter_map(|(_, (label, limit))| Some((label.clone(), (*limit)?))).collect()
    }
}
