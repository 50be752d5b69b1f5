//! Guarantee 3: the events of a Job are ordered by resourceVersion, each once, the outcome last.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use super::event::Event;
use super::history::History;

/// Checks the events of one uid, in stream order.
pub(super) fn check(history: &History, events: &[Event<'_>], found: &mut Vec<Violation>) {
    let mut outcome: Option<&Event<'_>> = None;
    let mut newest: Option<&Event<'_>> = None;
    for (place, event) in events.iter().enumerate() {
        let after = |other: &Event<'_>| format!("{event}, after {other}");
        match (outcome, newest) {
            (Some(outcome), _) if event.is_outcome() => {
                found.push(Violation::DuplicateOutcome(after(outcome)));
                continue;
            }
            (Some(outcome), _) => {
                found.push(Violation::EventAfterOutcome(after(outcome)));
                continue;
            }
            (None, Some(_) | None) if event.type_ == "ADDED" && place > 0 => {
                found.push(Violation::AddedNotFirst(after(&events[0])));
                continue;
            }
            (None, Some(newest)) => {
                let deleted = newest.type_ == "DELETED" && event.is_state();
                // An event about a pod carries the resourceVersion of an event about its Job.
                let ahead = event.version > newest.version && event.is_of_pods();
                if event.version < newest.version || deleted && event.version > newest.version {
                    found.push(Violation::OutOfOrder(after(newest)));
                } else if ahead {
                    found.push(Violation::PodEventAhead(after(newest)));
                } else if event.version == newest.version && event.is_state() {
                    found.push(Violation::DuplicateEvent(after(newest)));
                }
            }
            (None, None) => {}
        }
        if event.is_outcome() {
            outcome = Some(event);
        }
        if event.is_state() && newest.is_none_or(|newest| newest.version < event.version) {
            newest = Some(event);
        }
    }
    // A Job that was deleted before its first event has only a DELETED.
    let added = events.iter().any(|event| event.type_ == "ADDED");
    if let Some(first) = events.first().filter(|first| !added && first.type_ != "DELETED")
        && history.is_whole()
    {
        found.push(Violation::MissingAdded(format!("the first event is {first}")));
    }
}

/// Jobs with the same name follow one another: the last event on a subject must be about the latest
/// Job, because the dispatcher resumes from it.
pub(super) fn check_interleaving(
    events: &BTreeMap<&str, Vec<Event<'_>>>,
    misplaced: &BTreeSet<u64>,
    found: &mut Vec<Violation>,
) {
    let mut spans: BTreeMap<&str, Vec<(u64, u64, &Event<'_>)>> = BTreeMap::new();
    for events in events.values() {
        let in_place = |event: &&Event<'_>| !misplaced.contains(&event.message.stream_seq);
        let end = events.iter().position(Event::is_outcome).map_or(events.len(), |place| place + 1);
        let mut life = events.iter().take(end).filter(in_place);
        let Some(first) = life.next() else { continue };
        let last = life.next_back().unwrap_or(first);
        let span = (first.message.stream_seq, last.message.stream_seq, last);
        spans.entry(first.message.subject.as_str()).or_default().push(span);
    }
    for spans in spans.values_mut() {
        spans.sort_by_key(|(first, ..)| *first);
        for pair in spans.windows(2) {
            if let &[(_, end, late), (start, _, other)] = pair
                && start < end
            {
                let text = format!("{late}, although the events of uid {} start at {start}", other.uid);
                found.push(Violation::Interleaved(text));
            }
        }
    }
}
