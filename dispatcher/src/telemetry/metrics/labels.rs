//! The labels, and what keeps them few.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{Arc, OnceLock},
};

use prometheus_client::encoding::EncodeLabelSet;

use dispatcher_core::contract::names::TemplateName;

/// The template of whatever has no template: whoever may create Jobs may label one with any word.
const OTHER_TEMPLATE: &str = "other";
/// A watch's place in the history is gone (410).
pub(super) const EXPIRED: &str = "expired";
/// Any other error of a watch.
pub(super) const OTHER: &str = "other";

/// A template's word as a label.
pub(super) type Label = Arc<str>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByTemplate {
    pub(super) template: Label,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByTemplateResult {
    pub(super) template: Label,
    pub(super) result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByReason {
    pub(super) template: Label,
    pub(super) reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByEvent {
    pub(super) template: Label,
    pub(super) event: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByQueue {
    pub(super) template: Label,
    pub(super) state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByResult {
    pub(super) result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByResource {
    pub(super) resource: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByWatchError {
    pub(super) resource: &'static str,
    pub(super) reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByComponent {
    pub(super) component: String,
}

/// The templates that are served, each with its limit; known once the templates are.
#[derive(Debug, Clone, Default)]
pub(super) struct TemplateLabels(Arc<OnceLock<Served>>);

/// With the limit of each.
type Served = BTreeMap<TemplateName, (Label, Option<NonZeroU32>)>;

impl TemplateLabels {
    /// Counts once.
    pub(super) fn set(&self, templates: impl Iterator<Item = (TemplateName, Option<NonZeroU32>)>) {
        let _ = self.0.set(
            templates
                .map(|(template, limit)| (template.clone(), (template.as_ref().into(), limit)))
                .collect(),
        );
    }

    /// The label of a template.
    pub(super) fn label(&self, template: &TemplateName) -> Label {
        let known = self.0.get().and_then(|templates| templates.get(template));
        known.map_or_else(|| OTHER_TEMPLATE.into(), |(label, _)| label.clone())
    }

    /// Those of all that are served.
    pub(super) fn labels(&self) -> Vec<Label> {
        self.0.get().into_iter().flatten().map(|(_, (label, _))| label.clone()).collect()
    }

    /// Those with a limit of unfinished Jobs.
    pub(super) fn limits(&self) -> Vec<(Label, NonZeroU32)> {
        let templates = self.0.get().into_iter().flatten();
        templates.filter_map(|(_, (label, limit))| Some((label.clone(), (*limit)?))).collect()
    }
}
