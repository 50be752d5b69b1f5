//! What `/metrics` tells (OpenMetrics 1.0): counted where it happens; read at the scrape what a room knows anyway.
//!
//! ```text
//! intake, status, report, nats ── counts ──▶ Metrics ──┐
//! health, leadership, active, queue ── read at the scrape ─┴─▶ text
//! ```
//!
//! Labels are bounded: templates that have a template, and the words of the contract and of these rooms. Never a name or an
//! identity: a label of a Job's own could be anything.

mod collector;
mod instruments;
mod labels;
mod lag;
pub mod queue;

use std::{collections::HashMap, fmt, sync::Arc, time::Instant};

use k8s_openapi::jiff::Timestamp;
use prometheus_client::{encoding::text, registry::Registry};
use time::OffsetDateTime;

use crate::telemetry::metrics::{
    collector::Read,
    instruments::Counted,
    labels::{
        ByEvent, ByReason, ByResource, ByResult, ByTemplate, ByTemplateResult, ByWatchError, TemplateLabels,
    },
    queue::Queues,
};
use crate::{concurrency::ConcurrencyLimiter, leadership::Leadership, telemetry::health::Health};
use dispatcher_core::{
    contract::{event::StatusEvent, names::TemplateName, rejection::Reason},
    request::error::CreateFailure,
    template::Template,
};

/// The `Content-Type` of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Where the rooms count; cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    counted: Counted,
    templates: TemplateLabels,
    queues: Queues,
}

/// How a publish to `JOB_STATUS` ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// The event is stored.
    Stored,
    /// The fence refused it: the Job's last message is another one.
    Fenced,
    /// No answer, or one that does not say what happened.
    Failed,
}

impl Published {
    const ALL: [Self; 3] = [Self::Stored, Self::Fenced, Self::Failed];

    fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Fenced => "fenced",
            Self::Failed => "failed",
        }
    }
}

/// The label of a create that succeeded, beside the words of [`CreateFailure`].
const CREATED: &str = "created";

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watched {
    /// Jobs.
    Jobs,
    /// Their pods.
    Pods,
    /// Kubernetes' Events.
    Events,
}

impl Watched {
    const ALL: [Self; 3] = [Self::Jobs, Self::Pods, Self::Events];

    fn as_str(self) -> &'static str {
        match self {
            Self::Jobs => "jobs",
            Self::Pods => "pods",
            Self::Events => "events",
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Metrics that read these at the scrape. No template is known yet.
    pub fn new(health: Health, leadership: Leadership, active: ConcurrencyLimiter) -> Self {
        let mut registry = Registry::default();
        let (templates, queues) = (TemplateLabels::default(), Queues::default());
        let counted = Counted::register(&mut registry);
        let (of_templates, of_queues) = (templates.clone(), queues.clone());
        registry.sub_registry_with_prefix(instruments::PREFIX).register_collector(Box::new(Read {
            health,
            leadership,
            active,
            templates: of_templates,
            queues: of_queues,
        }));
        Self(Arc::new(Inner { registry, counted, templates, queues }))
    }

    /// The templates that are served, once: each of their series is there from now on, with 0, so that the first event of
    /// its sort is an increase.
    pub fn serves(&self, served: &HashMap<TemplateName, Arc<Template>>) {
        let Inner { counted, templates, .. } = &*self.0;
        templates.set(served.values().map(|template| (template.name.clone(), template.max_active)));
        for template in templates.labels() {
            counted.prepare_template(&template);
        }
    }

    /// A delivered request was answered; it was stored in `JOBS` at that time.
    pub fn handled(
        &self,
        template: &TemplateName,
        disposition: &dispatcher_core::request::Disposition,
        stored: OffsetDateTime,
    ) {
        let Inner { counted, templates, .. } = &*self.0;
        let template = templates.label(template);
        if *disposition == dispatcher_core::request::Disposition::Created {
            let age = (OffsetDateTime::now_utc() - stored).as_seconds_f64();
            counted.waits.get_or_create(&ByTemplate { template: template.clone() }).observe(age.max(0.0));
        }
        counted.requests.get_or_create(&ByTemplateResult { template, result: disposition.label() }).inc();
    }

    /// A dead letter is stored.
    pub fn rejected(&self, template: &TemplateName, reason: Reason) {
        let Inner { counted, templates, .. } = &*self.0;
        let labels = ByReason { template: templates.label(template), reason: reason.as_str() };
        counted.rejections.get_or_create(&labels).inc();
    }

    /// A create call has ended, so or with success.
    pub fn create(&self, failure: Option<CreateFailure>, asked: Instant) {
        let result = failure.map_or(CREATED, CreateFailure::label);
        self.0.counted.creates.get_or_create(&ByResult { result }).observe(asked.elapsed().as_secs_f64());
    }

    /// A fenced publish has ended.
    pub fn published(&self, result: Published, asked: Instant) {
        let labels = ByResult { result: result.as_str() };
        self.0.counted.publishes.get_or_create(&labels).observe(asked.elapsed().as_secs_f64());
    }

    /// An event is stored.
    pub fn event(&self, event: &StatusEvent) {
        let Inner { counted, templates, .. } = &*self.0;
        let template = templates.label(&event.template);
        let labels = ByEvent { template: template.clone(), event: event.event.as_str() };
        if let Some(lag) = lag::of(event, Timestamp::now()) {
            counted.lags.get_or_create(&labels).observe(lag.as_secs_f64());
        }
        counted.events.get_or_create(&labels).inc();
        if let Some(outcome) = &event.outcome {
            let labels = ByTemplateResult { template, result: outcome.result.as_str() };
            counted.outcomes.get_or_create(&labels).inc();
        }
    }

    /// A list was begun.
    pub fn lists(&self, watched: Watched) {
        self.0.counted.watch_lists.get_or_create(&ByResource { resource: watched.as_str() }).inc();
    }

    /// A watch has ended with an error; `expired`: 410, its place in the history is gone.
    pub fn watch_ended(&self, watched: Watched, expired: bool) {
        let reason = if expired { labels::EXPIRED } else { labels::OTHER };
        let labels = ByWatchError { resource: watched.as_str(), reason };
        self.0.counted.watch_errors.get_or_create(&labels).inc();
    }

    /// What was said is synced with the Jobs.
    pub fn synced(&self) {
        self.0.counted.comparisons.inc();
    }

    /// Connected to NATS.
    pub fn nats_connected(&self) {
        self.0.counted.nats_connects.inc();
    }

    /// The connection to NATS is lost.
    pub fn nats_disconnected(&self) {
        self.0.counted.nats_disconnects.inc();
    }

    /// Where the looks at the queue are kept.
    fn queues(&self) -> &Queues {
        &self.0.queues
    }

    /// All of it, as OpenMetrics text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a `String` does not fail.
        let _ = text::encode(&mut text, &self.0.registry);
        text
    }
}

#[cfg(test)]
mod tests;
