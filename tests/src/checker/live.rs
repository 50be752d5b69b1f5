//! Guarantee 4: a plain subscriber receives the stored messages in order, and rejection notices.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use super::history::{History, ReceivedMessage, Subscriber};

pub(super) fn check(history: &History, found: &mut Vec<Violation>) {
    let Some(live) = &history.live else { return };
    let stored: BTreeMap<u64, _> = history.status.iter().map(|m| (m.stream_seq, m)).collect();
    let rejected: BTreeSet<_> = history.rejected.iter().map(|l| (l.template(), l.request_seq())).collect();
    let mut seen = BTreeSet::new();
    let mut last = 0;
    for message in &live.messages {
        let ReceivedMessage { subject, sequence, event } = message;
        let Some(sequence) = *sequence else {
            if !is_notice(&rejected, message) {
                found.push(Violation::ReceivedUnknown(format!("{subject}: {event}")));
            }
            continue;
        };
        match stored.get(&sequence) {
            None => {
                found.push(Violation::ReceivedUnknown(format!("{subject}, sequence {sequence}: {event}")));
            }
            Some(stored) if stored.subject != *subject || stored.event != *event => {
                let text = format!(
                    "sequence {sequence}: received on {subject}: {event}; stored on {}: {}",
                    stored.subject, stored.event
                );
                found.push(Violation::ReceivedDifferent(text));
            }
            Some(_) => {}
        }
        // If a leader dies, its successor may republish a message a second time.
        let again = !live.stayed_connected && seen.contains(&sequence);
        if sequence <= last && !again {
            let text = format!("{subject}: sequence {sequence} came after {last}");
            found.push(Violation::ReceivedOutOfOrder(text));
        }
        last = last.max(sequence);
        seen.insert(sequence);
    }
    missed(history, live, &seen, found);
}

fn missed(history: &History, live: &Subscriber, seen: &BTreeSet<u64>, found: &mut Vec<Violation>) {
    if !live.stayed_connected {
        return;
    }
    for message in history.status.iter().filter(|m| m.stream_seq > live.after) {
        if !seen.contains(&message.stream_seq) {
            let text = format!("sequence {} on {}", message.stream_seq, message.subject);
            found.push(Violation::ReceivedTooFew(text));
        }
    }
}

/// Whether the message is the notice of a stored dead letter.
fn is_notice(rejected: &BTreeSet<(&str, Option<u64>)>, message: &ReceivedMessage) -> bool {
    let tokens: Vec<_> = message.subject.split('.').collect();
    let &["jobs", template, "status", "_rejected"] = tokens.as_slice() else { return false };
    let seq = message.event["requestSeq"].as_u64();
    message.event["type"] == "REJECTED" && seq.is_some() && rejected.contains(&(template, seq))
}
