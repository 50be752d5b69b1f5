//! The start: checks every setting, connects, and provisions the streams. Each error is one line
//! that names the setting.

use std::{collections::HashMap, sync::Arc, time::Duration};

use dispatcher_core::{
    contract::{
        names::{TemplateName, is_label},
        submitter::Submitters,
    },
    template::Template,
};
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
        provision::{Provision, Provisioned},
        status_stream::StatusStream,
        watchdog::Watchdog,
    },
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
        let connections = Connections::open(&config.nats, health, metrics, reconnected.clone()).await?;
        let context = connections.jetstream();
        let names: Vec<TemplateName> = templates.iter().map(|t| t.name.clone()).collect();
        let provision = Provision { verify_only: config.no_provision, adopt: config.adopt, namespace_uid };
        let provisioned = provision.run(&context, &names).await?;
        check_ttls(&templates, &provisioned)?;

        let nats_error = |message: String| StartError::new("NATS_URL", message);
        let dead_letters = DeadLetters::open(context.clone(), metrics.clone()).await.map_err(nats_error)?;
        let poison = PoisonHandler { jobs: provisioned.jobs.clone(), dead_letters: dead_letters.clone() };
        let bucket = CancellationBucket::open(context.clone()).await.map_err(nats_error)?;
        let cancellations = Cancellations::open(bucket).await.map_err(nats_error)?;
        let templates = Arc::new(templates.into_iter().map(|t| (t.name.clone(), t)).collect());
        metrics.set_templates(&templates);
        let health = health.component("streams");
        Ok(Self {
            templates,
            jobs,
            connections,
            reconnects,
            watchdog: Watchdog { context: context.clone(), health, reconnects: reconnected },
            queue_sampler: QueueSampler {
                jobs: provisioned.jobs.clone(),
                consumers: provisioned.consumers.clone(),
                metrics: metrics.clone(),
            },
            cancellations,
            history: History::open(&context).await.map_err(nats_error)?,
            lookups: Lookups::new(provisioned.jobs.clone(), submitters.clone(), names.len()),
            submitters,
            store: StatusStream::open(context).await.map_err(|e| nats_error(e.to_string()))?,
            dead_letters,
            poison,
            provisioned,
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
    let lease_namespace = config.lease.namespace.as_ref().unwrap_or(&config.namespace);
    for (setting, name, object) in [
        ("DISPATCHER_NAMESPACE", &config.namespace, "namespace"),
        ("DISPATCHER_LEASE_NAMESPACE", lease_namespace, "namespace"),
        ("DISPATCHER_LEASE_NAME", &config.lease.name, "Lease"),
    ] {
        if !is_label(name) {
            let message = format!(
                "{name:?} is not a valid {object} name (allowed: lower-case letters, digits and `-`)"
            );
            return Err(StartError::new(setting, message));
        }
    }
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
        _ => StartError::new("KUBECONFIG", format!("the API server cannot be reached: {error}")),
    })
}
