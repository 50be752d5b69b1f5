//! Whether this replica reports: told by the one who holds the Lease, asked by all who bring or say what the watches see.

pub mod elector;

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
    /// The Lease was not looked at yet.
    Unknown,
    Other,
    Ours {
        until: Instant,
        term: Term,
    },
}

/// Which of the times in which this replica reports, counted from 1.
pub type Term = u64;

/// Where it is told.
#[derive(Debug)]
pub struct LeaderHandle {
    state: watch::Sender<State>,
    terms: Term,
}

/// Where it is asked.
#[derive(Debug, Clone)]
pub struct Leadership {
    state: watch::Receiver<State>,
    /// The last term in which all was synced.
    synced: Arc<AtomicU64>,
}

/// Nobody reports yet.
pub fn leadership() -> (LeaderHandle, Leadership) {
    let (tell, ask) = watch::channel(State::Unknown);
    (LeaderHandle { state: tell, terms: 0 }, Leadership { state: ask, synced: Arc::default() })
}

impl LeaderHandle {
    /// This replica reports until then, or not at all. Whether that is news; a lead that had run out and comes again is.
    pub fn set(&mut self, until: Option<Instant>) -> bool {
        let (now, terms) = (Instant::now(), &mut self.terms);
        self.state.send_if_modified(|state| {
            let goes_on = matches!(*state, State::Ours { until, .. } if until > now);
            let before = *state;
            *state = match until {
                Some(until) => {
                    *terms += u64::from(!goes_on);
                    State::Ours { until, term: *terms }
                }
                None => State::Other,
            };
            match until {
                Some(_) => !goes_on,
                None => before != *state,
            }
        })
    }
}

impl Leadership {
    /// Whether this replica reports at this moment, by its own clock.
    pub fn is_ours(&self) -> bool {
        self.term().is_some()
    }

    /// The term, while this replica reports.
    pub fn term(&self) -> Option<Term> {
        match *self.state.borrow() {
            State::Ours { until, term } if Instant::now() < until => Some(term),
            _ => None,
        }
    }

    /// All was synced in this term.
    pub fn synced(&self, term: Term) {
        self.synced.fetch_max(term, SeqCst);
    }

    /// Whether this replica reports, and has synced all since it began to.
    pub fn has_synced(&self) -> bool {
        self.term() == Some(self.synced.load(SeqCst))
    }

    /// Waits until it begins or ends. A lead that ended and began again meanwhile is one change. For ever where nobody
    /// tells any more.
    pub async fn changed(&mut self) {
        if self.state.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the Lease was looked at.
    pub async fn is_known(&mut self) {
        // Where nobody tells any more it never will be.
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
    fn a_renewal_is_no_change_and_a_lead_that_ran_out_is_one() {
        let (mut lead, mut leadership) = leadership();
        assert!(!leadership.is_ours());
        assert!(lead.set(Some(in_an_hour())));
        assert!(leadership.is_ours());
        assert!(leadership.changed().now_or_never().is_some());
        assert!(!lead.set(Some(in_an_hour())), "a renewal");
        assert!(leadership.changed().now_or_never().is_none());
        lead.set(Some(Instant::now()));
        assert!(!leadership.is_ours(), "by the clock, before anyone tells");
        assert!(lead.set(Some(in_an_hour())), "what was seen meanwhile was not told");
        assert!(leadership.changed().now_or_never().is_some());
        assert!(lead.set(None) && !lead.set(None));
        assert!(!leadership.is_ours());
    }

    #[test]
    fn what_was_compared_in_a_term_is_to_be_compared_again_in_the_next() {
        let (mut lead, leadership) = leadership();
        assert!(!leadership.has_synced() && leadership.term().is_none());
        lead.set(Some(in_an_hour()));
        let first = leadership.term().unwrap();
        assert!(!leadership.has_synced());
        leadership.synced(first);
        lead.set(Some(in_an_hour()));
        assert!(leadership.has_synced(), "over a renewal");
        lead.set(None);
        assert!(!leadership.has_synced());
        lead.set(Some(in_an_hour()));
        leadership.synced(first);
        assert!(!leadership.has_synced(), "by a comparison that began before");
        leadership.synced(leadership.term().unwrap());
        assert!(leadership.has_synced());
    }

    #[test]
    fn it_is_known_once_the_lease_was_looked_at() {
        let (mut lead, mut leadership) = leadership();
        assert!(leadership.is_known().now_or_never().is_none());
        lead.set(None);
        assert!(leadership.is_known().now_or_never().is_some());
    }
}
