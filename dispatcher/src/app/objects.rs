//! Reports to the `JobTemplate` objects: their status, and the finalizer while they are in use. Only
//! the leader writes.

use std::{sync::Arc, time::Duration};

use dispatcher_core::{
    contract::names::TemplateName,
    template::{
        FINALIZER,
        catalog::{Refused, Source},
        object_status::ObjectState,
    },
};
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::{sync::watch, time::sleep};

use crate::{
    app::serving::Served,
    clock::now,
    concurrency::ConcurrencyLimiter,
    kube::call,
    leadership::Leadership,
    telemetry::{health::Component, metrics::Metrics},
    templates::served::ServedTemplates,
    watch::job_templates::{JobTemplateObject, JobTemplates},
};

/// The pause between two rounds of reports.
const INTERVAL: Duration = Duration::from_secs(5);
/// How many times a patch is made again that another client's change has overtaken.
const MAX_CONFLICTS: usize = 5;

/// Changes the objects.
#[derive(Clone)]
pub(super) struct ObjectClient {
    pub(super) api: Api<DynamicObject>,
}

impl ObjectClient {
    /// Removes the finalizer.
    ///
    /// # Errors
    /// If the API server refuses it or does not answer.
    pub(super) async fn release(&self, name: &str) -> Result<(), String> {
        self.change_finalizers(name, |finalizers| finalizers.retain(|other| other != FINALIZER)).await
    }

    async fn hold(&self, name: &str) -> Result<(), String> {
        self.change_finalizers(name, |finalizers| {
            if !finalizers.iter().any(|other| other == FINALIZER) {
                finalizers.push(FINALIZER.to_owned());
            }
        })
        .await
    }

    async fn change_finalizers(&self, name: &str, change: impl Fn(&mut Vec<String>)) -> Result<(), String> {
        for _ in 0..MAX_CONFLICTS {
            let Some(found) = call(self.api.get_opt(name)).await.map_err(|e| e.to_string())? else {
                return Ok(());
            };
            let before = found.metadata.finalizers.unwrap_or_default();
            let mut after = before.clone();
            change(&mut after);
            if after == before {
                return Ok(());
            }
            let version = found.metadata.resource_version;
            let patch = json!({"metadata": {"finalizers": after, "resourceVersion": version}});
            match call(self.api.patch(name, &PatchParams::default(), &Patch::Merge(&patch))).await {
                Ok(_) => return Ok(()),
                Err(error) if matches!(error.code(), Some(404)) => return Ok(()),
                Err(error) if matches!(error.code(), Some(409)) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Err(format!("JobTemplate {name} changed {MAX_CONFLICTS} times meanwhile"))
    }
}

/// Reports to the objects.
pub(super) struct ObjectReporter {
    pub(super) client: ObjectClient,
    pub(super) objects: watch::Receiver<JobTemplates>,
    pub(super) templates: ServedTemplates,
    pub(super) refused: watch::Receiver<Arc<Refused>>,
    pub(super) served: watch::Receiver<Arc<Served>>,
    /// Has the last sample of each queue.
    pub(super) metrics: Metrics,
    pub(super) limiter: ConcurrencyLimiter,
    pub(super) leadership: Leadership,
    /// Ready unless the API server refuses the reports.
    pub(super) health: Component,
}

impl ObjectReporter {
    /// Reports until the caller drops the future.
    pub(super) async fn run(mut self) {
        loop {
            let objects = self.objects.borrow_and_update().clone();
            let mut problems = Vec::new();
            if self.leadership.is_ours() {
                for (name, object) in objects.iter().flat_map(|objects| objects.iter()) {
                    if let Err(error) = self.report(name, object).await {
                        problems.push(format!("JobTemplate {name}: {error}"));
                    }
                }
            }
            // A status that cannot be written harms no request.
            self.health.warnings(problems);
            self.health.ready();
            tokio::select! {
                () = sleep(INTERVAL) => {}
                () = self.templates.changed() => {}
                Ok(()) = self.refused.changed() => {}
                Ok(()) = self.served.changed() => {}
            }
        }
    }

    async fn report(&self, name: &str, object: &JobTemplateObject) -> Result<(), String> {
        let state = self.state(name, object);
        if state.hash.is_some() && !object.is_held && !object.document.deleting {
            self.client.hold(name).await?;
        }
        let status = state.status(&object.status, &now());
        if contains(&object.status, &status) {
            return Ok(());
        }
        let patch = Patch::Merge(json!({ "status": status }));
        match call(self.client.api.patch_status(name, &PatchParams::default(), &patch)).await {
            Ok(_) => Ok(()),
            // It was deleted meanwhile.
            Err(error) if error.code() == Some(404) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn state(&self, name: &str, object: &JobTemplateObject) -> ObjectState {
        let source = Source::Object(name.to_owned());
        let catalog = self.templates.catalog();
        let template = TemplateName::try_from(name).ok();
        let entry = template.as_ref().and_then(|name| catalog.get(name)).filter(|it| it.source == source);
        let problems = self.refused.borrow().get(&source).cloned().unwrap_or_default();
        let queue = entry.and_then(|entry| self.metrics.queue(&entry.template.name));
        ObjectState {
            generation: object.generation,
            problems,
            unserved: template.as_ref().and_then(|name| self.unserved(name)),
            deleting: object.document.deleting,
            hash: entry.map(|entry| entry.template.hash.clone()),
            queued: queue.map(|queue| queue.pending.saturating_add(queue.ack_pending)),
            active: template.as_ref().map_or(0, |name| self.active(name)),
            limit: entry.and_then(|entry| entry.template.max_active).map(std::num::NonZeroU32::get),
        }
    }
}

impl ObjectReporter {
    fn unserved(&self, template: &TemplateName) -> Option<String> {
        match self.served.borrow().get(template) {
            Some(Ok(())) => None,
            Some(Err(error)) => Some(error.clone()),
            None => Some("the consumer of the template is being created".to_owned()),
        }
    }

    fn active(&self, template: &TemplateName) -> usize {
        let counts = self.limiter.counts().unwrap_or_default();
        counts.into_iter().find(|(name, _)| name == template).map_or(0, |(_, count)| count)
    }
}

/// Whether a merge patch of `status` would change nothing.
fn contains(found: &Value, status: &Value) -> bool {
    let fields = status.as_object().into_iter().flatten();
    fields.into_iter().all(|(name, value)| found.get(name).unwrap_or(&Value::Null) == value)
}
