//! Wires the modules together: starts their tasks in two groups, and stops them in order.

use std::{sync::Arc, time::Duration};

use async_nats::Client;
use dispatcher_core::request::fair_concurrency::Flow;
use tokio::{sync::watch, time::timeout};

use crate::{
    app::start::Prepared,
    cancellation::enforcer::Enforcer,
    cli::Config,
    concurrency::ConcurrencyLimiter,
    console::{Backend, Console},
    intake::{breaker::TemplateBreaker, consumer::PullLoop, create::JobCreator, handler::Handler},
    kube::refusals::Refusals,
    leader::Elector,
    leadership::{LeaderHandle, Leadership},
    micro::{
        cancel::CancelHandler,
        handler::{Handler as ServiceHandler, NatsService},
        submit::SubmitHandler,
        waiters::Waiters,
    },
    status::{self, StatusHandle},
    supervisor::{Spawner, Supervisor},
    telemetry::{health::Health, metrics::Metrics, spans::Spans},
    watch::{
        events::EventWatch,
        jobs::JobWatch,
        labelled::LabelledJobWatch,
        pods::{PodWatch, SharedPods},
        retire::KubeCluster,
        retired::RetiredJobs,
    },
};

/// How long the requests in progress may take at shutdown.
const REQUESTS: Duration = Duration::from_secs(20);
/// How long the pending status events may take at shutdown, and how long the connection's drain.
const FLUSH: Duration = Duration::from_secs(5);

/// What all tasks share.
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) health: Health,
    pub(super) metrics: Metrics,
    pub(super) spans: Spans,
    pub(super) leadership: Leadership,
    pub(super) limiter: ConcurrencyLimiter,
    pub(super) retired: RetiredJobs,
    pub(super) console: Option<Console>,
}

/// Starts all tasks. The newest group holds the sources of status events, the one before it the
/// publisher.
pub(super) fn start_tasks(
    supervisor: &mut Supervisor,
    mut prepared: Prepared,
    shared: Shared,
    leader: LeaderHandle,
) {
    let status = spawn_status(&mut supervisor.group(FLUSH), &prepared, &shared);
    let mut group = supervisor.group(REQUESTS);
    spawn_elector(&mut group, &prepared, &shared, leader);
    spawn_watch_side(&mut group, &prepared, &shared, &status);
    spawn_intake(&mut group, &mut prepared, &shared, &status);
    let handler = spawn_nats_service(&mut group, &prepared, &shared);
    spawn_console(&mut group, &prepared, &shared, handler);
    let templates: Vec<&str> = prepared.templates.keys().map(AsRef::as_ref).collect();
    tracing::info!(?templates, namespace = prepared.jobs.namespace(), "running");
    spawn_background(&mut group, prepared, &shared);
}

/// Stops the groups of [`start_tasks`]. A restart or another replica repeats aborted work.
pub(super) async fn stop_tasks(supervisor: &mut Supervisor, client: Client) {
    let late = supervisor.stop_newest().await;
    if !late.is_empty() {
        tracing::warn!(tasks = ?late, "aborted requests in progress; JetStream will redeliver them");
    }
    // Every status handle is dropped: the publisher ends once all pending events are stored.
    if !supervisor.stop_newest().await.is_empty() {
        tracing::warn!("aborted pending status events; the next resync will publish them");
    }
    if let Ok(Err(error)) = timeout(FLUSH, client.drain()).await {
        tracing::debug!(%error, "cannot drain the NATS connection");
    }
}

/// Starts the publisher of status events. It ends by itself once every handle is dropped.
fn spawn_status(group: &mut Spawner<'_>, prepared: &Prepared, shared: &Shared) -> StatusHandle {
    let Prepared { jobs, templates, cancellations, store, .. } = prepared;
    let refusals = Refusals::new(jobs.clone(), shared.metrics.clone());
    let cluster = Arc::new(KubeCluster::new(
        jobs.clone(),
        templates.clone(),
        cancellations.clone(),
        (refusals, shared.metrics.clone()),
        (store.clone(), shared.retired.clone()),
    ));
    let (status, publisher) = status::start(
        store.clone(),
        cluster,
        (&shared.health, shared.metrics.clone(), shared.spans.clone()),
        shared.leadership.clone(),
    );
    group.spawn("status", |_| publisher);
    status
}

fn spawn_elector(group: &mut Spawner<'_>, prepared: &Prepared, shared: &Shared, leader: LeaderHandle) {
    let health = shared.health.component("leader");
    let elector = Elector::new(&prepared.jobs, &shared.config.lease, leader, health);
    group.spawn("leader", |stop| elector.run(stop));
}

/// Starts the watches of Jobs, pods and Kubernetes Events. Pods are listed after Jobs, and Events
/// after pods.
fn spawn_watch_side(group: &mut Spawner<'_>, prepared: &Prepared, shared: &Shared, status: &StatusHandle) {
    let Prepared { jobs, store, cancellations, reconnects, .. } = prepared;
    let Shared { health, metrics, leadership, limiter, .. } = shared;
    let (jobs_list, jobs_listed) = watch::channel(0);
    let (pods_list, pods_listed) = watch::channel(0);
    let pending = SharedPods::default();
    let labelled = LabelledJobWatch {
        client: jobs.clone(),
        status: status.clone(),
        health: health.component("watch labels"),
        leadership: leadership.clone(),
        metrics: metrics.clone(),
    };
    let pods = PodWatch {
        client: jobs.clone(),
        status: status.clone(),
        health: health.component("watch pods"),
        pending: pending.clone(),
        leadership: leadership.clone(),
        metrics: metrics.clone(),
        resyncs: jobs_listed,
        listed: pods_list,
    };
    let events = EventWatch {
        client: jobs.clone(),
        status: status.clone(),
        health: health.component("watch events"),
        pending,
        leadership: leadership.clone(),
        metrics: metrics.clone(),
        pods_listed,
    };
    let job_watch = JobWatch {
        client: jobs.clone(),
        store: store.clone(),
        status: status.clone(),
        cancellations: cancellations.clone(),
        limiter: limiter.clone(),
        retired: shared.retired.clone(),
        health: health.component("watch"),
        resync_health: health.component("resync"),
        reconnects: reconnects.clone(),
        leadership: leadership.clone(),
        metrics: metrics.clone(),
    };
    group.spawn_until_stop("watch labels", labelled.run());
    group.spawn_until_stop("watch pods", pods.run());
    group.spawn_until_stop("watch events", events.run());
    group.spawn_until_stop("watch", job_watch.run(jobs_list));
}

/// Starts one pull loop per template.
fn spawn_intake(group: &mut Spawner<'_>, prepared: &mut Prepared, shared: &Shared, status: &StatusHandle) {
    let api_prefix: Arc<str> = shared.config.nats.api_prefix().into();
    let connections = prepared.connections.intake.clone();
    let consumers = std::mem::take(&mut prepared.provisioned.consumers);
    for ((name, consumer), intake) in consumers.into_iter().zip(connections.iter().cycle()) {
        let Some(template) = prepared.templates.get(&name).cloned() else { continue };
        let creator = JobCreator {
            client: prepared.jobs.clone(),
            store: prepared.store.clone(),
            status: status.clone(),
            metrics: shared.metrics.clone(),
        };
        let task = format!("intake {name}");
        let health = shared.health.component(task.clone());
        let breaker = TemplateBreaker::new(
            name.clone(),
            prepared.jobs.clone(),
            health.clone(),
            shared.config.concurrency.into(),
            consumer.cached_info().config.max_ack_pending,
        );
        let handler = Handler {
            template,
            jobs: prepared.provisioned.jobs.clone(),
            maybe_seen: prepared.provisioned.last_sequence,
            creator,
            breaker,
            cancellations: prepared.cancellations.clone(),
            dead_letters: prepared.dead_letters.clone(),
            submitters: prepared.submitters.clone(),
            status: status.clone(),
            metrics: shared.metrics.clone(),
            spans: shared.spans.clone(),
        };
        let pull = PullLoop {
            intake: intake.clone(),
            api_prefix: api_prefix.clone(),
            consumer,
            poison: prepared.poison.clone(),
            may_create: !shared.config.no_provision,
            handler: Arc::new(handler),
            concurrency: shared.config.concurrency.into(),
            share: prepared.shares.of(Flow::Requests(name)),
            health,
            reconnects: prepared.reconnects.clone(),
            limiter: shared.limiter.clone(),
        };
        group.spawn(task, |stop| pull.run(stop));
    }
}

/// Starts the endpoints `submit`, `cancel` and `get`.
fn spawn_nats_service(group: &mut Spawner<'_>, prepared: &Prepared, shared: &Shared) -> Arc<ServiceHandler> {
    let Prepared { connections, store, history, lookups, submitters, .. } = prepared;
    let max_waiters = shared.config.max_waiters.into();
    let waiters = Waiters::new(max_waiters, prepared.templates.len());
    let max_wait = Duration::from_secs(shared.config.max_wait.into());
    let submit = SubmitHandler::new(
        (connections.client(), store.clone(), history.clone()),
        (lookups.clone(), submitters.clone()),
        (max_wait, waiters),
        connections.events.clone(),
        group.stop_token(),
    );
    let cancel = CancelHandler {
        jobs: prepared.jobs.clone(),
        cancellations: prepared.cancellations.clone(),
        limiter: shared.limiter.clone(),
        history: history.clone(),
        lookups: lookups.clone(),
        own_account_only: shared.config.submitters.cancel_own_account_only,
    };
    let handler = ServiceHandler { submit, cancel, history: history.clone(), lookups: lookups.clone() };
    let handler = Arc::new(handler);
    let service = NatsService {
        receivers: connections.service.clone(),
        events: connections.events.clone(),
        sender: connections.main.clone(),
        templates: prepared.templates.clone(),
        handler: handler.clone(),
        max_waiters,
        health: shared.health.component("micro"),
    };
    group.spawn("service", |stop| service.run(stop));
    handler
}

/// Opens the console, if it is on.
fn spawn_console(
    group: &mut Spawner<'_>,
    prepared: &Prepared,
    shared: &Shared,
    handler: Arc<ServiceHandler>,
) {
    let Some(console) = &shared.console else { return };
    let templates = prepared.templates.clone();
    let backend = Backend {
        templates: Arc::new(move || templates.values().cloned().collect()),
        namespace: prepared.jobs.namespace().to_owned(),
        limiter: shared.limiter.clone(),
        metrics: shared.metrics.clone(),
        health: shared.health.clone(),
        scans: prepared.connections.scans.clone(),
        handler,
    };
    group.spawn_until_stop("console", console.start(backend).run());
}

/// Starts the tasks that watch over the streams, the connection and the cancellations.
fn spawn_background(group: &mut Spawner<'_>, prepared: Prepared, shared: &Shared) {
    let Prepared { jobs, connections, watchdog, store, cancellations, .. } = prepared;
    let enforcer = Enforcer {
        cancellations: cancellations.clone(),
        refusals: Refusals::new(jobs.clone(), shared.metrics.clone()),
        client: jobs,
        store,
        jobs: prepared.provisioned.jobs,
        health: shared.health.component("cancellation jobs"),
    };
    group.spawn_until_stop("cancellation jobs", enforcer.run());
    let health = shared.health.component("cancellation");
    group.spawn_until_stop("cancellation", async move { cancellations.run(health).await });
    connections.spawn_keepers(group);
    group.spawn_until_stop("streams", watchdog.run());
    group.spawn_until_stop("queue sampler", prepared.queue_sampler.run());
}
