//! Watches the `JobTemplate` objects of the namespace.

use std::{collections::BTreeMap, sync::Arc};

use dispatcher_core::template::{
    API_VERSION, FINALIZER, KIND, Policy, Template,
    catalog::{Document, Source},
};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject},
};
use serde_json::Value;
use tokio::sync::watch;

use crate::{
    status::Stopped,
    telemetry::{
        health::Component,
        metrics::{Metrics, Watched},
    },
    templates::within_limits,
    watch::{
        list_watch::{Event, Selection},
        watch_loop::{EventHandler, RelistTrigger, WatchLoop},
    },
};

/// A `JobTemplate`, as it was last observed.
#[derive(Debug, Clone)]
pub(crate) struct JobTemplateObject {
    /// The template.
    pub document: Document,
    /// The number of changes of the spec.
    pub generation: i64,
    /// Whether it has the finalizer of the dispatcher.
    pub is_held: bool,
    /// The published status.
    pub status: Value,
}

/// The objects by name; `None` until they are listed.
pub(crate) type JobTemplates = Option<Arc<BTreeMap<String, JobTemplateObject>>>;

/// The documents of the objects.
pub(crate) fn documents(objects: &JobTemplates) -> BTreeMap<Source, Document> {
    let objects = objects.iter().flat_map(|objects| objects.iter());
    objects.map(|(name, object)| (Source::Object(name.clone()), object.document.clone())).collect()
}

/// The API of the `JobTemplate` objects of a namespace.
pub(crate) fn api(client: Client, namespace: &str) -> Api<DynamicObject> {
    let (group, version) = API_VERSION.split_once('/').unwrap_or_default();
    let resource = ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: API_VERSION.to_owned(),
        kind: KIND.to_owned(),
        plural: "jobtemplates".to_owned(),
    };
    Api::namespaced_with(client, namespace, &resource)
}

/// Watches the objects.
pub(crate) struct JobTemplateWatch {
    /// The API of the objects.
    pub api: Api<DynamicObject>,
    /// The operator's limits.
    pub policy: Arc<Policy>,
    /// Receives the objects after each change.
    pub objects: watch::Sender<JobTemplates>,
    /// Ready while the watch works.
    pub health: Component,
    /// Counts lists and errors.
    pub metrics: Metrics,
}

impl JobTemplateWatch {
    /// Watches until the service stops; the caller drops the future to stop.
    pub(crate) async fn run(self) {
        let watch_loop = WatchLoop {
            api: self.api.clone(),
            name: "JobTemplates".to_owned(),
            selection: Selection { labels: "", list_fields: "", watch_fields: "" },
            health: self.health.clone(),
            metrics: (self.metrics.clone(), Watched::JobTemplates),
            relist: RelistTrigger { changes: watch::channel(0).1, leadership: None },
        };
        let handler = ObjectHandler {
            policy: self.policy,
            objects: self.objects,
            known: BTreeMap::new(),
            listed: None,
        };
        watch_loop.run(handler).await;
    }
}

struct ObjectHandler {
    policy: Arc<Policy>,
    objects: watch::Sender<JobTemplates>,
    known: BTreeMap<String, JobTemplateObject>,
    /// The objects of a list that is not complete.
    listed: Option<BTreeMap<String, JobTemplateObject>>,
}

impl ObjectHandler {
    /// Parses an object, unless only its metadata or status has changed.
    fn observe(&self, object: &DynamicObject) -> JobTemplateObject {
        let name = object.name_any();
        let generation = object.metadata.generation.unwrap_or_default();
        let known = self.known.get(&name).filter(|known| known.generation == generation && generation > 0);
        let template = if let Some(known) = known {
            known.document.template.clone()
        } else {
            let spec = object.data.get("spec").unwrap_or(&Value::Null);
            within_limits(Template::of_object(&name, spec), &self.policy)
        };
        JobTemplateObject {
            document: Document { template, deleting: object.metadata.deletion_timestamp.is_some() },
            generation,
            is_held: object.finalizers().iter().any(|finalizer| finalizer == FINALIZER),
            status: object.data.get("status").cloned().unwrap_or_default(),
        }
    }
}

impl EventHandler<DynamicObject> for ObjectHandler {
    async fn handle(&mut self, event: Event<DynamicObject>) -> Result<(), Stopped> {
        match event {
            Event::Init => self.listed = Some(BTreeMap::new()),
            Event::InitApply(object) => {
                let observed = self.observe(&object);
                if let Some(listed) = &mut self.listed {
                    listed.insert(object.name_any(), observed);
                }
                return Ok(());
            }
            Event::InitDone => self.known = self.listed.take().unwrap_or_default(),
            Event::Apply(object) => {
                let observed = self.observe(&object);
                self.known.insert(object.name_any(), observed);
            }
            Event::Delete(object) => drop(self.known.remove(&object.name_any())),
        }
        if self.listed.is_none() {
            self.objects.send_replace(Some(Arc::new(self.known.clone())));
        }
        Ok(())
    }
}
