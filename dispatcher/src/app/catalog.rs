//! Keeps the catalog of templates up to date with the files and the `JobTemplate` objects.

use std::{sync::Arc, time::Duration};

use dispatcher_core::{
    contract::names::TemplateName,
    template::{
        Template,
        catalog::{Catalog, Refused},
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
        let mut folder_problem: Option<String> = None;
        let (mut is_due, mut removed) = (true, None);
        loop {
            let problem = match self.folder.read() {
                Ok(is_changed) => {
                    is_due |= is_changed;
                    None
                }
                // A folder is empty while a volume is replaced: the files of before count.
                Err(error) => self.objects.is_none().then(|| error.to_string()),
            };
            is_due |= problem != folder_problem;
            folder_problem = problem;
            if is_due {
                self.update(removed.take().as_ref(), folder_problem.as_deref());
            }
            let changed = async {
                if let Some(objects) = &mut self.objects
                    && objects.changed().await.is_ok()
                {
                    return;
                }
                std::future::pending::<()>().await;
            };
            is_due = tokio::select! {
                () = sleep(INTERVAL) => false,
                () = changed => true,
                Some(name) = self.deleted.recv() => {
                    removed = Some(name);
                    true
                }
            };
        }
    }

    fn update(&self, removed: Option<&TemplateName>, folder_problem: Option<&str>) {
        let mut all = self.folder.documents();
        if let Some(objects) = &self.objects {
            let objects = objects.borrow();
            if objects.is_none() {
                // Without the list, every object would look deleted.
                return self.health.not_ready("the JobTemplates are not listed yet");
            }
            all.extend(documents(&objects));
        }
        let before = self.catalog.borrow().clone();
        let (next, refused) = without(&before, removed).update(&all);
        self.report(&before, &next, &refused, folder_problem);
        self.metrics.set_templates(next.entries().map(|(_, entry)| &*entry.template));
        if is_changed(&before, &next) {
            self.catalog.send_replace(Arc::new(next));
        }
        if **self.refused.borrow() != refused {
            self.refused.send_replace(Arc::new(refused));
        }
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

fn without(catalog: &Catalog, removed: Option<&TemplateName>) -> Catalog {
    removed.map_or_else(|| catalog.clone(), |name| catalog.without(name))
}

fn is_changed(before: &Catalog, next: &Catalog) -> bool {
    let of = |catalog: &Catalog| -> Vec<(TemplateName, bool, *const Template)> {
        let entries = catalog.entries();
        entries.map(|(name, entry)| (name.clone(), entry.deleting, Arc::as_ptr(&entry.template))).collect()
    };
    of(before) != of(next)
}
