//! Which delivered requests of a consumer a lost connection took with it.
//!
//! Input: what this process received, and the consumer's pending requests. Output: for each pending
//! request, whether to reject it, return it to the server, or leave it to its handler.

use std::collections::HashSet;

use crate::request::poison::check_headers;

/// What this process knows about the deliveries of one consumer.
#[derive(Debug, Default)]
pub struct Deliveries {
    /// Requests that this process handles, or that it has returned with a delay.
    held: HashSet<u64>,
    /// The last sequence that this process has received, or that was delivered before its start.
    last: u64,
    /// Requests that the last check returned, and that this process has not received since.
    returned: HashSet<u64>,
}

/// What to do with a pending request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Reject it: the client library cannot decode it, for this reason.
    Reject(String),
    /// Return it to the server, which redelivers it immediately.
    Return,
    /// This process or another one handles it.
    Leave,
}

/// One check of the pending requests.
#[derive(Debug)]
pub struct Check<'a> {
    deliveries: &'a mut Deliveries,
    returned: HashSet<u64>,
    held: HashSet<u64>,
}

impl Deliveries {
    /// The knowledge at start: requests up to `last` were delivered to other processes.
    #[must_use]
    pub fn starting_after(last: u64) -> Self {
        Self { last, ..Self::default() }
    }

    /// This process has received a request.
    pub fn received(&mut self, sequence: u64) {
        self.held.insert(sequence);
        self.returned.remove(&sequence);
        self.last = self.last.max(sequence);
    }

    /// The request needs no further delivery.
    pub fn finished(&mut self, sequence: u64) {
        self.held.remove(&sequence);
    }

    /// Starts a check of all pending requests. Stop pulling before, so that nothing is on its way.
    pub fn check(&mut self) -> Check<'_> {
        Check { deliveries: self, returned: HashSet::new(), held: HashSet::new() }
    }
}

impl Check<'_> {
    /// Decides about one pending request.
    ///
    /// A request below the last received one is with another process, unless the last check
    /// returned it.
    pub fn verdict(&mut self, sequence: u64, headers: &[u8]) -> Verdict {
        let Deliveries { held, last, returned } = &*self.deliveries;
        if let Err(problem) = check_headers(headers) {
            return Verdict::Reject(problem);
        }
        if held.contains(&sequence) {
            self.held.insert(sequence);
            return Verdict::Leave;
        }
        if sequence > *last || returned.contains(&sequence) {
            self.returned.insert(sequence);
            return Verdict::Return;
        }
        Verdict::Leave
    }

    /// Ends a check that has seen all pending requests. Forgets the others, so that the knowledge
    /// stays as small as the set of pending requests.
    pub fn complete(self, delivered: u64) {
        let Deliveries { held, last, returned } = self.deliveries;
        *held = self.held;
        *returned = self.returned;
        *last = (*last).max(delivered);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POISON: &[u8] = b"NATS/1.0\r\nA: b\rc\r\n\r\n";

    /// The verdicts on the pending requests up to `delivered`.
    fn verdicts(deliveries: &mut Deliveries, pending: &[u64], delivered: u64) -> Vec<(u64, Verdict)> {
        let mut check = deliveries.check();
        let verdicts = pending.iter().map(|sequence| (*sequence, check.verdict(*sequence, b""))).collect();
        check.complete(delivered);
        verdicts
    }

    fn returned(deliveries: &mut Deliveries, pending: &[u64], delivered: u64) -> Vec<u64> {
        let verdicts = verdicts(deliveries, pending, delivered);
        verdicts.into_iter().filter(|(_, verdict)| *verdict == Verdict::Return).map(|(s, _)| s).collect()
    }

    #[test]
    fn requests_that_died_with_the_connection_return_and_those_in_hand_do_not() {
        let mut deliveries = Deliveries::starting_after(10);
        deliveries.received(11);
        deliveries.received(12);
        deliveries.finished(11);
        assert_eq!(returned(&mut deliveries, &[12, 13, 14], 14), [13, 14]);
    }

    #[test]
    fn request_that_is_lost_again_returns_again() {
        let mut deliveries = Deliveries::default();
        assert_eq!(returned(&mut deliveries, &[1, 2], 2), [1, 2]);
        deliveries.received(2);
        assert_eq!(returned(&mut deliveries, &[1, 2], 2), [1], "2 is in hand");
        deliveries.received(1);
        assert!(returned(&mut deliveries, &[1, 2], 2).is_empty());
    }

    #[test]
    fn requests_of_other_processes_do_not_return() {
        let mut deliveries = Deliveries::starting_after(3);
        deliveries.received(7);
        deliveries.finished(7);
        assert_eq!(returned(&mut deliveries, &[2, 5, 8], 8), [8], "2 and 5 are with other processes");
        assert_eq!(returned(&mut deliveries, &[2, 5], 9), [0; 0]);
    }

    #[test]
    fn poison_message_is_rejected_wherever_it_is() {
        let mut deliveries = Deliveries::starting_after(5);
        let mut check = deliveries.check();
        for sequence in [1, 5, 9] {
            assert!(matches!(check.verdict(sequence, POISON), Verdict::Reject(_)), "{sequence}");
        }
    }

    #[test]
    fn unfinished_check_forgets_nothing() {
        let mut deliveries = Deliveries::default();
        deliveries.received(1);
        drop(deliveries.check());
        assert_eq!(returned(&mut deliveries, &[1, 2], 2), [2]);
    }

    proptest! {
        /// No request in hand returns, and the sets are no larger than the pending requests.
        #[test]
        fn held_requests_never_return(
            received in prop::collection::vec(0_u64..40, 0..40),
            finished in prop::collection::vec(0_u64..40, 0..40),
            pending in prop::collection::btree_set(0_u64..60, 0..60),
        ) {
            let mut deliveries = Deliveries::default();
            received.iter().for_each(|sequence| deliveries.received(*sequence));
            finished.iter().for_each(|sequence| deliveries.finished(*sequence));
            let held: HashSet<u64> =
                received.into_iter().filter(|sequence| !finished.contains(sequence)).collect();
            let pending: Vec<u64> = pending.into_iter().collect();
            let returned = returned(&mut deliveries, &pending, 60);
            prop_assert!(returned.iter().all(|sequence| !held.contains(sequence)));
            prop_assert!(deliveries.held.len() + deliveries.returned.len() <= pending.len());
        }
    }
}
