//! The labels of the metrics and their bounded sets of values.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use dispatcher_core::contract::names::TemplateName;
use prometheus_client::encoding::EncodeLabelSet;

/// The label of every template that this dispatcher does not serve. Anyone who may create Jobs can
/// put any template label onto one.
const OTHER_TEMPLATE: &str = "other";
/// The watch's resource version expired (410).
pub(super) const EXPIRED: &str = "expired";
/// Any other error of a watch.
pub(super) const OTHER: &str = "other";
/// The result of a create that succeeded. `CreateFailure` names the others.
pub(super) const CREATED: &str = "created";

/// A template name as a label value.
pub(super) type Label = Arc<str>;

/// The result of a publish to `JOB_STATUS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Published {
    /// The event is stored.
    Stored,
    /// The fence refused the event: the subject's last message is not the expected one.
    Fenced,
    /// The stream did not answer, or the answer leaves open whether the event is stored.
    Failed,
}

impl Published {
    pub(super) const ALL: [Self; 3] = [Self::Stored, Self::Fenced, Self::Failed];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Fenced => "fenced",
            Self::Failed => "failed",
        }
    }
}

/// A watched resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watched {
    /// Jobs.
    Jobs,
    /// The Jobs' pods.
    Pods,
    /// Kubernetes Events.
    Events,
    /// Jobs that are created with an outcome label.
    LabelledJobs,
    /// `JobTemplate` objects.
    JobTemplates,
    /// Workloads of Kueue.
    Workloads,
}

impl Watched {
    pub(super) const ALL: [Self; 6] =
        [Self::Jobs, Self::Pods, Self::Events, Self::LabelledJobs, Self::JobTemplates, Self::Workloads];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Jobs => "jobs",
            Self::Pods => "pods",
            Self::Events => "events",
            Self::LabelledJobs => "labelled_jobs",
            Self::JobTemplates => "job_templates",
            Self::Workloads => "workloads",
        }
    }
}

/// An operation on a single Job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Patch the TTL and the outcome label onto a Job.
    Retire,
    /// Restore the labels and annotations of a Job.
    Restore,
    /// Remove the outcome label of another Job.
    Unlabel,
    /// Delete a cancelled Job.
    Delete,
    /// Publish a status event.
    Publish,
}

impl Operation {
    pub(super) const ALL: [Self; 5] =
        [Self::Retire, Self::Restore, Self::Unlabel, Self::Delete, Self::Publish];

    /// The label's value.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Retire => "retire",
            Self::Restore => "restore",
            Self::Unlabel => "unlabel",
            Self::Delete => "delete",
            Self::Publish => "publish",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByOperation {
    pub(super) template: Label,
    pub(super) operation: &'static str,
}

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

/// The label of a connection to NATS: its name, which the server also lists.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByConnection {
    pub(super) connection: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByComponent {
    pub(super) component: String,
}

/// The label and the concurrency limit of each served template.
type Templates = BTreeMap<TemplateName, (Label, Option<NonZeroU32>)>;

/// The served templates; empty until they are loaded.
#[derive(Debug, Clone, Default)]
pub(super) struct TemplateLabels(Arc<RwLock<Templates>>);

impl TemplateLabels {
    /// Replaces the templates. Returns the labels of the new ones.
    pub(super) fn set(
        &self,
        templates: impl Iterator<Item = (TemplateName, Option<NonZeroU32>)>,
    ) -> Vec<Label> {
        let next: Templates = templates
            .map(|(name, limit)| {
                let label = Label::from(name.as_ref());
                (name, (label, limit))
            })
            .collect();
        let mut served = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let added = next.iter().filter(|(name, _)| !served.contains_key(*name));
        let added = added.map(|(_, (label, _))| label.clone()).collect();
        *served = next;
        added
    }

    fn read(&self) -> RwLockReadGuard<'_, Templates> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The label of a template.
    pub(super) fn label(&self, template: &TemplateName) -> Label {
        self.read().get(template).map_or_else(|| OTHER_TEMPLATE.into(), |(label, _)| label.clone())
    }

    /// The labels of all served templates.
    pub(super) fn labels(&self) -> Vec<Label> {
        self.read().values().map(|(label, _)| label.clone()).collect()
    }

    /// The concurrency limits of the templates that have one.
    pub(super) fn limits(&self) -> Vec<(Label, NonZeroU32)> {
        self.read().values().filter_map(|(label, limit)| Some((label.clone(), (*limit)?))).collect()
    }
}
