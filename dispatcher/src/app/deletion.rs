//! Completes the deletion of templates: when the queue of a deleted template is empty, the leader
//! removes its subject and its consumer, and then the finalizer of its object.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use dispatcher_core::{
    contract::names::TemplateName,
    template::catalog::{Entry, Source},
};
use tokio::{sync::mpsc, time::sleep};

use crate::{
    app::objects::ObjectClient,
    leadership::Leadership,
    nats::{jobs_stream::JobsStream, provision::Provision},
    telemetry::health::Component,
    templates::served::ServedTemplates,
};

/// The pause between two rounds.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long a file is gone before its queue is removed. Replicas see a changed `ConfigMap` at
/// different times: up to the kubelet's sync period and the lifetime of its cache (one minute each).
const FILE_GRACE: Duration = Duration::from_secs(150);

/// Completes deletions.
pub(super) struct Deletion {
    pub(super) provision: Provision,
    pub(super) jobs: JobsStream,
    pub(super) templates: ServedTemplates,
    pub(super) leadership: Leadership,
    /// The objects, if they are used.
    pub(super) objects: Option<ObjectClient>,
    /// Receives each template whose deletion is complete.
    pub(super) deleted: mpsc::Sender<TemplateName>,
    pub(super) health: Component,
}

impl Deletion {
    /// Runs until the caller drops the future.
    pub(super) async fn run(self) {
        let mut since: HashMap<TemplateName, Instant> = HashMap::new();
        loop {
            let catalog = self.templates.catalog();
            since.retain(|name, _| catalog.get(name).is_some_and(|entry| entry.deleting));
            let mut problems = Vec::new();
            for (name, entry) in catalog.entries().filter(|(_, entry)| entry.deleting) {
                let began = *since.entry(name.clone()).or_insert_with(Instant::now);
                match self.complete(name, entry, began).await {
                    Ok(true) => drop(self.deleted.send(name.clone()).await),
                    Ok(false) => {}
                    Err(error) => problems.push(format!("deletion of template {name}: {error}")),
                }
            }
            self.health.warnings(problems);
            self.health.ready();
            sleep(INTERVAL).await;
        }
    }

    /// Whether the deletion of the template is complete.
    async fn complete(&self, name: &TemplateName, entry: &Entry, began: Instant) -> Result<bool, String> {
        let waits = matches!(entry.source, Source::File(_)) && began.elapsed() < FILE_GRACE;
        if waits || !self.leadership.is_ours() {
            // The leader has removed the consumer.
            return Ok(self.jobs.queue(name).await?.is_none());
        }
        if !self.provision.remove(&self.jobs, name).await? {
            return Ok(false);
        }
        if let (Source::Object(object), Some(objects)) = (&entry.source, &self.objects) {
            objects.release(object).await?;
        }
        Ok(true)
    }
}
