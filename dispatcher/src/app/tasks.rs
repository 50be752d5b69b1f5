//! The tasks of the two halves and the writer between them; none dies unseen.

use std::{sync::Arc, time::Duration};

use async_nats::Client;
use futures::FutureExt;
use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::app::FLUSH;
use crate::{
    app::start::Prepared,
    cancellation::enforcer::Enforcer,
    cli::Config,
    concurrency::ConcurrencyLimiter,
    intake::{consumer::PullLoop, create::JobCreator, handler::Handler},
    kube::JobClient,
    leader::{LeaderHandle, Leadership, elector::Elector},
    micro::{
        cancel::Cancelling,
        handler::{Handler as ServiceHandler, Serve},
        submit::Submit,
        waiting::Waiting,
    },
    nats::connect,
    status::{self, StatusHandle},
    telemetry::{health::Health, metrics::Metrics, spans::Spans},
    watch::{
        events::EventWatch,
        jobs::JobWatch,
        pods::{PendingPods, PodWatch},
        retire::KubeCluster,
    },
};

/// After a stop is asked for: how long requests that are worked on may take.
const FINISH: Duration = Duration::from_secs(20);

/// See the module.
pub(super) struct Tasks {
    work: JoinSet<&'static str>,
    stop_work: CancellationToken,
    writer: JoinSet<&'static str>,
    abort_writer: CancellationToken,
    client: Client,
}

impl Tasks {
    /// Starts all.
    pub(super) fn start(
        prepared: Prepared,
        config: &Config,
        (health, active, metrics, spans): (&Health, ConcurrencyLimiter, Metrics, Spans),
        (lead, leadership): (LeaderHandle, Leadership),
    ) -> Self {
        let stop_work = CancellationToken::new();
        let serve = service(&prepared, &active, config, health, &stop_work);
        let reap = reap(&prepared, health);
        let Prepared {
            templates,
            jobs,
            client,
            reconnects,
            watchdog,
            store,
            salvage,
            dead_letters,
            cancels,
            provisioned,
            queue_looks,
            ..
        } = prepared;
        let mut tasks = Self {
            work: JoinSet::new(),
            stop_work,
            writer: JoinSet::new(),
            abort_writer: CancellationToken::new(),
            client,
        };
        let settler = Arc::new(KubeCluster::new(jobs.clone(), templates.clone(), cancels.clone()));
        let elector = Elector::new(&jobs, &config.lease, lead, health.component("leader"));
        tasks.work.spawn(named("leader", elector.run(tasks.stop_work.clone())));
        let abort = tasks.abort_writer.clone();
        let (writer, write) = status::writer(
            store.clone(),
            settler,
            (health, metrics.clone(), spans.clone()),
            leadership.clone(),
            abort,
        );
        tasks.writer.spawn(named("status", write));

        let (jobs_listed, pods_may) = watch::channel(0);
        tasks.explain(&jobs, &writer, (health, &metrics), &leadership, pods_may);
        let watch = JobWatch {
            client: jobs.clone(),
            store: store.clone(),
            status: writer.clone(),
            cancellations: cancels.clone(),
            limiter: active.clone(),
            health: health.component("watch"),
            resync_health: health.component("resync"),
            reconnects: reconnects.clone(),
            leadership,
            metrics: metrics.clone(),
        };
        let stop = tasks.stop_work.clone();
        tasks.work.spawn(named("watch", async move {
            stop.run_until_cancelled_owned(watch.run(jobs_listed)).await;
        }));

        let stop = tasks.stop_work.clone();
        let looked_after = salvage.run(reconnects.clone());
        tasks.work.spawn(named("salvage", async move {
            stop.run_until_cancelled_owned(looked_after).await;
        }));
        let (stop, ended) = (tasks.stop_work.clone(), connect::ended(tasks.client.clone()));
        tasks.work.spawn(named("nats", async move {
            stop.run_until_cancelled_owned(ended).await;
        }));

        let stop = tasks.stop_work.clone();
        tasks.work.spawn(named("streams", async move {
            stop.run_until_cancelled_owned(watchdog.run()).await;
        }));

        for (name, consumer) in provisioned.consumers {
            let Some(template) = templates.get(&name).cloned() else { continue };
            let (dead_letters, writer) = (dead_letters.clone(), writer.clone());
            let creator = JobCreator {
                client: jobs.clone(),
                store: store.clone(),
                status: writer.clone(),
                metrics: metrics.clone(),
            };
            let (requests, maybe_seen) = (provisioned.jobs.clone(), provisioned.last_sequence);
            let handler = Handler {
                template,
                jobs: requests,
                maybe_seen,
                creator,
                cancellations: cancels.clone(),
                dead_letters,
                status: writer,
                metrics: metrics.clone(),
                spans: spans.clone(),
            };
            let (handler, reconnects) = (Arc::new(handler), reconnects.clone());
            let pull = PullLoop {
                consumer,
                may_create: !config.no_provision,
                handler,
                concurrency: config.concurrency.into(),
                health: health.component(format!("intake {name}")),
                reconnects,
                limiter: active.clone(),
            };
            tasks.work.spawn(named("intake", pull.run(tasks.stop_work.clone())));
        }
        let follow = cancels.run(health.component("cancellation"));
        let beside = [
            ("cancels", follow.boxed()),
            ("reap", reap.run().boxed()),
            ("metrics", queue_looks.run().boxed()),
        ];
        for (name, task) in beside {
            let stop = tasks.stop_work.clone();
            tasks.work.spawn(named(name, async move {
                stop.run_until_cancelled_owned(task).await;
            }));
        }
        tasks.work.spawn(named("service", serve.run(tasks.stop_work.clone())));
        let templates: Vec<&str> = templates.keys().map(AsRef::as_ref).collect();
        tracing::info!(?templates, namespace = jobs.namespace(), "running");
        tasks
    }

    /// Watches the pods, and the Events that say why there are none.
    fn explain(
        &mut self,
        jobs: &JobClient,
        writer: &StatusHandle,
        (health, metrics): (&Health, &Metrics),
        leadership: &Leadership,
        jobs_listed: watch::Receiver<u64>,
    ) {
        let (listed, pods_listed) = watch::channel(0);
        let unstarted = PendingPods::default();
        let pods = PodWatch {
            client: jobs.clone(),
            status: writer.clone(),
            health: health.component("watch pods"),
            pending: unstarted.clone(),
            leadership: leadership.clone(),
            metrics: metrics.clone(),
            resyncs: jobs_listed,
            listed,
        };
        let events = EventWatch {
            client: jobs.clone(),
            status: writer.clone(),
            health: health.component("watch events"),
            pending: unstarted,
            leadership: leadership.clone(),
            metrics: metrics.clone(),
            pods_listed,
        };
        let stop = self.stop_work.clone();
        self.work.spawn(named("watch pods", async move {
            stop.run_until_cancelled_owned(pods.run()).await;
        }));
        let stop = self.stop_work.clone();
        self.work.spawn(named("watch events", async move {
            stop.run_until_cancelled_owned(events.run()).await;
        }));
    }

    /// The first task that ends.
    pub(super) async fn any_ended(&mut self) -> &'static str {
        tokio::select! {
            Some(ended) = self.work.join_next() => name_of(ended),
            Some(ended) = self.writer.join_next() => name_of(ended),
            else => "all",
        }
    }

    /// Stops in order; what does not make it in time is done again after the next start.
    pub(super) async fn stop(mut self) {
        self.stop_work.cancel();
        if timeout(FINISH, all_ended(&mut self.work)).await.is_err() {
            tracing::warn!("requests are still worked on; they will be delivered again");
            self.work.shutdown().await;
        }
        // Both halves have dropped their writers: what they brought is said, and the writer ends.
        if timeout(FLUSH, all_ended(&mut self.writer)).await.is_err() {
            tracing::warn!("events are not stored yet; they will be told after the next start");
            self.abort_writer.cancel();
        }
        if let Ok(Err(error)) = timeout(FLUSH, self.client.drain()).await {
            tracing::debug!(%error, "the connection was not drained");
        }
    }
}

/// Sees to what is to be cancelled.
fn reap(prepared: &Prepared, health: &Health) -> Enforcer {
    Enforcer {
        cancellations: prepared.cancels.clone(),
        client: prepared.jobs.clone(),
        store: prepared.store.clone(),
        jobs: prepared.provisioned.jobs.clone(),
        health: health.component("cancellation jobs"),
    }
}

/// The micro service on what was prepared.
fn service(
    prepared: &Prepared,
    active: &ConcurrencyLimiter,
    config: &Config,
    health: &Health,
    stop: &CancellationToken,
) -> Serve {
    let Prepared { client, store, history, queue, reconnects, .. } = prepared;
    let waiting = config.max_waiters.into();
    let cancel = Cancelling {
        jobs: prepared.jobs.clone(),
        cancels: prepared.cancels.clone(),
        active: active.clone(),
        history: history.clone(),
        queue: queue.clone(),
    };
    let submit = Submit {
        client: client.clone(),
        store: store.clone(),
        history: history.clone(),
        waiting: Waiting::new(waiting),
        longest: Duration::from_secs(config.max_wait.into()),
        reconnects: reconnects.clone(),
        stop: stop.clone(),
    };
    Serve {
        client: client.clone(),
        templates: prepared.templates.clone(),
        desk: Arc::new(ServiceHandler { submit, cancel, history: history.clone(), queue: queue.clone() }),
        waiting,
        health: health.component("micro"),
    }
}

async fn named(name: &'static str, task: impl Future<Output = ()>) -> &'static str {
    task.await;
    name
}

async fn all_ended(tasks: &mut JoinSet<&'static str>) {
    while tasks.join_next().await.is_some() {}
}

fn name_of(ended: Result<&'static str, JoinError>) -> &'static str {
    ended.unwrap_or_else(|error| {
        tracing::error!(%error, "a task has died");
        "died"
    })
}
