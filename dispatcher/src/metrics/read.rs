//! What is read at the scrape, of rooms that know it anyway.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, NoLabelSet},
    metrics::MetricType,
    registry::Unit,
};

use super::{
    labels::{Kinds, OfKind, OfQueue, OfRoom},
    queue::Queues,
};
use crate::{active::Active, health::Health, status::leadership::Leadership};

/// No labels.
const NONE: [(&str, &str); 0] = [];

/// See the module.
pub(super) struct Read {
    pub(super) health: Health,
    pub(super) leadership: Leadership,
    pub(super) active: Active,
    pub(super) kinds: Kinds,
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
        self.rooms(to)?;
        self.jobs(to)?;
        self.queue(to)?;
        let (reports, compared) = (self.leadership.is_ours(), self.leadership.has_compared());
        gauges(to, ("leader", "Whether this replica reports"), None, [(NONE, u64::from(reports))])?;
        let name = ("compared", "Whether it reports, and has compared all since it began to");
        gauges(to, name, None, [(NONE, u64::from(compared))])
    }
}

impl Read {
    fn rooms(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let rooms = self.health.rooms();
        let ready = rooms.iter().map(|room| (OfRoom { room: room.name.clone() }, u64::from(room.ready)));
        gauges(to, ("room_ready", "Whether a room works; /ready tells why not"), None, ready)?;
        let failures = rooms.into_iter().map(|room| (OfRoom { room: room.name }, room.failures));
        counters(to, ("room_failures", "Tries of a room that failed; it tries again"), failures)
    }

    fn jobs(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counts = self.active.counts();
        let count = |kind| {
            counts.iter().flatten().filter(|(of, _)| self.kinds.label(of) == kind).map(|(_, n)| n).sum()
        };
        // Before the Jobs are listed nobody knows.
        let kinds = if counts.is_some() { self.kinds.labels() } else { vec![] };
        let active = kinds.into_iter().map(|kind| {
            let sum: usize = count(kind.clone());
            (OfKind { kind }, u64::try_from(sum).unwrap_or(u64::MAX))
        });
        gauges(to, ("active_jobs", "Jobs that are not finished"), None, active)?;
        let limits =
            self.kinds.limits().into_iter().map(|(kind, limit)| (OfKind { kind }, u64::from(limit.get())));
        gauges(to, ("active_jobs_limit", "The template's limits.maxActive, where it has one"), None, limits)
    }

    fn queue(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let looks: Vec<_> =
            self.queues.all().into_iter().map(|(kind, look)| (self.kinds.label(&kind), look)).collect();
        let up = looks.iter().map(|(kind, look)| (OfKind { kind: kind.clone() }, u64::from(look.is_some())));
        gauges(
            to,
            ("consumer_up", "Whether the kind's consumer and its queue could be looked at"),
            None,
            up,
        )?;
        let looks: Vec<_> = looks.into_iter().filter_map(|(kind, look)| Some((kind, look?))).collect();
        let requests = looks.iter().flat_map(|(kind, look)| {
            let of = |state| OfQueue { kind: kind.clone(), state };
            [(of("pending"), look.pending), (of("ack_pending"), look.ack_pending)]
        });
        let name =
            ("queue_requests", "Requests in the queue: not delivered yet, or delivered and not answered");
        gauges(to, name, None, requests)?;
        let of_kind = |(kind, _): &(_, _)| OfKind { kind: Clone::clone(kind) };
        let redelivered = looks.iter().map(|look| (of_kind(look), look.1.redelivered));
        let name = ("queue_redelivered_requests", "Those that were delivered more than once");
        gauges(to, name, None, redelivered)?;
        let oldest = looks.iter().map(|look| (of_kind(look), look.1.oldest));
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
