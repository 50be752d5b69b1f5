//! Keeps the catalog of templates up to date with the files and the `JobTemplate` objects.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use dispatcher_core::{
    contract::names::TemplateName,
    template::{
        Template,
        catalog::{Catalog, Document, Refused, Source},
    },
};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use crate::{
    telemetry::{health::Component, metrics::Metrics},
    templates::folder::Folder,
    watch::job_templates::{JobTemplates, documents},
};

/// The pause between two reads of the folder.
const INTERVAL: Duration = Duration::from_secs(2);

/// Keeps the catalog up to date.
pub(super) struct CatalogKeeper {
    /// The template files.
    pub(super) folder: Folder,
    /// The `JobTemplate` objects; `None` if they are not used.
    pub(super) objects: Option<watch::Receiver<JobTemplates>>,
    /// Templates whose deletion is complete.
    pub(super) deleted: mpsc::Receiver<TemplateName>,
    /// The templates in use.
    pub(super) catalog: watch::Sender<Arc<Catalog>>,
    /// The documents that are not in use.
    pub(super) refused: watch::Sender<Arc<Refused>>,
    /// Ready once all sources are read. Names the refused documents as warnings.
    pub(super) health: Component,
    /// Has a series for each template.
    pub(super) metrics: Metrics,
}

impl CatalogKeeper {
    /// Follows the sources until the caller drops the future.
    pub(super) async fn run(mut self) {
        let mut files = BTreeMap::new();
        let mut folder_problem: Option<String>;
        let mut removed = BTreeSet::new();
        loop {
            let read = self.folder.read();
            match read {
                Ok(found) => (files, folder_problem) = (found, None),
                // A folder is empty while a volume is replaced: the files of before count.
                Err(error) => folder_problem = self.objects.is_none().then(|| error.to_string()),
            }
            self.update(&files, &removed, folder_problem.as_deref());
            removed.clear();
            let changed = async {
                if let Some(objects) = &mut self.objects
                    && objects.changed().await.is_ok()
                {
                    return;
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = sleep(INTERVAL) => {}
                () = changed => {}
                Some(name) = self.deleted.recv() => drop(removed.insert(name)),
            }
        }
    }

    fn update(
        &self,
        files: &BTreeMap<Source, Document>,
        removed: &BTreeSet<TemplateName>,
        folder_problem: Option<&str>,
    ) {
        let mut all = files.clone();
        if let Some(objects) = &self.objects {
            let objects = objects.borrow();
            if objects.is_none() {
                // Without the list, every object would look deleted.
                return self.health.not_ready("the JobTemplates are not listed yet");
            }
            all.extend(documents(&objects));
        }
        let before = self.catalog.borrow().clone();
        let (next, refused) = before.without(removed).update(&all);
        self.report(&before, &next, &refused, folder_problem);
        self.metrics.set_templates(next.entries().map(|(_, entry)| &*entry.template));
        if is_changed(&before, &next) {
            self.catalog.send_replace(Arc::new(next));
        }
        self.refused.send_if_modified(|current| {
            let changed = **current != refused;
            *current = Arc::new(refused);
            changed
        });
        self.health.ready();
    }

    fn report(&self, before: &Catalog, next: &Catalog, refused: &Refused, folder: Option<&str>) {
        for (name, entry) in next.entries() {
            let (template, hash, source) = (name.as_ref(), &entry.template.hash, entry.source.to_string());
            match before.get(name) {
                None => tracing::info!(template, hash, source, "template added"),
                Some(old) if old.deleting != entry.deleting => {
                    tracing::info!(template, deleting = entry.deleting, source, "template changed");
                }
                Some(old) if old.template.hash != *hash => {
                    tracing::info!(template, hash, source, "template changed");
                }
                Some(_) => {}
            }
        }
        for (name, _) in before.entries().filter(|(name, _)| next.get(name).is_none()) {
            tracing::info!(template = name.as_ref(), "template removed");
        }
        let refused = refused.iter().map(|(source, problems)| {
            let first = problems.first().map(ToString::to_string).unwrap_or_default();
            format!("{source} is not in use: {first}")
        });
        self.health.warnings(refused.chain(folder.map(str::to_owned)).collect());
    }
}

fn is_changed(before: &Catalog, next: &Catalog) -> bool {
    let of = |catalog: &Catalog| -> Vec<(TemplateName, bool, *const Template)> {
        let entries = catalog.entries();
        entries.map(|(name, entry)| (name.clone(), entry.deleting, Arc::as_ptr(&entry.template))).collect()
    };
    of(before) != of(next)
}
