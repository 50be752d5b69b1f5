//! The content of `/metrics` (`OpenMetrics` 1.0).
//!
//! ```text
//! intake, status, watch, nats ── update ──▶ Instruments ────┐
//! health, leadership, concurrency, queues ──▶ StateCollector ─┴─▶ text
//! ```
//! Labels are bounded: served templates and fixed sets of words, never a Job name or request id.

mod collector;
mod instruments;
mod labels;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use dispatcher_core::{
    contract::{event::StatusEvent, names::TemplateName, rejection::Reason},
    request::{Disposition, error::CreateFailure},
    template::Template,
};
use k8s_openapi::jiff::Timestamp;
use prometheus_client::{encoding::text, registry::Registry};
use time::OffsetDateTime;

pub(crate) use crate::telemetry::metrics::{
    collector::{LeaderStatus, QueueSample},
    labels::{Operation, Published, Watched},
};
use crate::{
    concurrency::ConcurrencyLimiter,
    telemetry::{
        health::Health,
        metrics::{
            collector::{Queues, StateCollector},
            instruments::Instruments,
            labels::{
                ByConnection, ByEvent, ByOperation, ByReason, ByResource, ByResult, ByTemplate,
                ByTemplateResult, ByWatchError, CREATED, TemplateLabels,
            },
        },
    },
};

/// The `Content-Type` of [`Metrics::text`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The metrics of this process; cheap to clone.
#[derive(Clone)]
pub(crate) struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    instruments: Instruments,
    templates: TemplateLabels,
    queues: Queues,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Metrics that read the given state at each scrape. No template is known yet.
    pub(crate) fn new(
        health: Health,
        leader_status: impl Fn() -> LeaderStatus + Send + Sync + 'static,
        limiter: ConcurrencyLimiter,
    ) -> Self {
        let mut registry = Registry::default();
        let (templates, queues) = (TemplateLabels::default(), Queues::default());
        let instruments = Instruments::register(&mut registry);
        let collector = StateCollector {
            health,
            leader_status: Box::new(leader_status),
            limiter,
            templates: templates.clone(),
            queues: queues.clone(),
        };
        let prefixed = registry.sub_registry_with_prefix(instruments::PREFIX);
        prefixed.register_collector(Box::new(collector));
        Self(Arc::new(Inner { registry, instruments, templates, queues }))
    }

    /// Sets the served templates, and creates all series of new ones with the value 0, so that
    /// Prometheus sees the first event of each as an increase.
    pub(crate) fn set_templates<'a>(&self, served: impl IntoIterator<Item = &'a Template>) {
        let Inner { instruments, templates, .. } = &*self.0;
        let served = served.into_iter().map(|template| (template.name.clone(), template.max_active));
        for template in templates.set(served) {
            instruments.create_template_series(&template);
        }
    }

    /// Sets the last sample of a template's queue; `None` if sampling failed.
    pub(crate) fn set_queue(&self, template: &TemplateName, sample: Option<QueueSample>) {
        self.0.queues.set(template, sample);
    }

    /// The last sample of a template's queue; `None` if there is none, or sampling failed.
    pub(crate) fn queue(&self, template: &TemplateName) -> Option<QueueSample> {
        self.0.queues.get(template)
    }

    /// Counts a log of a failed pod that could not be read.
    pub(crate) fn log_read_failed(&self) {
        self.0.instruments.log_read_failures.inc();
    }

    /// Counts a handled delivery of a request that `JetStream` stored at `stored`.
    pub(crate) fn handled(&self, template: &TemplateName, disposition: &Disposition, stored: OffsetDateTime) {
        let Inner { instruments, templates, .. } = &*self.0;
        let template = templates.label(template);
        // Only the delivery that creates the Job: the later ones would count the request twice.
        if *disposition == Disposition::Created {
            let wait = (OffsetDateTime::now_utc() - stored).as_seconds_f64().max(0.0);
            let labels = ByTemplate { template: template.clone() };
            instruments.request_waits.get_or_create(&labels).observe(wait);
        }
        let labels = ByTemplateResult { template, result: disposition.label() };
        instruments.requests.get_or_create(&labels).inc();
    }

    /// Counts a stored dead letter.
    pub(crate) fn rejected(&self, template: &TemplateName, reason: Reason) {
        let Inner { instruments, templates, .. } = &*self.0;
        let labels = ByReason { template: templates.label(template), reason: reason.as_str() };
        instruments.rejections.get_or_create(&labels).inc();
    }

    /// Records a create call, which failed in this way or succeeded.
    pub(crate) fn create(&self, failure: Option<CreateFailure>, started: Instant) {
        let labels = ByResult { result: failure.map_or(CREATED, CreateFailure::label) };
        self.0.instruments.creates.get_or_create(&labels).observe(started.elapsed().as_secs_f64());
    }

    /// Records a fenced publish.
    pub(crate) fn published(&self, result: Published, started: Instant) {
        let labels = ByResult { result: result.as_str() };
        self.0.instruments.publishes.get_or_create(&labels).observe(started.elapsed().as_secs_f64());
    }

    /// Counts a refused operation on a Job.
    pub(crate) fn refused(&self, template: &TemplateName, operation: Operation) {
        let Inner { instruments, templates, .. } = &*self.0;
        let labels = ByOperation { template: templates.label(template), operation: operation.as_str() };
        instruments.refusals.get_or_create(&labels).inc();
    }

    /// Counts a stored status event.
    pub(crate) fn event(&self, event: &StatusEvent) {
        let Inner { instruments, templates, .. } = &*self.0;
        let template = templates.label(&event.template);
        let labels = ByEvent { template: template.clone(), event: event.event.as_str() };
        if let Some(lag) = event_lag(event, Timestamp::now()) {
            instruments.event_lags.get_or_create(&labels).observe(lag.as_secs_f64());
        }
        instruments.events.get_or_create(&labels).inc();
        if let Some(outcome) = &event.outcome {
            let labels = ByTemplateResult { template, result: outcome.result.as_str() };
            instruments.outcomes.get_or_create(&labels).inc();
        }
    }

    /// Counts the start of a list.
    pub(crate) fn lists(&self, watched: Watched) {
        let labels = ByResource { resource: watched.as_str() };
        self.0.instruments.watch_lists.get_or_create(&labels).inc();
    }

    /// Counts a watch that ended with an error; `expired` is a 410.
    pub(crate) fn watch_ended(&self, watched: Watched, expired: bool) {
        let reason = if expired { labels::EXPIRED } else { labels::OTHER };
        let labels = ByWatchError { resource: watched.as_str(), reason };
        self.0.instruments.watch_errors.get_or_create(&labels).inc();
    }

    /// Counts a completed resync.
    pub(crate) fn synced(&self) {
        self.0.instruments.resyncs.inc();
    }

    /// Counts an established connection to NATS.
    pub(crate) fn nats_connected(&self, connection: &str) {
        let labels = ByConnection { connection: connection.to_owned() };
        self.0.instruments.nats_connects.get_or_create(&labels).inc();
    }

    /// Counts a lost connection to NATS.
    pub(crate) fn nats_disconnected(&self, connection: &str) {
        let labels = ByConnection { connection: connection.to_owned() };
        self.0.instruments.nats_disconnects.get_or_create(&labels).inc();
    }

    /// Creates the series of a connection to NATS, so that their first increase is visible.
    pub(crate) fn nats_opened(&self, connection: &str) {
        let labels = ByConnection { connection: connection.to_owned() };
        let instruments = &self.0.instruments;
        for counter in
            [&instruments.nats_connects, &instruments.nats_disconnects, &instruments.nats_clients_replaced]
        {
            drop(counter.get_or_create(&labels));
        }
    }

    /// Counts a client of NATS that ended on a message, as a lost connection too.
    pub(crate) fn nats_client_replaced(&self, connection: &str) {
        self.nats_disconnected(connection);
        let labels = ByConnection { connection: connection.to_owned() };
        self.0.instruments.nats_clients_replaced.get_or_create(&labels).inc();
    }

    /// All metrics as `OpenMetrics` text.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a `String` cannot fail.
        let _ = text::encode(&mut text, &self.0.registry);
        text
    }
}

/// How long after the end in Kubernetes the event of an outcome or attempt is stored.
///
/// Kubernetes truncates its times to whole seconds, so a lag is up to a second too long. It records
/// no time for a deleted Job and most other changes. Clock skew never makes a lag negative.
fn event_lag(event: &StatusEvent, now: Timestamp) -> Option<Duration> {
    let outcome = event.outcome.as_ref().and_then(|outcome| outcome.finish_time.as_deref());
    let attempt = event.attempt.as_ref().and_then(|attempt| attempt.finished_at.as_deref());
    let ended: Timestamp = outcome.or(attempt)?.parse().ok()?;
    Some(Duration::try_from(now.duration_since(ended)).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests;
