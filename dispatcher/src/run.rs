//! Wires the halves together, and takes them apart in order.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    admin,
    config::{Config, StartError},
    contract::{
        names::{Kind, is_label},
        template::{Template, load_folder},
    },
    health::{Health, Room},
    intake::{handle::Handler, launch::Launcher, pull::Pull, reject::DeadLetters},
    kubernetes::{self, Jobs},
    nats::{
        connect,
        definitions::ACK_WAIT,
        provision::{Provision, Provisioned},
    },
    report::{settle::Settler, watch::Watch},
    status::{self, store::Store},
};

/// After a stop is asked for: how long requests that are worked on may take, and then the events that are under way.
const FINISH: Duration = Duration::from_secs(20);
const FLUSH: Duration = Duration::from_secs(5);

/// Why the service ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A setting is wrong.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A task that should run for ever has ended.
    #[error("the task `{0}` has ended")]
    TaskEnded(&'static str),
}

/// Runs the service until `stop`; then stops in this order: not ready, pull no more, finish what is worked on, flush
/// the events, leave.
///
/// # Errors
/// [`RunError`]: wrong settings at start, or a task that died.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), RunError> {
    let health = Health::default();
    let templates = load_templates(&config)?;
    let jobs = connect_kubernetes(&config).await?;
    let namespace_uid = namespace_uid(&jobs).await?;
    let listener = admin::listen(config.admin_addr).await?;
    let (reconnects, reconnected) = watch::channel(0);
    let client = connect::connect(&config.nats, health.room("nats"), reconnects).await?;
    let context = connect::jetstream(client.clone());
    let kinds: Vec<Kind> = templates.iter().map(|t| t.kind.clone()).collect();
    let provision = Provision { verify_only: config.no_provision, adopt: config.adopt, namespace_uid };
    let provisioned = provision.run(&context, &kinds).await?;
    let store = Store::open(context.clone()).await.map_err(|e| StartError::new("NATS_URL", e.to_string()))?;
    let dead_letters = DeadLetters::open(context).await.map_err(|e| StartError::new("NATS_URL", e))?;

    let by_kind: Arc<HashMap<_, _>> = Arc::new(templates.into_iter().map(|t| (t.kind.clone(), t)).collect());
    let (stop_work, abort) = (CancellationToken::new(), CancellationToken::new());
    let settler = Arc::new(Settler::new(jobs.clone(), by_kind.clone()));
    let status_room = health.room("status");
    status_room.ready();
    let (writer, write) = status::writer(store.clone(), settler, status_room, abort.clone());

    let mut tasks = JoinSet::new();
    let mut writing = JoinSet::new();
    writing.spawn(write);
    let watch = Watch {
        jobs: jobs.clone(),
        store: store.clone(),
        writer: writer.clone(),
        health: health.room("watch"),
        reconnects: reconnected.clone(),
    };
    let stop_watch = stop_work.clone();
    tasks.spawn(async move {
        tokio::select! {
            () = watch.run() => {}
            () = stop_watch.cancelled() => {}
        }
        "watch"
    });
    let Provisioned { jobs: stream, consumers } = provisioned;
    for (kind, consumer) in consumers {
        let Some(template) = by_kind.get(&kind).cloned() else { continue };
        let launcher = Launcher { jobs: jobs.clone(), store: store.clone() };
        let (dead_letters, writer) = (dead_letters.clone(), writer.clone());
        let handler = Handler { template, stream: stream.clone(), launcher, dead_letters, writer };
        let room = health.room(format!("intake {kind}"));
        let pull = Pull {
            consumer,
            handler: Arc::new(handler),
            concurrency: config.concurrency.into(),
            health: room,
            reconnects: reconnected.clone(),
        };
        let stop = stop_work.clone();
        tasks.spawn(async move {
            pull.run(stop).await;
            "intake"
        });
    }
    drop(writer);
    let stop_admin = CancellationToken::new();
    let admin = tokio::spawn(admin::serve(listener, health.clone(), stop_admin.clone()));
    tracing::info!(kinds = ?by_kind.keys().map(AsRef::as_ref).collect::<Vec<&str>>(), namespace = jobs.namespace(), "running");

    let ended = tokio::select! {
        () = stop.cancelled() => Ok(()),
        ended = tasks.join_next() => Err(RunError::TaskEnded(task_name(ended))),
        _ = writing.join_next() => Err(RunError::TaskEnded("status")),
    };
    let shutdown: Room = health.room("shutdown");
    shutdown.not_ready("stopping");
    stop_work.cancel();
    if timeout(FINISH, async { while tasks.join_next().await.is_some() {} }).await.is_err() {
        tracing::warn!("requests are still worked on; they will be delivered again");
        tasks.shutdown().await;
    }
    if timeout(FLUSH, async { while writing.join_next().await.is_some() {} }).await.is_err() {
        tracing::warn!("events are not stored yet; they will be told after the next start");
        abort.cancel();
    }
    let _ = timeout(FLUSH, client.drain()).await;
    stop_admin.cancel();
    let _ = timeout(FLUSH, admin).await;
    tracing::info!("stopped");
    ended
}

fn task_name(ended: Option<Result<&'static str, tokio::task::JoinError>>) -> &'static str {
    match ended {
        Some(Ok(name)) => name,
        Some(Err(error)) => {
            tracing::error!(%error, "a task has died");
            "died"
        }
        None => "none",
    }
}

fn load_templates(config: &Config) -> Result<Vec<Arc<Template>>, StartError> {
    let templates =
        load_folder(&config.templates.folder).map_err(|e| StartError::new("TEMPLATES", e.to_string()))?;
    let least = i32::try_from(ACK_WAIT.as_secs()).unwrap_or(i32::MAX);
    for template in &templates {
        // A Job whose request is still to be acknowledged must be found when that is delivered again.
        if let Some(ttl) = template.ttl_seconds.filter(|ttl| *ttl <= least) {
            let message = format!(
                "kind {}: job.spec.ttlSecondsAfterFinished: found {ttl}, must be more than {least} (the consumer's ack_wait)",
                template.kind
            );
            return Err(StartError::new("TEMPLATES", message));
        }
    }
    Ok(templates.into_iter().map(Arc::new).collect())
}

async fn connect_kubernetes(config: &Config) -> Result<Jobs, StartError> {
    if !is_label(&config.namespace) {
        return Err(StartError::new(
            "NAMESPACE",
            format!("{:?} is no name of a namespace", config.namespace),
        ));
    }
    let client = kubernetes::connect(config.kubeconfig.as_deref()).await;
    let client = client.map_err(|e| StartError::new("KUBECONFIG", e))?;
    Ok(Jobs::new(client, &config.namespace))
}

async fn namespace_uid(jobs: &Jobs) -> Result<String, StartError> {
    jobs.namespace_uid().await.map_err(|error| match error.code() {
        Some(404) => StartError::new("NAMESPACE", format!("there is no namespace {:?}", jobs.namespace())),
        Some(401) => {
            StartError::new("KUBECONFIG", format!("the API server does not know who this is: {error}"))
        }
        Some(403) => StartError::new("NAMESPACE", format!("a right is missing: {error}")),
        _ => StartError::new("KUBECONFIG", format!("the API server cannot be reached: {error}")),
    })
}
