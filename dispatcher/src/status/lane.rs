//! One Job name's way to its status subject: what is known to be said, the states that wait, one thing at a time.
//!
//! Pure: the writer does what [`Lane::next`] tells and reports back. A lane lives while there is something to say.

use std::collections::VecDeque;

use super::store::Known;
use crate::{
    contract::job::{JobState, Presence},
    status::phase::{self, Source, Step},
};

/// States that wait behind the one at work; past that the newest takes the place of the last.
const WAITING: usize = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Lane<W> {
    known: Known,
    waiting: VecDeque<(JobState, Source)>,
    busy: bool,
    waiters: Vec<(String, W)>,
}

/// How a piece of work ended.
#[derive(Debug)]
pub(super) enum Done {
    /// What is known of the subject now: an event was stored, or the last message was read.
    Known(Known),
    /// The Job at the head is really gone, or not.
    Verified(Gone),
    /// TTL and mark are on the Job.
    Settled,
    /// It is another replica's to do now.
    GivenUp,
}

/// Whether a Job is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gone {
    /// It is there.
    No,
    /// It is gone.
    Deleted,
    /// It is gone, and was to be cancelled.
    Cancelled,
}

impl<W> Lane<W> {
    /// A lane of a subject of which `known` is known. Knowing wrongly costs one refused publish: the fence holds.
    pub(super) fn new(known: Known) -> Self {
        Self { known, waiting: VecDeque::new(), busy: false, waiters: Vec::new() }
    }

    /// What a scan has read of the subject. It may be older than what is known here: that costs a refused publish. Or the
    /// stream may have lost what is known here: then only the scan is right.
    pub(super) fn learn(&mut self, known: Known) {
        if !self.busy {
            self.known = known;
        }
    }

    /// A newer state of the Job.
    pub(super) fn offer(&mut self, state: JobState, source: Source) {
        if self.waiting.len() >= WAITING
            && self.waiting.back().is_some_and(|(last, _)| last.uid == state.uid && !last.settled)
        {
            self.waiting.pop_back();
        }
        self.waiting.push_back((state, source));
    }

    /// Somebody who waits for the first event of the Job `uid`.
    pub(super) fn wait(&mut self, uid: String, waiter: W) {
        self.waiters.push((uid, waiter));
    }

    /// The waiters whose Job has been spoken of.
    pub(super) fn served(&mut self) -> Vec<W> {
        let said = self.known.said.as_ref().map(|said| said.uid.clone());
        let (served, rest) =
            std::mem::take(&mut self.waiters).into_iter().partition(|(uid, _)| Some(uid) == said.as_ref());
        self.waiters = rest;
        let served: Vec<(String, W)> = served;
        served.into_iter().map(|(_, waiter)| waiter).collect()
    }

    /// Who brought the state that is next, or at work.
    pub(super) fn source(&self) -> Option<Source> {
        self.waiting.front().map(|(_, source)| *source)
    }

    /// Another replica reports from now on: what the watch brought is its to say. What is at work ends by itself
    /// ([`Done::GivenUp`]).
    pub(super) fn hand_over(&mut self) {
        let mut at_work = self.busy;
        self.waiting.retain(|(_, source)| std::mem::take(&mut at_work) || *source == Source::Create);
    }

    /// The next piece of work and the state it concerns; `None` while one is under way or nothing is left.
    pub(super) fn next(&mut self) -> Option<(Step, JobState, Known)> {
        if self.busy {
            return None;
        }
        while let Some((state, source)) = self.waiting.front() {
            match phase::next(self.known.said.as_ref(), state, *source) {
                None => {
                    self.waiting.pop_front();
                }
                // The watch brings the same Job again and closes the earlier one; whoever waits is served then. Where
                // another replica reports, only the stream tells when.
                Some(Step::AwaitEarlier) if self.waiting.len() > 1 || self.waiters.is_empty() => {
                    self.waiting.pop_front();
                }
                Some(step) => {
                    self.busy = true;
                    return Some((step, state.clone(), self.known.clone()));
                }
            }
        }
        None
    }

    /// The piece of work under way has ended.
    pub(super) fn done(&mut self, done: Done) {
        self.busy = false;
        match done {
            Done::Known(known) => self.known = known,
            Done::Settled => {
                if let Some((state, _)) = self.waiting.front_mut() {
                    state.settled = true;
                }
            }
            Done::Verified(gone @ (Gone::Deleted | Gone::Cancelled)) => {
                if let Some((state, _)) = self.waiting.front_mut() {
                    state.cancelled = gone == Gone::Cancelled;
                    state.presence = match state.presence {
                        Presence::DeletedUnverified => Presence::Deleted,
                        Presence::MissingUnverified => Presence::Missing,
                        other => other,
                    };
                }
            }
            Done::Verified(Gone::No) | Done::GivenUp => {
                self.waiting.pop_front();
            }
        }
    }

    /// Whether the lane can go: nothing to do, nobody waits, and nothing is to be expected of the Job. Where another
    /// replica reports, nothing is.
    pub(super) fn is_over(&self, reports: bool) -> bool {
        let nothing_to_come = !reports || self.known.said.as_ref().is_none_or(phase::Said::is_final);
        !self.busy && self.waiting.is_empty() && self.waiters.is_empty() && nothing_to_come
    }

    /// Drops waiters that no longer wait.
    pub(super) fn forget(&mut self, gone: impl Fn(&W) -> bool) {
        self.waiters.retain(|(_, waiter)| !gone(waiter));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        contract::{event::EventType, job::tests::a_job},
        status::phase::Said,
    };

    fn known(sequence: u64, uid: &str, resource_version: u64, event: EventType) -> Known {
        Known { sequence, said: Some(Said { uid: uid.into(), resource_version, event }) }
    }

    fn step(lane: &mut Lane<()>) -> Option<Step> {
        lane.next().map(|(step, ..)| step)
    }

    #[test]
    fn a_lane_has_one_piece_of_work_under_way_and_goes_on_in_order() {
        let mut lane = Lane::<()>::new(Known::default());
        lane.offer(a_job("u", 1, json!({})), Source::Create);
        lane.offer(a_job("u", 2, json!({})), Source::Watch);
        assert_eq!(step(&mut lane), Some(Step::Say(EventType::Added, None)));
        assert_eq!(step(&mut lane), None, "one at a time");
        lane.done(Done::Known(known(1, "u", 1, EventType::Added)));
        assert_eq!(step(&mut lane), Some(Step::Say(EventType::Modified, None)));
        lane.done(Done::Known(known(2, "u", 2, EventType::Modified)));
        assert_eq!(step(&mut lane), None);
        assert!(!lane.is_over(true), "the outcome is to come");
    }

    #[test]
    fn a_refused_publish_is_decided_again_from_what_is_there() {
        let mut lane = Lane::<()>::new(Known::default());
        lane.offer(a_job("u", 1, json!({})), Source::Watch);
        assert_eq!(step(&mut lane), Some(Step::Say(EventType::Added, None)));
        lane.done(Done::Known(known(9, "u", 1, EventType::Added)));
        assert_eq!(step(&mut lane), None, "somebody has said it");
    }

    #[test]
    fn a_long_outage_merges_states_and_keeps_the_newest() {
        let mut lane = Lane::<()>::new(Known::default());
        for resource_version in 1..100 {
            lane.offer(a_job("u", resource_version, json!({})), Source::Watch);
        }
        assert_eq!(lane.waiting.len(), WAITING);
        assert_eq!(lane.waiting.back().unwrap().0.resource_version, 99);
    }

    #[test]
    fn a_job_that_only_lost_its_label_is_not_spoken_of() {
        let mut lane = Lane::<()>::new(known(1, "u", 1, EventType::Added));
        lane.offer(a_job("u", 2, json!({})).with_presence(Presence::DeletedUnverified), Source::Watch);
        assert_eq!(step(&mut lane), Some(Step::Verify));
        lane.done(Done::Verified(Gone::No));
        assert_eq!(step(&mut lane), None);
    }

    #[test]
    fn a_stream_that_lost_events_hears_them_again() {
        let mut lane = Lane::<()>::new(known(9, "u", 5, EventType::Modified));
        lane.learn(known(3, "u", 1, EventType::Added));
        lane.offer(a_job("u", 5, json!({})), Source::Watch);
        assert_eq!(step(&mut lane), Some(Step::Say(EventType::Modified, None)));
    }

    #[test]
    fn what_the_watch_brought_is_handed_over_and_what_a_create_brought_is_not() {
        let mut lane = Lane::<()>::new(known(1, "u", 1, EventType::Added));
        lane.offer(a_job("u", 2, json!({})), Source::Watch);
        lane.offer(a_job("u", 3, json!({})), Source::Watch);
        assert_eq!(step(&mut lane), Some(Step::Say(EventType::Modified, None)));
        lane.offer(a_job("v", 9, json!({})), Source::Create);
        lane.hand_over();
        assert_eq!(lane.source(), Some(Source::Watch), "at work: it ends by itself");
        lane.done(Done::GivenUp);
        assert_eq!(lane.source(), Some(Source::Create));
        assert!(!lane.is_over(false));
        lane.done(Done::Known(known(4, "v", 9, EventType::Added)));
        assert_eq!(step(&mut lane), None);
        assert!(lane.is_over(false) && !lane.is_over(true), "what is to come is the other replica's to say");
    }

    #[test]
    fn a_create_awaits_the_earlier_job_of_its_name_as_long_as_somebody_waits() {
        let mut lane = Lane::new(known(1, "earlier", 1, EventType::Added));
        lane.wait("u".into(), 1);
        lane.offer(a_job("u", 5, json!({})), Source::Create);
        assert_eq!(lane.next().unwrap().0, Step::AwaitEarlier);
        lane.done(Done::Known(known(1, "earlier", 1, EventType::Added)));
        assert_eq!(lane.next().unwrap().0, Step::AwaitEarlier);
        lane.offer(a_job("u", 5, json!({})), Source::Watch);
        lane.done(Done::Known(known(1, "earlier", 1, EventType::Added)));
        assert_eq!(lane.next().unwrap().0, Step::CloseEarlier, "the watch goes first");

        let mut lane = Lane::<()>::new(known(1, "earlier", 1, EventType::Added));
        lane.offer(a_job("u", 5, json!({})), Source::Create);
        assert!(lane.next().is_none());
    }

    #[test]
    fn who_waits_for_a_first_event_is_served_when_it_is_said() {
        let mut lane = Lane::new(Known::default());
        lane.wait("u".into(), 1);
        lane.wait("other".into(), 2);
        assert!(lane.served().is_empty());
        lane.done(Done::Known(known(3, "u", 1, EventType::Added)));
        assert_eq!(lane.served(), [1]);
        lane.forget(|w| *w == 2);
        lane.done(Done::Known(known(4, "u", 1, EventType::Outcome)));
        assert!(lane.is_over(true));
    }

    #[test]
    fn a_job_that_was_to_be_cancelled_ends_so_unless_it_had_ended_by_itself() {
        for (status, result) in [
            (json!({}), "Cancelled"),
            (json!({"conditions": [{"type": "Complete", "status": "True"}]}), "Complete"),
        ] {
            let mut lane = Lane::<()>::new(known(1, "u", 2, EventType::Modified));
            lane.offer(a_job("u", 2, status).with_presence(Presence::MissingUnverified), Source::Watch);
            assert_eq!(step(&mut lane), Some(Step::Verify));
            lane.done(Done::Verified(Gone::Cancelled));
            let Some(Step::Say(EventType::Outcome, Some(outcome))) = step(&mut lane) else {
                panic!("outcome")
            };
            assert_eq!(outcome.result.to_string(), result);
        }
    }
}
