//! The set of templates in use, which changes while the service runs.

use std::sync::Arc;

use dispatcher_core::{
    contract::names::TemplateName,
    template::{
        Template,
        catalog::{Catalog, Entry},
    },
};
use tokio::sync::watch;

/// Reads the templates in use. Clones share them.
#[derive(Clone)]
pub(crate) struct ServedTemplates(watch::Receiver<Arc<Catalog>>);

impl ServedTemplates {
    /// The templates of a catalog, and the sender that changes it.
    pub(crate) fn of(catalog: Catalog) -> (watch::Sender<Arc<Catalog>>, Self) {
        let (sender, receiver) = watch::channel(Arc::new(catalog));
        (sender, Self(receiver))
    }

    /// All templates, with their sources.
    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        self.0.borrow().clone()
    }

    /// The version of a template that is in use, or was the last one.
    pub(crate) fn get(&self, name: &TemplateName) -> Option<Arc<Template>> {
        self.0.borrow().template(name).cloned()
    }

    /// A template with its source.
    pub(crate) fn entry(&self, name: &TemplateName) -> Option<Entry> {
        self.0.borrow().get(name).cloned()
    }

    /// The versions in use, sorted by name.
    pub(crate) fn in_use(&self) -> Vec<Arc<Template>> {
        self.0.borrow().entries().map(|(_, entry)| entry.template.clone()).collect()
    }

    /// The names, sorted.
    pub(crate) fn names(&self) -> Vec<TemplateName> {
        self.0.borrow().entries().map(|(name, _)| name.clone()).collect()
    }

    /// The number of templates.
    pub(crate) fn count(&self) -> usize {
        self.0.borrow().entries().count()
    }

    /// Waits for the next change. Never returns once the catalog is dropped.
    pub(crate) async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
