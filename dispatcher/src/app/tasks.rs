//! Wires the modules together: starts their tasks in two groups, and stops them in order.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_nats::Client;
use dispatcher_core::{contract::names::TemplateName, template::catalog::Catalog};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use crate::{
    app::{
        catalog::CatalogKeeper,
        deletion::Deletion,
        objects::{ObjectClient, ObjectReporter},
        serving::Serving,
        shared::Shared,
        start::{IntakeParts, Prepared},
    },
    cancellation::enforcer::Enforcer,
    console::Backend,
    kube::refusals::Refusals,
    leader::Elector,
    leadership::LeaderHandle,
    micro::{
        cancel::CancelHandler,
        handler::{Handler as ServiceHandler, NatsService},
        submit::SubmitHandler,
        waiters::Waiters,
    },
    nats::provision::Queue,
    status::{self, StatusHandle},
    supervisor::{Spawner, Supervisor},
    templates::{folder::Folder, served::ServedTemplates},
    watch::{
        events::EventWatch,
        job_templates::{self, JobTemplateWatch},
        jobs::JobWatch,
        labelled::LabelledJobWatch,
        pods::{PodWatch, SharedPods},
        retire::KubeCluster,
        workloads::WorkloadWatch,
    },
};

/// How long the requests in progress may take at shutdown.
const REQUESTS: Duration = Duration::from_secs(20);
/// How long the pending status events may take at shutdown, and how long the connection's drain.
const FLUSH: Duration = Duration::from_secs(5);

/// The completed deletions of templates that wait for the catalog.
const DELETIONS: usize = 64;

/// Starts all tasks. The newest group holds the sources of status events, the one before it the
/// publisher.
pub(super) fn start_tasks(
    supervisor: &mut Supervisor,
    prepared: Prepared,
    shared: Shared,
    leader: LeaderHandle,
) {
    let status = spawn_status(&mut supervisor.group(FLUSH), &prepared, &shared);
    let mut group = supervisor.group(REQUESTS);
    spawn_elector(&mut group, &prepared, &shared, leader);
    spawn_watch_side(&mut group, &prepared, &shared, &status);
    let handler = spawn_nats_service(&mut group, &prepared, &shared);
    spawn_console(&mut group, &prepared, &shared, handler);
    let templates: Vec<String> = prepared.templates.names().iter().map(ToString::to_string).collect();
    tracing::info!(?templates, namespace = prepared.parts.client.namespace(), "running");
    spawn_cancellation(&mut group, &prepared, &shared);
    let Prepared { templates, catalog, folder, connections, watchdog, queue_sampler, parts, queues, .. } =
        prepared;
    connections.spawn_keepers(&mut group);
    group.spawn_until_stop("streams", watchdog.run());
    group.spawn_until_stop("queue sampler", queue_sampler.run());
    spawn_templates(&mut group, (folder, catalog, queues), (templates, parts), &shared, &status);
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
    let Prepared { templates, parts: IntakeParts { client: jobs, cancellations, store, .. }, .. } = prepared;
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
    let elector = Elector::new(&prepared.parts.client, &shared.config.lease, leader, health);
    group.spawn("leader", |stop| elector.run(stop));
}

/// Starts the watches of Jobs, pods, Kubernetes Events and Workloads. Pods are listed after Jobs, and
/// Events and Workloads after pods.
fn spawn_watch_side(group: &mut Spawner<'_>, prepared: &Prepared, shared: &Shared, status: &StatusHandle) {
    let IntakeParts { client: jobs, store, cancellations, reconnects, .. } = &prepared.parts;
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
    if shared.config.kueue {
        let workloads = WorkloadWatch {
            client: jobs.clone(),
            status: status.clone(),
            health: health.component("watch workloads"),
            pods_listed: pods_listed.clone(),
            leadership: leadership.clone(),
            metrics: metrics.clone(),
        };
        group.spawn_until_stop("watch workloads", workloads.run());
    }
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

/// Starts the catalog of templates, one intake for each of them, and the reports to their objects.
fn spawn_templates(
    group: &mut Spawner<'_>,
    sources: (Folder, watch::Sender<Arc<Catalog>>, BTreeMap<TemplateName, Queue>),
    (templates, parts): (ServedTemplates, IntakeParts),
    shared: &Shared,
    status: &StatusHandle,
) {
    let (folder, catalog, provisioned) = sources;
    let Shared { config, health, metrics, leadership, limiter, .. } = shared;
    let (refused, refusals) = watch::channel(Arc::default());
    let (served, served_now) = watch::channel(Arc::default());
    let (deleted, deletions) = mpsc::channel(DELETIONS);
    let (objects, client) = match config.template_objects.job_templates {
        true => {
            let api = job_templates::api(parts.client.client(), parts.client.namespace());
            let (sender, objects) = watch::channel(None);
            let watch = JobTemplateWatch {
                api: api.clone(),
                policy: config.limits.policy(),
                objects: sender,
                health: health.component("watch templates"),
                metrics: metrics.clone(),
            };
            group.spawn_until_stop("watch templates", watch.run());
            (Some(objects), Some(ObjectClient { api }))
        }
        false => (None, None),
    };
    if let (Some(objects), Some(client)) = (objects.clone(), client.clone()) {
        let reporter = ObjectReporter {
            client,
            objects,
            templates: templates.clone(),
            refused: refusals,
            served: served_now,
            metrics: metrics.clone(),
            limiter: limiter.clone(),
            leadership: leadership.clone(),
            health: health.component("template status"),
        };
        group.spawn_until_stop("template status", reporter.run());
    }
    let deletion = Deletion {
        provision: parts.provision.clone(),
        jobs: parts.jobs_stream.clone(),
        templates: templates.clone(),
        leadership: leadership.clone(),
        objects: client.zip(objects.clone()),
        deleted,
        health: health.component("template deletion"),
    };
    group.spawn_until_stop("template deletion", deletion.run());
    let keeper = CatalogKeeper {
        folder,
        objects,
        deleted: deletions,
        catalog,
        refused,
        health: health.component("templates"),
        metrics: metrics.clone(),
    };
    group.spawn_until_stop("templates", keeper.run());
    let serving = Serving {
        parts,
        shared: shared.clone(),
        status: status.clone(),
        templates,
        provisioned,
        served,
        health: health.component("intake"),
    };
    group.spawn("intake", |stop| serving.run(stop));
}

/// Starts the endpoints `submit`, `cancel` and `get`.
fn spawn_nats_service(group: &mut Spawner<'_>, prepared: &Prepared, shared: &Shared) -> Arc<ServiceHandler> {
    let Prepared { connections, history, lookups, parts, .. } = prepared;
    let IntakeParts { client, store, submitters, cancellations, .. } = parts;
    let max_waiters = shared.config.max_waiters.into();
    let counted = prepared.templates.clone();
    let waiters = Waiters::new(max_waiters, Arc::new(move || counted.count()));
    let max_wait = Duration::from_secs(shared.config.max_wait.into());
    let submit = SubmitHandler::new(
        (connections.client(), store.clone(), history.clone()),
        (lookups.clone(), submitters.clone()),
        (max_wait, waiters),
        connections.events.clone(),
        group.stop_token(),
    );
    let cancel = CancelHandler {
        jobs: client.clone(),
        cancellations: cancellations.clone(),
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
        templates: Arc::new(move || templates.in_use()),
        namespace: prepared.parts.client.namespace().to_owned(),
        limiter: shared.limiter.clone(),
        metrics: shared.metrics.clone(),
        health: shared.health.clone(),
        scans: prepared.connections.scans.clone(),
        handler,
    };
    group.spawn_until_stop("console", console.start(backend).run());
}

/// Starts the tasks that complete cancellations.
fn spawn_cancellation(group: &mut Spawner<'_>, prepared: &Prepared, shared: &Shared) {
    let IntakeParts { client, store, cancellations, jobs_stream, .. } = &prepared.parts;
    let enforcer = Enforcer {
        cancellations: cancellations.clone(),
        refusals: Refusals::new(client.clone(), shared.metrics.clone()),
        client: client.clone(),
        store: store.clone(),
        jobs: jobs_stream.clone(),
        health: shared.health.component("cancellation jobs"),
    };
    group.spawn_until_stop("cancellation jobs", enforcer.run());
    let health = shared.health.component("cancellation");
    let cancellations = cancellations.clone();
    group.spawn_until_stop("cancellation", async move { cancellations.run(health).await });
}
