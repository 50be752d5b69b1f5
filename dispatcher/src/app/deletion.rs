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
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use crate::{
    app::objects::ObjectClient,
    leadership::Leadership,
    nats::{jobs_stream::JobsStream, provision::Provision},
    telemetry::health::Component,
    templates::served::ServedTemplates,
    watch::job_templates::JobTemplates,
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
    /// The objects, if they are used, and their last state.
    pub(super) objects: Option<(ObjectClient, watch::Receiver<JobTemplates>)>,
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
            for name in self.unused_objects() {
                if let Err(error) = self.release_unused(&name).await {
                    problems.push(format!("deletion of JobTemplate {name}: {error}"));
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
            return self.provision.is_removed(&self.jobs, name).await;
        }
        if !self.provision.remove(&self.jobs, name).await? {
            return Ok(false);
        }
        if let (Source::Object(object), Some((client, _))) = (&entry.source, &self.objects) {
            client.release(object).await?;
        }
        Ok(true)
    }

    /// The deleted objects that wait for their finalizer although no version of them is in use: the
    /// last one was not valid when this process started.
    fn unused_objects(&self) -> Vec<String> {
        let Some((_, observed)) = &self.objects else { return Vec::new() };
        let (catalog, observed) = (self.templates.catalog(), observed.borrow().clone());
        let objects = observed.iter().flat_map(|objects| objects.iter());
        let is_unused = |name: &str| {
            let source = Source::Object(name.to_owned());
            !catalog.entries().any(|(_, entry)| entry.source == source)
        };
        let waits =
            objects.filter(|(name, object)| object.document.deleting && object.is_held && is_unused(name));
        waits.map(|(name, _)| name.clone()).collect()
    }

    /// Removes the finalizer of an unused object, if its queue is empty.
    async fn release_unused(&self, name: &str) -> Result<(), String> {
        let Some((client, _)) = self.objects.as_ref().filter(|_| self.leadership.is_ours()) else {
            return Ok(());
        };
        // A file may define the template; then the queue is in use.
        if let Ok(template) = TemplateName::try_from(name)
            && self.templates.entry(&template).is_none()
            && !self.provision.remove(&self.jobs, &template).await?
        {
            return Err("requests are queued, and no version is valid: correct the template".to_owned());
        }
        client.release(name).await
    }
}
