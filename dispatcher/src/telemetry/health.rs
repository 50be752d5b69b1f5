//! What works and what does not: each component tells its own state, `/readyz` tells all of them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// The state of every component, shared.
#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<String, State>>>);

#[derive(Clone)]
struct State {
    ready: Result<(), String>,
    failures: u64,
}

/// What one component has told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComponentStatus {
    /// Its name.
    pub name: String,
    /// Whether it works.
    pub ready: bool,
    /// How often it has told that it does not: each time that a try of it failed.
    pub failures: u64,
}

/// The name of one component in [`Health`]; a component that is not ready tells why.
#[derive(Clone)]
pub struct Component {
    health: Health,
    name: String,
}

impl Health {
    /// Registers a component: not ready until it says so.
    pub fn component(&self, name: impl Into<String>) -> Component {
        let name = name.into();
        self.set(&name, Err("starting".to_owned()), 0);
        Component { health: self.clone(), name }
    }

    /// Whether that is news.
    fn set(&self, name: &str, ready: Result<(), String>, failures: u64) -> bool {
        let mut components = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match components.get_mut(name) {
            Some(state) => {
                let changed = state.ready.is_ok() != ready.is_ok();
                *state = State { ready, failures: state.failures.saturating_add(failures) };
                changed
            }
            None => {
                components.insert(name.to_owned(), State { ready, failures });
                true
            }
        }
    }

    /// What every component has told.
    pub fn components(&self) -> Vec<ComponentStatus> {
        let components = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let told = |(name, State { ready, failures }): (&String, &State)| ComponentStatus {
            name: name.clone(),
            ready: ready.is_ok(),
            failures: *failures,
        };
        components.iter().map(told).collect()
    }

    /// `component: reason` of each component that is not ready; empty when the service is ready.
    pub fn not_ready(&self) -> Vec<String> {
        let components = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        components
            .iter()
            .filter_map(|(name, state)| Some(format!("{name}: {}", state.ready.as_ref().err()?)))
            .collect()
    }
}

impl Component {
    /// The component works. Logged when it did not before.
    pub fn ready(&self) {
        if self.health.set(&self.name, Ok(()), 0) {
            tracing::info!(component = self.name, "ready");
        }
    }

    /// The component does not work, and why. Logged when it did before; after that only the reason at `/readyz` changes, so
    /// that an outage is a line and not a flood.
    pub fn not_ready(&self, reason: impl Into<String>) {
        let reason = reason.into();
        if self.health.set(&self.name, Err(reason.clone()), 1) {
            tracing::warn!(component = self.name, reason, "not ready");
        }
    }

    /// Something that is tried until it works, or until nobody waits for it any more.
    pub fn retry_guard(&self) -> RetryGuard<'_> {
        RetryGuard { component: self, complains: false }
    }
}

/// One thing that is tried again and again. What it complained of is withdrawn where it is given up, as by a replica that
/// reports no more: nobody would try again, and the component would be not ready for good.
pub struct RetryGuard<'a> {
    component: &'a Component,
    complains: bool,
}

impl RetryGuard<'_> {
    /// It did not work, and is tried again.
    pub fn failed(&mut self, reason: impl Into<String>) {
        self.complains = true;
        self.component.not_ready(reason);
    }

    /// It worked.
    pub fn succeeded(&mut self) {
        self.complains = false;
        self.component.ready();
    }
}

impl Drop for RetryGuard<'_> {
    fn drop(&mut self) {
        if self.complains {
            self.component.ready();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_when_every_room_is() {
        let health = Health::default();
        let (a, b) = (health.component("a"), health.component("b"));
        a.ready();
        assert_eq!(health.not_ready(), ["b: starting"]);
        b.ready();
        assert!(health.not_ready().is_empty());
        a.not_ready("no answer");
        assert_eq!(health.not_ready(), ["a: no answer"]);
        a.not_ready("still none");
        let told = |name: &str, ready, failures| ComponentStatus { name: name.to_owned(), ready, failures };
        assert_eq!(health.components(), [told("a", false, 2), told("b", true, 0)]);
    }

    #[test]
    fn what_is_given_up_complains_no_more() {
        let health = Health::default();
        let component = health.component("a");
        let mut guard = component.retry_guard();
        guard.failed("no answer");
        assert_eq!(health.not_ready(), ["a: no answer"]);
        guard.succeeded();
        assert!(health.not_ready().is_empty());
        guard.failed("none again");
        drop(guard);
        assert!(health.not_ready().is_empty());
        // One that never complained says nothing of the others.
        component.not_ready("another's");
        drop(component.retry_guard());
        assert_eq!(health.not_ready(), ["a: another's"]);
    }
}
