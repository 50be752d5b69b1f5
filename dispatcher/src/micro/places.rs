//! Bounds what callers use together: each holds a place, and templates share the places fairly.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dispatcher_core::{contract::names::TemplateName, request::fair_share::FairShare};
use tokio::sync::Notify;

/// Returns the number of templates.
pub(crate) type TemplateCount = Arc<dyn Fn() -> usize + Send + Sync>;

/// Places that the callers of all templates share. Clones share them.
#[derive(Clone)]
pub(crate) struct Places(Arc<Shared>);

struct Shared {
    share: Mutex<FairShare>,
    templates: TemplateCount,
    freed: Notify,
}

/// One caller's place; dropping it frees the place.
pub(super) struct Place {
    places: Places,
    template: TemplateName,
}

impl Places {
    /// `max` places. The number of templates is read with each caller.
    pub(crate) fn new(max: usize, templates: TemplateCount) -> Self {
        let share = Mutex::new(FairShare::new(max));
        Self(Arc::new(Shared { share, templates, freed: Notify::new() }))
    }

    /// A place for a caller of the template, unless the template has its share.
    pub(super) fn take(&self, template: &TemplateName) -> Option<Place> {
        let place = || Place { places: self.clone(), template: template.clone() };
        let templates = (self.0.templates)();
        self.lock().take(template, templates).then(place)
    }

    /// A place for a caller of the template, as soon as one is free.
    pub(super) async fn wait_for(&self, template: &TemplateName) -> Place {
        loop {
            let freed = self.0.freed.notified();
            if let Some(place) = self.take(template) {
                return place;
            }
            freed.await;
        }
    }

    /// Whether no caller holds a place.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().taken() == 0
    }

    fn lock(&self) -> MutexGuard<'_, FairShare> {
        self.0.share.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().give_back(&self.template);
        self.places.0.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn caller_waits_for_a_place_until_its_deadline() {
        let wait = Duration::from_secs(3);
        let places = Places::new(1, Arc::new(|| 2));
        let template = TemplateName::try_from("a").unwrap();
        let held = places.take(&template).unwrap();
        assert!(timeout(wait, places.wait_for(&template)).await.is_err());
        let waiting = timeout(wait, places.wait_for(&template));
        let (place, ()) = tokio::join!(waiting, async { drop(held) });
        assert!(place.is_ok());
    }
}
