//! Whether this replica is the leader: set by the elector, read by everything that publishes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Instant,
};

use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The Lease has not been read yet.
    Unknown,
    Follower,
    Leader {
        until: Instant,
        term: Term,
    },
}

/// The number of a term of this replica as the leader, from 1.
pub(crate) type Term = u64;

/// Sets the leadership.
#[derive(Debug)]
pub(crate) struct LeaderHandle {
    state: watch::Sender<State>,
    terms: Term,
}

/// Reads the leadership.
#[derive(Debug, Clone)]
pub(crate) struct Leadership {
    state: watch::Receiver<State>,
    /// The last term in which a resync completed.
    synced: Arc<AtomicU64>,
}

/// A handle and its reader. This replica is not the leader yet.
pub(crate) fn leadership() -> (LeaderHandle, Leadership) {
    let (sender, receiver) = watch::channel(State::Unknown);
    let handle = LeaderHandle { state: sender, terms: 0 };
    (handle, Leadership { state: receiver, synced: Arc::default() })
}

impl LeaderHandle {
    /// Makes this replica the leader until an instant, or a follower. Returns whether that is a
    /// change; a new term after an expired one is a change.
    pub(crate) fn set(&mut self, until: Option<Instant>) -> bool {
        let (now, terms) = (Instant::now(), &mut self.terms);
        self.state.send_if_modified(|state| {
            let is_renewal = matches!(*state, State::Leader { until, .. } if until > now);
            let before = *state;
            *state = match until {
                Some(until) => {
                    *terms += u64::from(!is_renewal);
                    State::Leader { until, term: *terms }
                }
                None => State::Follower,
            };
            match until {
                Some(_) => !is_renewal,
                None => before != *state,
            }
        })
    }
}

impl Leadership {
    /// Whether this replica is the leader now, by its own clock.
    pub(crate) fn is_ours(&self) -> bool {
        self.term().is_some()
    }

    /// The term, if this replica is the leader.
    pub(crate) fn term(&self) -> Option<Term> {
        match *self.state.borrow() {
            State::Leader { until, term } if Instant::now() < until => Some(term),
            _ => None,
        }
    }

    /// Records that a resync completed in this term.
    pub(crate) fn synced(&self, term: Term) {
        self.synced.fetch_max(term, SeqCst);
    }

    /// Whether this replica is the leader and a resync has completed in its term.
    pub(crate) fn has_synced(&self) -> bool {
        self.term() == Some(self.synced.load(SeqCst))
    }

    /// Waits for the next change. Terms that end and begin in between count as one change. Never
    /// returns once the handle is dropped.
    pub(crate) async fn changed(&mut self) {
        if self.state.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the Lease has been read once.
    pub(crate) async fn is_known(&mut self) {
        // An error means that the handle is dropped: the service is shutting down.
        let _ = self.state.wait_for(|state| *state != State::Unknown).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;

    use super::*;

    fn in_an_hour() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    #[test]
    fn a_renewal_is_no_change_and_a_new_term_after_an_expired_one_is() {
        let (mut handle, mut leadership) = leadership();
        assert!(!leadership.is_ours());
        assert!(handle.set(Some(in_an_hour())));
        assert!(leadership.is_ours());
        assert!(leadership.changed().now_or_never().is_some());
        assert!(!handle.set(Some(in_an_hour())), "a renewal");
        assert!(leadership.changed().now_or_never().is_none());
        handle.set(Some(Instant::now()));
        assert!(!leadership.is_ours(), "the term expires by the clock alone");
        assert!(handle.set(Some(in_an_hour())), "a new term");
        assert!(leadership.changed().now_or_never().is_some());
        assert!(handle.set(None) && !handle.set(None));
        assert!(!leadership.is_ours());
    }

    #[test]
    fn every_term_needs_a_resync_of_its_own() {
        let (mut handle, leadership) = leadership();
        assert!(!leadership.has_synced() && leadership.term().is_none());
        handle.set(Some(in_an_hour()));
        let first = leadership.term().unwrap();
        assert!(!leadership.has_synced());
        leadership.synced(first);
        handle.set(Some(in_an_hour()));
        assert!(leadership.has_synced(), "a renewal keeps the term");
        handle.set(None);
        assert!(!leadership.has_synced());
        handle.set(Some(in_an_hour()));
        leadership.synced(first);
        assert!(!leadership.has_synced(), "a resync of the previous term does not count");
        leadership.synced(leadership.term().unwrap());
        assert!(leadership.has_synced());
    }

    #[test]
    fn leadership_is_known_once_the_lease_was_read() {
        let (mut handle, mut leadership) = leadership();
        assert!(leadership.is_known().now_or_never().is_none());
        handle.set(None);
        assert!(leadership.is_known().now_or_never().is_some());
    }
}
