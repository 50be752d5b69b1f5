//! The readiness of each component, for `/readyz` and the metrics.
//!
//! Each component reports its own state. The service is ready while every component is. Only
//! changes of a component's state are logged, so that an outage is one line.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The state of every component; clones share it.
#[derive(Clone, Default)]
pub(crate) struct Health(Arc<Mutex<BTreeMap<String, State>>>);

struct State {
    ready: Result<(), String>,
    failures: u64,
    warnings: Vec<String>,
}

/// The reported state of one component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ComponentStatus {
    /// The component's name.
    pub name: String,
    /// Why the component is not ready.
    pub reason: Option<String>,
    /// How many failures the component has reported.
    pub failures: u64,
    /// What an operator should change although the component is ready.
    pub warnings: Vec<String>,
}

/// Reports the state of one component.
#[derive(Clone)]
pub(crate) struct Component {
    health: Health,
    name: String,
}

impl Health {
    /// Registers a component, which is not ready until it reports so.
    #[must_use]
    pub(crate) fn component(&self, name: impl Into<String>) -> Component {
        let name = name.into();
        let starting = || Err("starting".to_owned());
        let mut components = self.lock();
        let state = components.entry(name.clone()).or_insert(State {
            ready: starting(),
            failures: 0,
            warnings: Vec::new(),
        });
        state.ready = starting();
        drop(components);
        Component { health: self.clone(), name }
    }

    /// The state of every component, ordered by name.
    #[must_use]
    pub(crate) fn components(&self) -> Vec<ComponentStatus> {
        let components = self.lock();
        let status = |(name, State { ready, failures, warnings }): (&String, &State)| ComponentStatus {
            name: name.clone(),
            reason: ready.as_ref().err().cloned(),
            failures: *failures,
            warnings: warnings.clone(),
        };
        components.iter().map(status).collect()
    }

    /// `component: reason` for each component that is not ready; empty if the service is ready.
    #[must_use]
    pub(crate) fn not_ready(&self) -> Vec<String> {
        let components = self.components().into_iter();
        components.filter_map(|c| Some(format!("{}: {}", c.name, c.reason?))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Component {
    /// Reports that the component works.
    pub(crate) fn ready(&self) {
        if self.set(Ok(()), 0) {
            tracing::info!(component = self.name, "ready");
        }
    }

    /// Reports a failure and its reason.
    pub(crate) fn not_ready(&self, reason: impl Into<String>) {
        let reason = reason.into();
        if self.set(Err(reason.clone()), 1) {
            tracing::warn!(component = self.name, reason, "not ready");
        }
    }

    /// Replaces the warnings, and logs the new ones. They do not change the readiness.
    pub(crate) fn warnings(&self, warnings: Vec<String>) {
        let mut components = self.health.lock();
        let Some(state) = components.get_mut(&self.name) else { return };
        let before = std::mem::replace(&mut state.warnings, warnings.clone());
        drop(components);
        for warning in warnings.iter().filter(|warning| !before.contains(warning)) {
            tracing::warn!(component = self.name, warning, "an operator should change this");
        }
    }

    /// Removes the component, because its subject no longer exists.
    pub(crate) fn remove(&self) {
        self.health.lock().remove(&self.name);
    }

    /// Starts an operation that is retried until it succeeds or its caller abandons it.
    #[must_use]
    pub(crate) fn retry_guard(&self) -> RetryGuard<'_> {
        RetryGuard { component: self, failing: false }
    }

    /// Returns whether the component became ready or unready.
    fn set(&self, ready: Result<(), String>, failures: u64) -> bool {
        let mut components = self.health.lock();
        let Some(state) = components.get_mut(&self.name) else { return false };
        let changed = state.ready.is_ok() != ready.is_ok();
        state.ready = ready;
        state.failures = state.failures.saturating_add(failures);
        changed
    }
}

/// Reports the tries of one retried operation.
///
/// Dropping it withdraws its last failure. Otherwise a replica that loses the Lease during a
/// failing write would stay unready permanently, because nothing retries that write any more.
pub(crate) struct RetryGuard<'a> {
    component: &'a Component,
    failing: bool,
}

impl RetryGuard<'_> {
    /// Reports a failed try, which will be repeated.
    pub(crate) fn failed(&mut self, reason: impl Into<String>) {
        self.failing = true;
        self.component.not_ready(reason);
    }

    /// Reports success.
    pub(crate) fn succeeded(&mut self) {
        self.failing = false;
        self.component.ready();
    }
}

impl Drop for RetryGuard<'_> {
    fn drop(&mut self) {
        if self.failing {
            self.component.ready();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_is_ready_only_if_every_component_is() {
        let health = Health::default();
        let (a, b) = (health.component("a"), health.component("b"));
        a.ready();
        assert_eq!(health.not_ready(), ["b: starting"]);
        b.ready();
        assert!(health.not_ready().is_empty());
        a.not_ready("no answer");
        assert_eq!(health.not_ready(), ["a: no answer"]);
        a.not_ready("connection refused");
        let status = |name: &str, reason: Option<&str>, failures| ComponentStatus {
            name: name.to_owned(),
            reason: reason.map(str::to_owned),
            failures,
            warnings: Vec::new(),
        };
        let expected = [status("a", Some("connection refused"), 2), status("b", None, 0)];
        assert_eq!(health.components(), expected);
    }

    #[test]
    fn warnings_leave_the_component_ready() {
        let health = Health::default();
        let component = health.component("a");
        component.ready();
        component.warnings(vec!["no limit".to_owned()]);
        assert!(health.not_ready().is_empty());
        assert_eq!(health.components().pop().unwrap().warnings, ["no limit"]);
        component.warnings(vec![]);
        assert!(health.components().pop().unwrap().warnings.is_empty());
    }

    #[test]
    fn abandoned_operation_withdraws_only_its_own_failure() {
        let health = Health::default();
        let component = health.component("a");
        let mut guard = component.retry_guard();
        guard.failed("no answer");
        assert_eq!(health.not_ready(), ["a: no answer"]);
        guard.succeeded();
        assert!(health.not_ready().is_empty());
        guard.failed("no answer again");
        drop(guard);
        assert!(health.not_ready().is_empty());
        component.not_ready("failure of another operation");
        drop(component.retry_guard());
        assert_eq!(health.not_ready(), ["a: failure of another operation"]);
    }
}
