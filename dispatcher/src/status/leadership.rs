//! Whether this replica reports: told by the one who holds the Lease, asked by all who bring or say what the watches see.

use std::time::Instant;

use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The Lease was not looked at yet.
    Unknown,
    Other,
    Ours {
        until: Instant,
    },
}

/// Where it is told.
#[derive(Debug)]
pub struct Lead(watch::Sender<State>);

/// Where it is asked.
#[derive(Debug, Clone)]
pub struct Leadership(watch::Receiver<State>);

/// Nobody reports yet.
pub fn leadership() -> (Lead, Leadership) {
    let (tell, ask) = watch::channel(State::Unknown);
    (Lead(tell), Leadership(ask))
}

impl Lead {
    /// This replica reports until then, or not at all. Whether that is news; a lead that had run out and comes again is.
    pub fn set(&self, until: Option<Instant>) -> bool {
        let now = Instant::now();
        self.0.send_if_modified(|state| {
            let before = *state;
            *state = until.map_or(State::Other, |until| State::Ours { until });
            match (before, *state) {
                (State::Ours { until }, State::Ours { .. }) => until <= now,
                (before, after) => before != after,
            }
        })
    }
}

impl Leadership {
    /// Whether this replica reports at this moment, by its own clock.
    pub fn is_ours(&self) -> bool {
        matches!(*self.0.borrow(), State::Ours { until } if Instant::now() < until)
    }

    /// Waits until it begins or ends. A lead that ended and began again meanwhile is one change. For ever where nobody
    /// tells any more.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the Lease was looked at.
    pub async fn is_known(&mut self) {
        // Where nobody tells any more it never will be.
        let _ = self.0.wait_for(|state| *state != State::Unknown).await;
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
        let (lead, mut leadership) = leadership();
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
    fn it_is_known_once_the_lease_was_looked_at() {
        let (lead, mut leadership) = leadership();
        assert!(leadership.is_known().now_or_never().is_none());
        lead.set(None);
        assert!(leadership.is_known().now_or_never().is_some());
    }
}
