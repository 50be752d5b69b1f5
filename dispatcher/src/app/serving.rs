//! Runs one intake for each template, and follows the catalog: a template is served within seconds
//! after its document appears.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use dispatcher_core::{
    contract::names::TemplateName, request::fair_concurrency::Flow, template::catalog::Entry,
};
use tokio::{sync::watch, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    app::{shared::Shared, start::IntakeParts},
    cli::StartError,
    intake::{
        breaker::TemplateBreaker,
        consumer::PullLoop,
        create::JobCreator,
        handler::{Handler, Version},
    },
    nats::{
        connection::{self, Connection},
        provision::Queue,
    },
    status::StatusHandle,
    telemetry::health::Component,
    templates::served::ServedTemplates,
};

/// How many connections receive requests, at most. Further templates share them.
const MAX_CONNECTIONS: usize = 32;
/// The pause before a template that cannot be served is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Runs the intakes.
pub(super) struct Serving {
    /// What every intake needs.
    pub(super) parts: IntakeParts,
    /// What all tasks share.
    pub(super) shared: Shared,
    /// Publishes `ADDED`.
    pub(super) status: StatusHandle,
    /// The templates in use.
    pub(super) templates: ServedTemplates,
    /// The queues that the start has provisioned.
    pub(super) provisioned: BTreeMap<TemplateName, Queue>,
    /// The templates that are served, and why others are not.
    pub(super) served: watch::Sender<Arc<Served>>,
    /// Names the templates that cannot be served as warnings.
    pub(super) health: Component,
}

/// The templates that are served, or the reasons why they are not. A template that is missing is
/// about to be served.
pub(super) type Served = BTreeMap<TemplateName, Result<(), String>>;

/// The intake of one template.
struct Intake {
    version: watch::Sender<Version>,
    stop: CancellationToken,
    connection: usize,
}

/// A connection that receives requests.
struct Receiver {
    connection: Connection,
    close: CancellationToken,
}

#[derive(Default)]
struct Running {
    intakes: BTreeMap<TemplateName, Intake>,
    receivers: BTreeMap<usize, Receiver>,
    /// Ends with the name of a task that ended by itself.
    tasks: JoinSet<Result<(), String>>,
}

impl Serving {
    /// Runs until `stop`, and then until the last intake has handled its requests.
    ///
    /// # Errors
    /// If the task of an intake ends by itself.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Result<(), String> {
        let mut running = Running::default();
        let mut templates = self.templates.clone();
        while !stop.is_cancelled() {
            let served = self.follow(&mut running, &stop).await;
            let is_incomplete = served.values().any(Result::is_err);
            self.report(served);
            tokio::select! {
                () = templates.changed() => {}
                () = sleep(RETRY), if is_incomplete => {}
                Some(ended) = running.tasks.join_next() => {
                    ended.map_err(|error| error.to_string())??;
                }
                () = stop.cancelled() => {}
            }
        }
        while let Some(ended) = running.tasks.join_next().await {
            ended.map_err(|error| error.to_string())??;
        }
        Ok(())
    }

    /// Starts the intakes of new templates, passes on changes, and stops those of removed templates.
    async fn follow(&mut self, running: &mut Running, stop: &CancellationToken) -> Served {
        let catalog = self.templates.catalog();
        let gone = |name: &TemplateName| catalog.get(name).is_none();
        let removed: Vec<_> = running.intakes.keys().filter(|name| gone(name)).cloned().collect();
        for name in removed {
            running.remove(&name);
        }
        let mut served = Served::new();
        for (name, entry) in catalog.entries() {
            let result = if let Some(intake) = running.intakes.get(name) {
                intake.version.send_replace(version(entry));
                Ok(())
            } else {
                let started = stop.run_until_cancelled(self.start(entry, running, stop)).await;
                started.unwrap_or(Ok(())).map_err(|error| error.to_string())
            };
            served.insert(name.clone(), result);
        }
        served
    }

    fn report(&self, served: Served) {
        let unserved = served.iter().filter_map(|(name, result)| Some((name, result.as_ref().err()?)));
        let warnings = unserved.map(|(name, error)| format!("template {name} is not served: {error}"));
        self.health.warnings(warnings.collect());
        self.health.ready();
        if **self.served.borrow() != served {
            self.served.send_replace(Arc::new(served));
        }
    }

    async fn start(
        &mut self,
        entry: &Entry,
        running: &mut Running,
        stop: &CancellationToken,
    ) -> Result<(), StartError> {
        let name = entry.template.name.clone();
        let queue = if let Some(queue) = self.provisioned.remove(&name) {
            queue
        } else {
            let context = self.parts.jobs_stream.context();
            self.parts.provision.template(context, &name).await?
        };
        let (number, connection) = self.receiver(&name, running, stop).await?;
        let (version, versions) = watch::channel(version(entry));
        let stop = stop.child_token();
        let pull = self.pull_loop(queue, versions, &name, connection);
        let (task, stopped) = (format!("task `intake {name}` ended"), stop.clone());
        running.tasks.spawn(async move {
            let health = pull.health.clone();
            pull.run(stopped.clone()).await;
            health.remove();
            if stopped.is_cancelled() { Ok(()) } else { Err(task) }
        });
        running.intakes.insert(name, Intake { version, stop, connection: number });
        Ok(())
    }

    /// A connection for one more template, with its number: a new one, or the one with the fewest
    /// templates.
    async fn receiver(
        &self,
        template: &TemplateName,
        running: &mut Running,
        stop: &CancellationToken,
    ) -> Result<(usize, Connection), StartError> {
        if running.receivers.len() >= MAX_CONNECTIONS
            && let Some((number, receiver)) =
                running.receivers.iter().min_by_key(|(number, _)| running.templates_on(**number))
        {
            return Ok((*number, receiver.connection.clone()));
        }
        let number = running.receivers.keys().next_back().map_or(0, |last| last + 1);
        let role = format!("intake {template}");
        let (health, changes) = (self.shared.health.component(format!("nats {role}")), watch::Sender::new(0));
        let (settings, client) = (&self.shared.config.nats, format!("dispatcher {role}"));
        let opened = connection::open(settings, &client, health.clone(), &self.shared.metrics, changes).await;
        let (connection, keeper) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                health.remove();
                return Err(error);
            }
        };
        // The connection outlives its intake, which handles its last requests after `stop`.
        let close = CancellationToken::new();
        let (closed, stopped) = (close.clone(), stop.clone());
        running.tasks.spawn(async move {
            let kept = keeper.run();
            tokio::select! {
                () = kept => return Err(format!("task `{client}` ended")),
                () = closed.cancelled() => {}
                () = stopped.cancelled() => {}
            }
            health.remove();
            Ok(())
        });
        running.receivers.insert(number, Receiver { connection: connection.clone(), close });
        Ok((number, connection))
    }

    fn pull_loop(
        &self,
        Queue { consumer, last_sequence }: Queue,
        version: watch::Receiver<Version>,
        name: &TemplateName,
        intake: Connection,
    ) -> PullLoop {
        let (parts, shared) = (&self.parts, &self.shared);
        let health = shared.health.component(format!("intake {name}"));
        let breaker = TemplateBreaker::new(
            name.clone(),
            parts.client.clone(),
            health.clone(),
            shared.config.concurrency.into(),
            consumer.cached_info().config.max_ack_pending,
        );
        let creator = JobCreator {
            client: parts.client.clone(),
            store: parts.store.clone(),
            status: self.status.clone(),
            metrics: shared.metrics.clone(),
        };
        let handler = Handler {
            name: name.clone(),
            version,
            jobs: parts.jobs_stream.clone(),
            maybe_seen: last_sequence,
            creator,
            breaker,
            cancellations: parts.cancellations.clone(),
            dead_letters: parts.dead_letters.clone(),
            submitters: parts.submitters.clone(),
            status: self.status.clone(),
            metrics: shared.metrics.clone(),
            spans: shared.spans.clone(),
        };
        PullLoop {
            intake,
            api_prefix: shared.config.nats.api_prefix().into(),
            consumer,
            poison: parts.poison.clone(),
            may_create: !shared.config.no_provision,
            handler: Arc::new(handler),
            concurrency: shared.config.concurrency.into(),
            share: parts.shares.of(Flow::Requests(name.clone())),
            health,
            reconnects: parts.reconnects.clone(),
            limiter: shared.limiter.clone(),
        }
    }
}

impl Running {
    fn templates_on(&self, connection: usize) -> usize {
        self.intakes.values().filter(|intake| intake.connection == connection).count()
    }

    fn remove(&mut self, name: &TemplateName) {
        let Some(intake) = self.intakes.remove(name) else { return };
        intake.stop.cancel();
        if self.templates_on(intake.connection) == 0
            && let Some(receiver) = self.receivers.remove(&intake.connection)
        {
            receiver.close.cancel();
        }
    }
}

fn version(entry: &Entry) -> Version {
    Version { template: entry.template.clone(), deleting: entry.deleting }
}
