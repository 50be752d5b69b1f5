//! What is counted where it happens: names, types, helps and buckets.

use std::hash::Hash;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        gauge::Gauge,
        histogram::Histogram,
        info::Info,
    },
    registry::{Registry, Unit},
};
use time::OffsetDateTime;

use crate::telemetry::metrics::{
    CREATED, Published, Watched,
    labels::{
        ByEvent, ByReason, ByResource, ByResult, ByTemplate, ByTemplateResult, ByWatchError, EXPIRED, Label,
        OTHER,
    },
};
use dispatcher_core::request::Disposition;
use dispatcher_core::{
    contract::{
        event::{EventType, OutcomeResult},
        rejection::Reason,
    },
    request::error::CreateFailure,
};

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// See the module.
pub(super) struct Counted {
    pub(super) requests: Family<ByTemplateResult, Counter>,
    pub(super) waits: Histograms<ByTemplate>,
    pub(super) rejections: Family<ByReason, Counter>,
    pub(super) creates: Histograms<ByResult>,
    pub(super) publishes: Histograms<ByResult>,
    pub(super) events: Family<ByEvent, Counter>,
    pub(super) lags: Histograms<ByEvent>,
    pub(super) outcomes: Family<ByTemplateResult, Counter>,
    pub(super) watch_lists: Family<ByResource, Counter>,
    pub(super) watch_errors: Family<ByWatchError, Counter>,
    pub(super) comparisons: Counter,
    pub(super) nats_connects: Counter,
    pub(super) nats_disconnects: Counter,
}

/// Of one call: 1 ms to 10 s, its deadline.
fn of_calls() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
}

/// Of waits: a request may be in the queue for hours.
fn of_waits() -> Histogram {
    Histogram::new([0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0])
}

/// Of what is measured from Kubernetes' times, which are whole seconds.
fn of_lags() -> Histogram {
    Histogram::new([1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0, 300.0, 1800.0, 7200.0])
}

fn histograms<L>(make: fn() -> Histogram) -> Histograms<L>
where
    L: Clone + Hash + Eq + EncodeLabelSet,
{
    Family::new_with_constructor(make)
}

/// The prefix of every metric that is not a convention of Prometheus.
pub(super) const PREFIX: &str = "dispatcher";

impl Counted {
    pub(super) fn register(top: &mut Registry) -> Self {
        let this = Self {
            requests: Family::default(),
            waits: histograms(of_waits),
            rejections: Family::default(),
            creates: histograms(of_calls),
            publishes: histograms(of_calls),
            events: Family::default(),
            lags: histograms(of_lags),
            outcomes: Family::default(),
            watch_lists: Family::default(),
            watch_errors: Family::default(),
            comparisons: Counter::default(),
            nats_connects: Counter::default(),
            nats_disconnects: Counter::default(),
        };
        let started = Gauge::<i64>::default();
        started.set(OffsetDateTime::now_utc().unix_timestamp());
        top.register_with_unit(
            "process_start_time",
            "Start time of the process since the Unix epoch",
            Unit::Seconds,
            started,
        );
        let registry = top.sub_registry_with_prefix(PREFIX);
        this.register_intake(registry);
        this.register_report(registry);
        registry.register("nats_connects", "Connections to NATS that were made", this.nats_connects.clone());
        registry.register(
            "nats_disconnects",
            "Connections to NATS that were lost",
            this.nats_disconnects.clone(),
        );
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The program that runs", build);
        this.prepare();
        this
    }

    fn register_intake(&self, registry: &mut Registry) {
        registry.register(
            "requests",
            "Deliveries of requests by how they were answered; those that were put back come again",
            self.requests.clone(),
        );
        registry.register_with_unit(
            "request_wait",
            "From when a request was stored to when its Job was created and told of",
            Unit::Seconds,
            self.waits.clone(),
        );
        registry.register(
            "rejections",
            "Requests that became dead letters, by the contract's reason",
            self.rejections.clone(),
        );
        registry.register_with_unit(
            "job_create_duration",
            "Calls that create a Job",
            Unit::Seconds,
            self.creates.clone(),
        );
    }

    fn register_report(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "event_publish_duration",
            "Fenced publishes to JOB_STATUS",
            Unit::Seconds,
            self.publishes.clone(),
        );
        registry.register("events", "Status events that were stored", self.events.clone());
        registry.register_with_unit(
            "event_lag",
            "From the end of a pod or a Job, in Kubernetes' whole seconds, to when its event was stored",
            Unit::Seconds,
            self.lags.clone(),
        );
        registry.register("outcomes", "Outcomes that were stored", self.outcomes.clone());
        registry.register("watch_lists", "Lists that a watch began with", self.watch_lists.clone());
        registry.register(
            "watch_errors",
            "Watches that ended with an error; expired: 410, so that all is listed anew",
            self.watch_errors.clone(),
        );
        registry.register(
            "resyncs",
            "Completed resyncs of JOB_STATUS with the Jobs",
            self.comparisons.clone(),
        );
    }

    /// Makes each series that is of no template.
    fn prepare(&self) {
        for resource in Watched::ALL.map(Watched::as_str) {
            make(&self.watch_lists, &ByResource { resource });
            for reason in [EXPIRED, OTHER] {
                make(&self.watch_errors, &ByWatchError { resource, reason });
            }
        }
        for result in CreateFailure::ALL.map(CreateFailure::label).into_iter().chain([CREATED]) {
            make(&self.creates, &ByResult { result });
        }
        for result in Published::ALL.map(Published::as_str) {
            make(&self.publishes, &ByResult { result });
        }
    }

    /// Makes each series of a template.
    pub(super) fn prepare_template(&self, template: &Label) {
        let of_result = |result| ByTemplateResult { template: template.clone(), result };
        for result in Disposition::LABELS {
            make(&self.requests, &of_result(result));
        }
        make(&self.waits, &ByTemplate { template: template.clone() });
        for reason in Reason::ALL.map(Reason::as_str) {
            make(&self.rejections, &ByReason { template: template.clone(), reason });
        }
        for event in EventType::ALL.map(EventType::as_str) {
            make(&self.events, &ByEvent { template: template.clone(), event });
        }
        for event in [EventType::Attempt, EventType::Outcome].map(EventType::as_str) {
            make(&self.lags, &ByEvent { template: template.clone(), event });
        }
        for result in OutcomeResult::ALL.map(OutcomeResult::as_str) {
            make(&self.outcomes, &of_result(result));
        }
    }
}

/// A series with 0 in it.
fn make<L, M, C>(family: &Family<L, M, C>, labels: &L)
where
    L: Clone + Hash + Eq,
    C: MetricConstructor<M>,
{
    drop(family.get_or_create(labels));
}
