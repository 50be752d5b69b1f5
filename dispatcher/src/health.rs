//! What works and what does not: each room tells its own state, `/ready` tells all of them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// The state of every room, shared.
#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<String, Result<(), String>>>>);

/// The name of one room in [`Health`]; a room that is not ready tells why.
#[derive(Clone)]
pub struct Room {
    health: Health,
    name: String,
}

impl Health {
    /// Registers a room: not ready until it says so.
    pub fn room(&self, name: impl Into<String>) -> Room {
        let name = name.into();
        self.set(&name, Err("starting".to_owned()));
        Room { health: self.clone(), name }
    }

    fn set(&self, name: &str, state: Result<(), String>) -> bool {
        let mut rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = rooms.get(name).is_none_or(|before| before.is_ok() != state.is_ok());
        rooms.insert(name.to_owned(), state);
        changed
    }

    /// `room: reason` of each room that is not ready; empty when the service is ready.
    pub fn not_ready(&self) -> Vec<String> {
        let rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rooms.iter().filter_map(|(name, state)| Some(format!("{name}: {}", state.as_ref().err()?))).collect()
    }
}

impl Room {
    /// The room works. Logged when it did not before.
    pub fn ready(&self) {
        if self.health.set(&self.name, Ok(())) {
            tracing::info!(room = self.name, "ready");
        }
    }

    /// The room does not work, and why. Logged when it did before; after that only the reason at `/ready` changes, so
    /// that an outage is a line and not a flood.
    pub fn not_ready(&self, reason: impl Into<String>) {
        let reason = reason.into();
        if self.health.set(&self.name, Err(reason.clone())) {
            tracing::warn!(room = self.name, reason, "not ready");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_when_every_room_is() {
        let health = Health::default();
        let (a, b) = (health.room("a"), health.room("b"));
        a.ready();
        assert_eq!(health.not_ready(), ["b: starting"]);
        b.ready();
        assert!(health.not_ready().is_empty());
        a.not_ready("no answer");
        assert_eq!(health.not_ready(), ["a: no answer"]);
    }
}
