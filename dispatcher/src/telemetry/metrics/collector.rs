//! What is read at the scrape, of rooms that know it anyway.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, NoLabelSet},
    metrics::MetricType,
    registry::Unit,
};

use crate::telemetry::metrics::{
    labels::{ByComponent, ByQueue, ByTemplate, TemplateLabels},
    queue::Queues,
};
use crate::{concurrency::ConcurrencyLimiter, leadership::Leadership, telemetry::health::Health};

/// No labels.
const NONE: [(&str, &str); 0] = [];

/// See the module.
pub(super) struct Read {
    pub(super) health: Health,
    pub(super) leadership: Leadership,
    pub(super) active: ConcurrencyLimiter,
    pub(super) templates: TemplateLabels,
    pub(super) queues: Queues,
}

impl fmt::Debug for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Read").finish_non_exhaustive()
    }
}

impl Collector for Read {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let to = &mut encoder;
        self.components(to)?;
        self.jobs(to)?;
        self.queue(to)?;
        let (reports, synced) = (self.leadership.is_ours(), self.leadership.has_synced());
        gauges(to, ("leader", "Whether this replica is the leader"), None, [(NONE, u64::from(reports))])?;
        let name = ("synced", "Whether this replica is the leader and has completed its first resync");
        gauges(to, name, None, [(NONE, u64::from(synced))])
    }
}

impl Read {
    fn components(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let components = self.health.components();
        let ready =
            components.iter().map(|c| (ByComponent { component: c.name.clone() }, u64::from(c.ready)));
        gauges(to, ("component_ready", "Whether a component is ready; /readyz has the reason"), None, ready)?;
        let failures = components.into_iter().map(|c| (ByComponent { component: c.name }, c.failures));
        counters(to, ("component_failures", "Failed tries of a component, which retries"), failures)
    }

    fn jobs(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counts = self.active.counts();
        let count = |template| {
            counts
                .iter()
                .flatten()
                .filter(|(of, _)| self.templates.label(of) == template)
                .map(|(_, n)| n)
                .sum()
        };
        // Before the Jobs are listed nobody knows.
        let templates = if counts.is_some() { self.templates.labels() } else { vec![] };
        let active = templates.into_iter().map(|template| {
            let sum: usize = count(template.clone());
            (ByTemplate { template }, u64::try_from(sum).unwrap_or(u64::MAX))
        });
        gauges(to, ("active_jobs", "Jobs that are not finished"), None, active)?;
        let limits = self
            .templates
            .limits()
            .into_iter()
            .map(|(template, limit)| (ByTemplate { template }, u64::from(limit.get())));
        gauges(to, ("active_jobs_limit", "The template's limits.maxActive, where it has one"), None, limits)
    }

    fn queue(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let looks: Vec<_> = self
            .queues
            .all()
            .into_iter()
            .map(|(template, look)| (self.templates.label(&template), look))
            .collect();
        let up = looks
            .iter()
            .map(|(template, look)| (ByTemplate { template: template.clone() }, u64::from(look.is_some())));
        gauges(
            to,
            ("consumer_up", "Whether the template's consumer and its queue could be looked at"),
            None,
            up,
        )?;
        let looks: Vec<_> =
            looks.into_iter().filter_map(|(template, look)| Some((template, look?))).collect();
        let requests = looks.iter().flat_map(|(template, look)| {
            let of = |state| ByQueue { template: template.clone(), state };
            [(of("pending"), look.pending), (of("ack_pending"), look.ack_pending)]
        });
        let name =
            ("queue_requests", "Requests in the queue: not delivered yet, or delivered and not answered");
        gauges(to, name, None, requests)?;
        let of_template = |(template, _): &(_, _)| ByTemplate { template: Clone::clone(template) };
        let redelivered = looks.iter().map(|look| (of_template(look), look.1.redelivered));
        let name = ("queue_redelivered_requests", "Those that were delivered more than once");
        gauges(to, name, None, redelivered)?;
        let oldest = looks.iter().map(|look| (of_template(look), look.1.oldest));
        let name = ("queue_oldest_age", "How long the oldest request has been stored; 0 where there is none");
        gauges(to, name, Some(&Unit::Seconds), oldest)
    }
}

/// A gauge with a value for each set of labels.
fn gauges<L: EncodeLabelSet, V: EncodeGaugeValue>(
    to: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    unit: Option<&Unit>,
    values: impl IntoIterator<Item = (L, V)>,
) -> fmt::Result {
    let mut values = values.into_iter().peekable();
    if values.peek().is_none() {
        return Ok(());
    }
    let mut metric = to.encode_descriptor(name, help, unit, MetricType::Gauge)?;
    values.try_for_each(|(labels, value)| metric.encode_family(&labels)?.encode_gauge(&value))
}

/// A counter with a value for each set of labels.
fn counters<L: EncodeLabelSet, V: EncodeCounterValue>(
    to: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    values: impl IntoIterator<Item = (L, V)>,
) -> fmt::Result {
    let mut metric = to.encode_descriptor(name, help, None, MetricType::Counter)?;
    values.into_iter().try_for_each(|(labels, value)| {
        metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
    })
}
