//! The start: checks every setting, connects, and provisions the streams. Each error is one line
//! that names the setting.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_nats::jetstream::{self, context::GetStreamErrorKind};
use dispatcher_core::{
    contract::{names::TemplateName, nats_names::NatsNames, submitter::Submitters},
    request::error::CallError,
    template::{Template, TemplateError, catalog::Catalog},
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
        jobs_stream::JobsStream,
        provision::{Provision, Provisioned, Queue},
        settings::is_unavailable,
        status_stream::StatusStream,
        watchdog::Watchdog,
    },
    shares::Shares,
    telemetry::{health::Health, metrics::Metrics},
    templates::{self, folder::Folder, served::ServedTemplates},
};

/// What the intake of every template needs.
pub(super) struct IntakeParts {
    /// The Jobs of the namespace.
    pub(super) client: JobClient,
    pub(super) jobs_stream: JobsStream,
    pub(super) provision: Provision,
    pub(super) store: StatusStream,
    pub(super) poison: PoisonHandler,
    pub(super) shares: Shares,
    pub(super) submitters: Arc<Submitters>,
    pub(super) cancellations: Cancellations,
    pub(super) dead_letters: DeadLetters,
    /// Changes after each reconnect to NATS.
    pub(super) reconnects: watch::Receiver<u64>,
}

/// The connections and stores that the tasks use.
pub(super) struct Prepared {
    pub(super) templates: ServedTemplates,
    /// Changes the templates.
    pub(super) catalog: watch::Sender<Arc<Catalog>>,
    pub(super) folder: Folder,
    pub(super) connections: Connections,
    pub(super) watchdog: Watchdog,
    pub(super) history: History,
    pub(super) lookups: Lookups,
    pub(super) queue_sampler: QueueSampler,
    pub(super) parts: IntakeParts,
    /// The queues of the templates that exist at the start.
    pub(super) queues: BTreeMap<TemplateName, Queue>,
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
        let mut folder = Folder::new(config.templates.folder.clone(), config.limits.policy());
        let (catalog, templates) = ServedTemplates::of(read_templates(&mut folder, config)?);
        let submitters = Arc::new(config.submitters.load()?);
        let client = connect_kubernetes(cluster, config).await?;
        let namespace_uid = namespace_uid(&client).await?;
        let (reconnected, reconnects) = watch::channel(0);
        let connections = Connections::open(&config.nats, (health, metrics), reconnected.clone()).await?;
        let context = connections.jetstream();
        let names = config.nats.naming.names.clone();
        let provision = Provision {
            names: names.clone(),
            verify_only: config.no_provision,
            adopt: config.adopt,
            namespace_uid,
        };
        let Provisioned { jobs, consumers } = match provision.run(&context, &templates.names()).await {
            Ok(provisioned) => provisioned,
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => return Err(error.transient_if(!streams_answer(&context, &names).await)),
        };
        check_ttls(&templates, &consumers)?;

        // The streams exist, so only a lost connection or server fails here.
        let nats_error = |message: String| StartError::new("NATS_URL", message).transient_if(true);
        let dead_letters = DeadLetters::open(context.clone(), names.clone(), metrics.clone()).await;
        let dead_letters = dead_letters.map_err(nats_error)?;
        let poison = PoisonHandler { jobs: jobs.clone(), dead_letters: dead_letters.clone() };
        let bucket = CancellationBucket::open(context.clone(), names.clone(), &connections.scans).await;
        let cancellations = Cancellations::open(bucket.map_err(nats_error)?).await.map_err(nats_error)?;
        let in_use = templates.catalog();
        metrics.set_templates(in_use.entries().map(|(_, entry)| &*entry.template));
        let shares = Shares::new(config.concurrency.into());
        let watchdog = Watchdog {
            context: context.clone(),
            names: names.clone(),
            templates: templates.clone(),
            health: health.component("streams"),
            reconnects: reconnected,
        };
        let counted = templates.clone();
        let count = Arc::new(move || counted.count());
        let history = History::open(&context, names.clone(), &connections.scans).await.map_err(nats_error)?;
        let store = StatusStream::open(context, names, &connections.scans).await;
        Ok(Self {
            watchdog,
            queue_sampler: QueueSampler {
                jobs: jobs.clone(),
                templates: templates.clone(),
                metrics: metrics.clone(),
            },
            history,
            lookups: Lookups::new(jobs.clone(), submitters.clone(), shares.clone(), count),
            parts: IntakeParts {
                client,
                jobs_stream: jobs,
                provision,
                store: store.map_err(|e| nats_error(e.to_string()))?,
                poison,
                shares,
                submitters,
                cancellations,
                dead_letters,
                reconnects,
            },
            templates,
            catalog,
            folder,
            connections,
            queues: consumers,
        })
    }
}

/// The templates of the folder. Files that are not valid are reported later, if another template is.
fn read_templates(folder: &mut Folder, config: &Config) -> Result<Catalog, StartError> {
    let wrong = |error: TemplateError| StartError::new("DISPATCHER_TEMPLATES", error.to_string());
    let files = match folder.read() {
        Ok(_) => folder.documents(),
        Err(_) if config.template_objects.job_templates => BTreeMap::new(),
        Err(error) => return Err(wrong(error)),
    };
    let (catalog, refused) = Catalog::default().update(&files);
    for (_, entry) in catalog.entries() {
        for warning in &entry.template.warnings {
            let template = entry.template.name.as_ref();
            tracing::warn!(template, field = warning.field, "{}", warning.message);
        }
    }
    let is_empty = catalog.entries().next().is_none();
    match refused.into_iter().next() {
        Some((source, problems)) if is_empty && !config.template_objects.job_templates => {
            Err(wrong(TemplateError { file: source.to_string(), problems }))
        }
        _ => Ok(catalog),
    }
}

/// Checks each template's TTL against the `ack_wait` of its consumer, which an operator may have
/// created with a longer one than the shipped configuration.
fn check_ttls(templates: &ServedTemplates, queues: &BTreeMap<TemplateName, Queue>) -> Result<(), StartError> {
    for (name, queue) in queues {
        if let Some(template) = templates.get(name) {
            check_ttl(&template, queue.consumer.cached_info().config.ack_wait)?;
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
async fn streams_answer(context: &jetstream::Context, names: &NatsNames) -> bool {
    let answers = async |stream: &str| match context.get_stream(stream).await {
        Ok(_) => true,
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(error) => !is_unavailable(error.error_code()),
            _ => false,
        },
    };
    join_all(names.streams().map(answers)).await.into_iter().all(|ok| ok)
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
