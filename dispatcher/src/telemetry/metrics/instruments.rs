//! The metrics that are updated when something happens: names, types, help texts and buckets.

use std::hash::Hash;

use dispatcher_core::{
    contract::{
        event::{EventType, OutcomeResult},
        rejection::Reason,
    },
    request::{Disposition, error::CreateFailure},
};
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

use crate::telemetry::metrics::labels::{
    ByConnection, ByEvent, ByOperation, ByReason, ByResource, ByResult, ByTemplate, ByTemplateResult,
    ByWatchError, CREATED, EXPIRED, Label, OTHER, Operation, Published, Watched,
};

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// The prefix of every metric, except those that Prometheus names by convention.
pub(super) const PREFIX: &str = "dispatcher";

/// The counters and histograms.
pub(super) struct Instruments {
    pub(super) requests: Family<ByTemplateResult, Counter>,
    pub(super) request_waits: Histograms<ByTemplate>,
    pub(super) rejections: Family<ByReason, Counter>,
    pub(super) creates: Histograms<ByResult>,
    pub(super) publishes: Histograms<ByResult>,
    pub(super) events: Family<ByEvent, Counter>,
    pub(super) event_lags: Histograms<ByEvent>,
    pub(super) outcomes: Family<ByTemplateResult, Counter>,
    pub(super) refusals: Family<ByOperation, Counter>,
    pub(super) watch_lists: Family<ByResource, Counter>,
    pub(super) watch_errors: Family<ByWatchError, Counter>,
    pub(super) log_read_failures: Counter,
    pub(super) resyncs: Counter,
    pub(super) nats_connects: Family<ByConnection, Counter>,
    pub(super) nats_disconnects: Family<ByConnection, Counter>,
    pub(super) nats_clients_replaced: Family<ByConnection, Counter>,
}

/// Buckets for one call: 1 ms to 10 s, which is its deadline.
fn call_buckets() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
}

/// Buckets for the time in the queue, which can be hours.
fn wait_buckets() -> Histogram {
    Histogram::new([0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0])
}

/// Buckets for lags behind Kubernetes timestamps, which are whole seconds.
fn lag_buckets() -> Histogram {
    Histogram::new([1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0, 300.0, 1800.0, 7200.0])
}

fn histograms<L>(buckets: fn() -> Histogram) -> Histograms<L>
where
    L: Clone + Hash + Eq + EncodeLabelSet,
{
    Family::new_with_constructor(buckets)
}

impl Instruments {
    pub(super) fn register(root: &mut Registry) -> Self {
        let this = Self {
            requests: Family::default(),
            request_waits: histograms(wait_buckets),
            rejections: Family::default(),
            creates: histograms(call_buckets),
            publishes: histograms(call_buckets),
            events: Family::default(),
            event_lags: histograms(lag_buckets),
            outcomes: Family::default(),
            refusals: Family::default(),
            watch_lists: Family::default(),
            watch_errors: Family::default(),
            log_read_failures: Counter::default(),
            resyncs: Counter::default(),
            nats_connects: Family::default(),
            nats_disconnects: Family::default(),
            nats_clients_replaced: Family::default(),
        };
        let started = Gauge::<i64>::default();
        started.set(OffsetDateTime::now_utc().unix_timestamp());
        let help = "Start time of the process since the Unix epoch";
        root.register_with_unit("process_start_time", help, Unit::Seconds, started);
        let registry = root.sub_registry_with_prefix(PREFIX);
        this.register_intake(registry);
        this.register_status(registry);
        this.register_watch(registry);
        this.register_process(registry);
        this.create_series();
        this
    }

    fn register_intake(&self, registry: &mut Registry) {
        registry.register("requests", "Deliveries of requests, by result", self.requests.clone());
        registry.register_with_unit(
            "request_wait",
            "Time from the storage of a request to its Job's stored ADDED event",
            Unit::Seconds,
            self.request_waits.clone(),
        );
        let help = "Requests that became dead letters, by reason";
        registry.register("rejections", help, self.rejections.clone());
        registry.register_with_unit(
            "job_create_duration",
            "Duration of calls that create a Job",
            Unit::Seconds,
            self.creates.clone(),
        );
    }

    fn register_status(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "event_publish_duration",
            "Duration of fenced publishes to JOB_STATUS",
            Unit::Seconds,
            self.publishes.clone(),
        );
        registry.register("events", "Stored status events", self.events.clone());
        registry.register_with_unit(
            "event_lag",
            "Time from the end of a pod or Job (whole seconds) to its stored event",
            Unit::Seconds,
            self.event_lags.clone(),
        );
        registry.register("outcomes", "Stored outcomes", self.outcomes.clone());
        let help = "Refused operations on single Jobs; other Jobs are not affected";
        registry.register("job_refusals", help, self.refusals.clone());
    }

    fn register_watch(&self, registry: &mut Registry) {
        registry.register("watch_lists", "Lists that started a watch", self.watch_lists.clone());
        let help = "Watches that ended with an error; expired (410) causes a new list";
        registry.register("watch_errors", help, self.watch_errors.clone());
        let help = "Logs of failed pods that could not be read";
        registry.register("log_read_failures", help, self.log_read_failures.clone());
        registry.register("resyncs", "Completed resyncs of JOB_STATUS with the Jobs", self.resyncs.clone());
    }

    fn register_process(&self, registry: &mut Registry) {
        registry.register("nats_connects", "Established connections to NATS", self.nats_connects.clone());
        registry.register("nats_disconnects", "Lost connections to NATS", self.nats_disconnects.clone());
        let help = "Clients of NATS that ended on a message which they could not decode";
        registry.register("nats_clients_replaced", help, self.nats_clients_replaced.clone());
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "Version of the dispatcher", build);
    }

    /// Creates every series without a template label, so that its first increase is visible.
    fn create_series(&self) {
        for resource in Watched::ALL.map(Watched::as_str) {
            create(&self.watch_lists, &ByResource { resource });
            for reason in [EXPIRED, OTHER] {
                create(&self.watch_errors, &ByWatchError { resource, reason });
            }
        }
        for result in CreateFailure::ALL.map(CreateFailure::label).into_iter().chain([CREATED]) {
            create(&self.creates, &ByResult { result });
        }
        for result in Published::ALL.map(Published::as_str) {
            create(&self.publishes, &ByResult { result });
        }
    }

    /// Creates every series of a template.
    pub(super) fn create_template_series(&self, template: &Label) {
        let by_result = |result| ByTemplateResult { template: template.clone(), result };
        for result in Disposition::LABELS {
            create(&self.requests, &by_result(result));
        }
        create(&self.request_waits, &ByTemplate { template: template.clone() });
        for reason in Reason::ALL.map(Reason::as_str) {
            create(&self.rejections, &ByReason { template: template.clone(), reason });
        }
        for event in EventType::ALL.map(EventType::as_str) {
            create(&self.events, &ByEvent { template: template.clone(), event });
        }
        for event in [EventType::Attempt, EventType::Outcome].map(EventType::as_str) {
            create(&self.event_lags, &ByEvent { template: template.clone(), event });
        }
        for operation in Operation::ALL.map(Operation::as_str) {
            create(&self.refusals, &ByOperation { template: template.clone(), operation });
        }
        for result in OutcomeResult::ALL.map(OutcomeResult::as_str) {
            create(&self.outcomes, &by_result(result));
        }
    }
}

/// Creates a series with the value 0.
fn create<L, M, C>(family: &Family<L, M, C>, labels: &L)
where
    L: Clone + Hash + Eq,
    C: MetricConstructor<M>,
{
    drop(family.get_or_create(labels));
}
