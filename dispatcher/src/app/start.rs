//! Before the work: every setting is checked, every connection made, every stream seen to. What fails here is one line
//! that names the setting.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_nats::Client;
use tokio::sync::watch;

use crate::{
    cancellation::Cancellations,
    cli::{Config, StartError},
    intake::{dead_letters::DeadLetters, poison::PoisonHandler},
    kube::JobClient,
    micro::{history::History, queue::Queue},
    nats::{
        cancellation_bucket::CancellationBucket,
        connect,
        provision::{Provision, Provisioned},
        watchdog::Watchdog,
    },
    status::store::Store,
    telemetry::{
        health::Health,
        metrics::{Metrics, queue::QueueSampler},
    },
    templates,
};
use dispatcher_core::{
    contract::names::{TemplateName, is_label},
    template::Template,
};

/// What the service works with.
pub(super) struct Prepared {
    /// The templates, by template.
    pub templates: Arc<HashMap<TemplateName, Arc<Template>>>,
    /// The Jobs of the namespace.
    pub jobs: JobClient,
    /// The connection to NATS.
    pub client: Client,
    /// Changes when NATS is connected again.
    pub reconnects: watch::Receiver<u64>,
    /// Looks whether the streams are there.
    pub watchdog: Watchdog,
    /// What was said.
    pub store: Store,
    /// Looks after requests that no client can read.
    pub salvage: PoisonHandler,
    /// What the streams hold, for whoever asks.
    pub history: History,
    /// Requests that are still queued, for whoever asks.
    pub queue: Queue,
    /// What is to be cancelled.
    pub cancels: Cancellations,
    /// Rejected requests.
    pub dead_letters: DeadLetters,
    /// Looks at the queues.
    pub queue_looks: QueueSampler,
    /// The consumers.
    pub provisioned: Provisioned,
}

impl Prepared {
    /// Checks the settings, connects, and sees to the streams. Without a client of a cluster the settings say how to reach
    /// one.
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
        let jobs = connect_kubernetes(cluster, config).await?;
        let namespace_uid = namespace_uid(&jobs).await?;
        let (reconnected, reconnects) = watch::channel(0);
        let client =
            connect::connect(&config.nats, health.component("nats"), reconnected.clone(), metrics.clone())
                .await?;
        let context = connect::jetstream(client.clone());
        let names: Vec<TemplateName> = templates.iter().map(|t| t.name.clone()).collect();
        let provision = Provision { verify_only: config.no_provision, adopt: config.adopt, namespace_uid };
        let provisioned = provision.run(&context, &names).await?;
        for (name, consumer) in &provisioned.consumers {
            // An operator's consumer may wait longer than the shipped one.
            for template in templates.iter().filter(|template| template.name == *name) {
                check_ttl(template, consumer.cached_info().config.ack_wait)?;
            }
        }
        let in_nats = |message: String| StartError::new("NATS_URL", message);
        let dead_letters = DeadLetters::open(context.clone(), metrics.clone()).await.map_err(in_nats)?;
        let salvage = PoisonHandler {
            jobs: provisioned.jobs.clone(),
            consumers: provisioned.consumers.clone(),
            dead_letters: dead_letters.clone(),
        };
        salvage.before_pulling().await;
        let bucket = CancellationBucket::open(context.clone()).await.map_err(in_nats)?;
        let cancels = Cancellations::open(bucket).await.map_err(in_nats)?;
        let templates = Arc::new(templates.into_iter().map(|t| (t.name.clone(), t)).collect());
        metrics.serves(&templates);
        Ok(Self {
            templates,
            jobs,
            client,
            reconnects,
            watchdog: Watchdog {
                context: context.clone(),
                health: health.component("streams"),
                reconnects: reconnected,
            },
            queue_looks: QueueSampler {
                jobs: provisioned.jobs.clone(),
                consumers: provisioned.consumers.clone(),
                metrics: metrics.clone(),
            },
            cancels,
            history: History::open(&context).await.map_err(in_nats)?,
            queue: Queue { jobs: provisioned.jobs.clone() },
            store: Store::open(context).await.map_err(|e| in_nats(e.to_string()))?,
            dead_letters,
            salvage,
            provisioned,
        })
    }
}

fn load_templates(config: &Config) -> Result<Vec<Arc<Template>>, StartError> {
    templates::load(&config.templates.folder, &config.limits.policy())
        .map_err(|error| StartError::new("DISPATCHER_TEMPLATES", error.to_string()))
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
    for (setting, name, of) in [
        ("DISPATCHER_NAMESPACE", &config.namespace, "a namespace"),
        ("DISPATCHER_LEASE_NAMESPACE", lease_namespace, "a namespace"),
        ("DISPATCHER_LEASE_NAME", &config.lease.name, "a Lease"),
    ] {
        if !is_label(name) {
            return Err(StartError::new(setting, format!("{name:?} is no name of {of}")));
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
        Some(404) => {
            StartError::new("DISPATCHER_NAMESPACE", format!("there is no namespace {:?}", jobs.namespace()))
        }
        Some(401) => {
            StartError::new("KUBECONFIG", format!("the API server does not know who this is: {error}"))
        }
        Some(403) => StartError::new("DISPATCHER_NAMESPACE", format!("a right is missing: {error}")),
        _ => StartError::new("KUBECONFIG", format!("the API server cannot be reached: {error}")),
    })
}
