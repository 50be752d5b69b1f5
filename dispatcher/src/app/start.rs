//! The start: checks every setting, connects, and provisions the streams. Each error is one line
//! that names the setting.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_nats::jetstream::{self, context::GetStreamErrorKind};
use dispatcher_core::{
    contract::{names::TemplateName, submitter::Submitters},
    request::error::CallError,
    template::Template,
};
use futures::future::join_all;
use tokio::sync::watch;

use crate::{
    app::{connections::Connections, queue_sampler::QueueSampler},
    cancellation::Cancellations,
    cli::{Config, StartError},
    intake::{dead_letters::DeadLetters, poison::PoisonHandler},
    kube::JobClient,
    micro::{history::History, lookup::Lookups},
    nats::{
        cancellation_bucket::CancellationBucket,
        definitions::{JOB_CANCELS, JOB_REJECTED, JOB_STATUS, JOBS},
        provision::{Provision, Provisioned},
        settings::is_unavailable,
        status_stream::StatusStream,
        watchdog::Watchdog,
    },
    shares::Shares,
    telemetry::{health::Health, metrics::Metrics},
    templates,
};

/// The connections and stores that the tasks use.
pub(super) struct Prepared {
    pub(super) templates: Arc<HashMap<TemplateName, Arc<Template>>>,
    /// The Jobs of the namespace.
    pub(super) jobs: JobClient,
    pub(super) connections: Connections,
    /// Changes after each reconnect to NATS.
    pub(super) reconnects: watch::Receiver<u64>,
    pub(super) watchdog: Watchdog,
    pub(super) store: StatusStream,
    pub(super) poison: PoisonHandler,
    pub(super) history: History,
    pub(super) lookups: Lookups,
    pub(super) shares: Shares,
    pub(super) submitters: Arc<Submitters>,
    pub(super) cancellations: Cancellations,
    pub(super) dead_letters: DeadLetters,
    pub(super) queue_sampler: QueueSampler,
    pub(super) provisioned: Provisioned,
}

impl Prepared {
    /// Checks the settings, connects, and provisions the streams. `cluster` replaces the
    /// configured cluster.
    ///
    /// # Errors
    /// [`StartError`] for the first setting that is wrong.
    pub(super) async fn new(
        cluster: Option<::kube::Client>,
        config: &Config,
        health: &Health,
        metrics: &Metrics,
    ) -> Result<Self, StartError> {
        let templates = load_templates(config)?;
        let submitters = Arc::new(config.submitters.load()?);
        let jobs = connect_kubernetes(cluster, config).await?;
        let namespace_uid = namespace_uid(&jobs).await?;
        let (reconnected, reconnects) = watch::channel(0);
        let names: Vec<TemplateName> = templates.iter().map(|t| t.name.clone()).collect();
        let open = Connections::open(&config.nats, &names, (health, metrics), reconnected.clone());
        let connections = open.await?;
        let context = connections.jetstream();
        let provision = Provision { verify_only: config.no_provision, adopt: config.adopt, namespace_uid };
        let provisioned = match provision.run(&context, &names).await {
            Ok(provisioned) => provisioned,
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => return Err(error.transient_if(!streams_answer(&context).await)),
        };
        check_ttls(&templates, &provisioned)?;

        // The streams exist, so only a lost connection or server fails here.
        let nats_error = |message: String| StartError::new("NATS_URL", message).transient_if(true);
        let dead_letters = DeadLetters::open(context.clone(), metrics.clone()).await.map_err(nats_error)?;
        let poison = PoisonHandler { jobs: provisioned.jobs.clone(), dead_letters: dead_letters.clone() };
        let bucket =
            CancellationBucket::open(context.clone(), &connections.scans).await.map_err(nats_error)?;
        let cancellations = Cancellations::open(bucket).await.map_err(nats_error)?;
        let templates = Arc::new(templates.into_iter().map(|t| (t.name.clone(), t)).collect());
        metrics.set_templates(&templates);
        let shares = Shares::new(config.concurrency.into());
        let health = health.component("streams");
        Ok(Self {
            templates,
            jobs,
            reconnects,
            watchdog: Watchdog {
                context: context.clone(),
                templates: names.clone(),
                health,
                reconnects: reconnected,
            },
            queue_sampler: QueueSampler {
                jobs: provisioned.jobs.clone(),
                consumers: provisioned.consumers.clone(),
                metrics: metrics.clone(),
            },
            cancellations,
            history: History::open(&context, &connections.scans).await.map_err(nats_error)?,
            lookups: Lookups::new(provisioned.jobs.clone(), submitters.clone(), shares.clone(), names.len()),
            shares,
            submitters,
            store: StatusStream::open(context, &connections.scans)
                .await
                .map_err(|e| nats_error(e.to_string()))?,
            dead_letters,
            poison,
            provisioned,
            connections,
        })
    }
}

fn load_templates(config: &Config) -> Result<Vec<Arc<Template>>, StartError> {
    templates::load(&config.templates.folder, &config.limits.policy())
        .map_err(|error| StartError::new("DISPATCHER_TEMPLATES", error.to_string()))
}

/// Checks each template's TTL against the `ack_wait` of its consumer, which an operator may have
/// created with a longer one than the shipped configuration.
fn check_ttls(templates: &[Arc<Template>], provisioned: &Provisioned) -> Result<(), StartError> {
    for (name, consumer) in &provisioned.consumers {
        let ack_wait = consumer.cached_info().config.ack_wait;
        for template in templates.iter().filter(|template| template.name == *name) {
            check_ttl(template, ack_wait)?;
        }
    }
    Ok(())
}

fn check_ttl(template: &Template, ack_wait: Duration) -> Result<(), StartError> {
    templates::ttl_problem(template, ack_wait).map_or(Ok(()), |problem| {
        Err(StartError::new("DISPATCHER_TEMPLATES", format!("template {}: {problem}", template.name)))
    })
}

async fn connect_kubernetes(
    cluster: Option<::kube::Client>,
    config: &Config,
) -> Result<JobClient, StartError> {
    let client = match cluster {
        Some(client) => client,
        None => crate::kube::connect(config.kubeconfig.as_deref())
            .await
            .map_err(|e| StartError::new("KUBECONFIG", e))?,
    };
    Ok(JobClient::new(client, &config.namespace))
}

async fn namespace_uid(jobs: &JobClient) -> Result<String, StartError> {
    jobs.namespace_uid().await.map_err(|error| match error.code() {
        Some(404) => StartError::new(
            "DISPATCHER_NAMESPACE",
            format!("namespace {:?} does not exist", jobs.namespace()),
        ),
        Some(401) => {
            StartError::new("KUBECONFIG", format!("the API server rejects the credentials: {error}"))
        }
        Some(403) => StartError::new("DISPATCHER_NAMESPACE", format!("missing permission: {error}")),
        _ => StartError::new("KUBECONFIG", format!("the API server cannot be reached: {error}"))
            .transient_if(is_away(&error)),
    })
}

/// Whether `JetStream` answers for every stream. If not, a server or the leader of a stream is away.
async fn streams_answer(context: &jetstream::Context) -> bool {
    let answers = async |stream: &str| match context.get_stream(stream).await {
        Ok(_) => true,
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(error) => !is_unavailable(error.error_code()),
            _ => false,
        },
    };
    join_all([JOBS, JOB_STATUS, JOB_REJECTED, JOB_CANCELS].map(answers)).await.into_iter().all(|ok| ok)
}

/// Whether the API server may come back without a change by an operator. A certificate that does not
/// verify needs one.
fn is_away(error: &CallError) -> bool {
    match error {
        CallError::Status(status) => status.code == 429 || status.code >= 500,
        CallError::DeadlineExceeded(_) => true,
        CallError::Transport(text) => !text.contains("certificate"),
    }
}
