//! Promise 3: the events of a Job in the order of its resourceVersions, each once, the outcome last.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use super::event::Event;
use super::history::History;

/// The events of one uid, in the order of the stream.
pub(super) fn check(history: &History, events: &[Event<'_>], found: &mut Vec<Violation>) {
    let mut outcome: Option<&Event<'_>> = None;
    let mut newest: Option<&Event<'_>> = None;
    for (place, event) in events.iter().enumerate() {
        let after = |other: &Event<'_>| format!("{event}, after {other}");
        match (outcome, newest) {
            (Some(outcome), _) if event.is_outcome() => {
                found.push(Violation::SecondOutcome(after(outcome)));
                continue;
            }
            (Some(outcome), _) => {
                found.push(Violation::AfterOutcome(after(outcome)));
                continue;
            }
            (None, Some(_)) | (None, None) if event.word == "ADDED" && place > 0 => {
                found.push(Violation::AddedNotFirst(after(&events[0])));
                continue;
            }
            (None, Some(newest)) => {
                let said_gone = newest.word == "DELETED" && event.is_state();
                // A pod's event tells nothing newer of its Job than what was said.
                let ahead = event.version > newest.version && event.is_of_pods();
                if event.version < newest.version || said_gone && event.version > newest.version {
                    found.push(Violation::OutOfOrder(after(newest)));
                } else if ahead {
                    found.push(Violation::Ahead(after(newest)));
                } else if event.version == newest.version && event.is_state() {
                    found.push(Violation::Repeated(after(newest)));
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
    // A Job that was gone before anything was said has a DELETED only.
    let added = events.iter().any(|event| event.word == "ADDED");
    if let Some(first) = events.first().filter(|first| !added && first.word != "DELETED")
        && history.is_whole()
    {
        found.push(Violation::NoAdded(format!("the first is {first}")));
    }
}

/// A name's Jobs follow each other: what is last on a subject tells of the latest one, which the memory of what was said
/// rests on.
pub(super) fn mixed(
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
                let text = format!("{late}, although uid {} was spoken of from {start} on", other.uid);
                found.push(Violation::Interleaved(text));
            }
        }
    }
}
