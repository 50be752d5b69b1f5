//! The metrics that are read at a scrape: readiness, leadership, Jobs and queues.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use dispatcher_core::contract::names::TemplateName;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, NoLabelSet},
    metrics::MetricType,
    registry::Unit,
};

use crate::{
    concurrency::ConcurrencyLimiter,
    telemetry::{
        health::Health,
        metrics::labels::{ByComponent, ByQueue, ByTemplate, TemplateLabels},
    },
};

const NO_LABELS: [(&str, &str); 0] = [];

/// Whether this replica is the leader, and whether it completed a resync since it became so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LeaderStatus {
    /// Whether this replica is the leader.
    pub leader: bool,
    /// Whether the leader completed its first resync.
    pub synced: bool,
}

/// The state of one template's queue.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct QueueSample {
    /// Requests that `JetStream` has not delivered yet.
    pub pending: u64,
    /// Delivered requests without an ack.
    pub ack_pending: u64,
    /// Those of them that `JetStream` delivered more than once.
    pub redelivered: u64,
    /// The age of the oldest stored request; 0 if there is none.
    pub oldest_age_seconds: f64,
}

/// The last sample of each template; `None` if sampling failed.
#[derive(Clone, Default)]
pub(super) struct Queues(Arc<Mutex<BTreeMap<TemplateName, Option<QueueSample>>>>);

impl Queues {
    pub(super) fn set(&self, template: &TemplateName, sample: Option<QueueSample>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(template.clone(), sample);
    }

    pub(super) fn get(&self, template: &TemplateName) -> Option<QueueSample> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(template).copied().flatten()
    }

    fn samples(&self, labels: &TemplateLabels) -> Vec<(ByTemplate, Option<QueueSample>)> {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let by_template = |(template, sample): (_, &Option<QueueSample>)| {
            (ByTemplate { template: labels.label(template) }, *sample)
        };
        samples.iter().map(by_template).collect()
    }
}

/// Reads the state of other modules at each scrape.
pub(super) struct StateCollector {
    pub(super) health: Health,
    pub(super) leader_status: Box<dyn Fn() -> LeaderStatus + Send + Sync>,
    pub(super) limiter: ConcurrencyLimiter,
    pub(super) templates: TemplateLabels,
    pub(super) queues: Queues,
}

impl fmt::Debug for StateCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateCollector").finish_non_exhaustive()
    }
}

impl Collector for StateCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let encoder = &mut encoder;
        self.encode_components(encoder)?;
        self.encode_jobs(encoder)?;
        self.encode_queues(encoder)?;
        let LeaderStatus { leader, synced } = (self.leader_status)();
        let name = ("leader", "Whether this replica is the leader");
        gauges(encoder, name, None, [(NO_LABELS, u64::from(leader))])?;
        let name = ("synced", "Whether this replica is the leader and has completed its first resync");
        gauges(encoder, name, None, [(NO_LABELS, u64::from(synced))])
    }
}

impl StateCollector {
    fn encode_components(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let components = self.health.components();
        let ready = components.iter().map(|component| {
            let labels = ByComponent { component: component.name.clone() };
            (labels, u64::from(component.reason.is_none()))
        });
        let name = ("component_ready", "Whether a component is ready; /readyz shows the reason if not");
        gauges(encoder, name, None, ready)?;
        let warnings = components.iter().map(|component| {
            let labels = ByComponent { component: component.name.clone() };
            (labels, u64::try_from(component.warnings.len()).unwrap_or(u64::MAX))
        });
        let name =
            ("component_warnings", "Settings that an operator should change; /readyz?verbose shows them");
        gauges(encoder, name, None, warnings)?;
        let failures = components.iter().cloned().map(|c| (ByComponent { component: c.name }, c.failures));
        counters(encoder, ("component_failures", "Failed tries of a component, which retries"), failures)
    }

    fn encode_jobs(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        // Absent until the watch has listed the Jobs.
        if let Some(counts) = self.limiter.counts() {
            let active = self.templates.labels().into_iter().map(|template| {
                let counts = counts.iter().filter(|(name, _)| self.templates.label(name) == template);
                let sum: usize = counts.map(|(_, count)| count).sum();
                (ByTemplate { template }, u64::try_from(sum).unwrap_or(u64::MAX))
            });
            gauges(encoder, ("active_jobs", "Jobs that are not finished"), None, active)?;
        }
        let limits = self.templates.limits().into_iter();
        let limits = limits.map(|(template, limit)| (ByTemplate { template }, u64::from(limit.get())));
        let name = ("active_jobs_limit", "The template's limits.maxActive, if it has one");
        gauges(encoder, name, None, limits)
    }

    fn encode_queues(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let samples = self.queues.samples(&self.templates);
        let up = samples.iter().map(|(labels, sample)| (labels.clone(), u64::from(sample.is_some())));
        let name = ("consumer_up", "Whether the last sample of the template's consumer and queue succeeded");
        gauges(encoder, name, None, up)?;
        // No sample, no value: an old one would pass for a current one.
        let samples: Vec<_> = samples.into_iter().filter_map(|(l, sample)| Some((l, sample?))).collect();
        let requests = samples.iter().flat_map(|(ByTemplate { template }, sample)| {
            let labels = |state| ByQueue { template: template.clone(), state };
            [(labels("pending"), sample.pending), (labels("ack_pending"), sample.ack_pending)]
        });
        let name = ("queue_requests", "Queued requests: pending (not delivered) and ack_pending (no ack)");
        gauges(encoder, name, None, requests)?;
        let redelivered = samples.iter().map(|(labels, sample)| (labels.clone(), sample.redelivered));
        let name = ("queue_redelivered_requests", "Queued requests that were delivered more than once");
        gauges(encoder, name, None, redelivered)?;
        let oldest = samples.iter().map(|(labels, sample)| (labels.clone(), sample.oldest_age_seconds));
        let name = ("queue_oldest_age", "Age of the oldest request in the queue; 0 if it is empty");
        gauges(encoder, name, Some(&Unit::Seconds), oldest)
    }
}

/// Encodes a gauge with one value per set of labels, or nothing if there are no values.
fn gauges<L: EncodeLabelSet, V: EncodeGaugeValue>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    unit: Option<&Unit>,
    values: impl IntoIterator<Item = (L, V)>,
) -> fmt::Result {
    let mut values = values.into_iter().peekable();
    if values.peek().is_none() {
        return Ok(());
    }
    let mut metric = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
    values.try_for_each(|(labels, value)| metric.encode_family(&labels)?.encode_gauge(&value))
}

/// Encodes a counter with one value per set of labels.
fn counters<L: EncodeLabelSet, V: EncodeCounterValue>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    values: impl IntoIterator<Item = (L, V)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    values.into_iter().try_for_each(|(labels, value)| {
        metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
    })
}
