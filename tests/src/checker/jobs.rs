//! Promises 2 and 3, Job by Job: one outcome, the right one, the last word; every event true to its Job.

use std::collections::{BTreeMap, BTreeSet};

use super::event::Event;
use super::history::{Ended, History, JobSeen};
use super::{Violation, order};

pub(super) fn check(history: &History, jobs: &[JobSeen], found: &mut Vec<Violation>) {
    let by_uid: BTreeMap<&str, &JobSeen> = jobs.iter().map(|job| (job.uid.as_str(), job)).collect();
    let mut events: BTreeMap<&str, Vec<Event<'_>>> = BTreeMap::new();
    let mut misplaced = BTreeSet::new();
    for message in &history.status {
        let event = match Event::read(message) {
            Ok(event) => event,
            Err(problem) => {
                let text = format!("sequence {} on {}: {problem}", message.stream_seq, message.subject);
                found.push(Violation::Malformed(text));
                continue;
            }
        };
        let Some(job) = by_uid.get(event.uid) else { continue };
        if !job.ours {
            found.push(Violation::ForeignJob(format!("{event}, {job}")));
            continue;
        }
        if !is_in_its_place(&event, job) {
            found.push(Violation::WrongSubject(format!("{event}, {job}")));
            misplaced.insert(message.stream_seq);
        }
        request(&event, job, found);
        headers(&event, found);
        events.entry(event.uid).or_default().push(event);
    }
    order::mixed(&events, &misplaced, found);
    for job in jobs.iter().filter(|job| job.ours) {
        let events = events.get(job.uid.as_str()).map_or(&[][..], Vec::as_slice);
        order::check(history, events, found);
        match events.iter().find(|event| event.is_outcome()) {
            Some(outcome) => {
                result(outcome, job, found);
                end_said(history, outcome, events, found);
                settled(history, job, found);
            }
            None if history.at_rest || job.deleted || job.ended.is_final() => {
                let last =
                    events.last().map_or("nothing was said".to_owned(), |event| format!("last: {event}"));
                found.push(Violation::NoOutcome(format!("{job}; {last}")));
            }
            None => {}
        }
    }
}

/// Whether subject, body and Job are of one name and template.
fn is_in_its_place(event: &Event<'_>, job: &JobSeen) -> bool {
    let subject = format!("jobs.{}.status.{}", event.template, event.name);
    // A Job's template stands on labels, which anyone can take off; then it is not known.
    let template = job.template.is_empty() || job.template == event.template;
    event.message.subject == subject && job.name == event.name && template
}

fn request(event: &Event<'_>, job: &JobSeen, found: &mut Vec<Violation>) {
    if event.request_seq != job.request_seq || event.request_id != job.request_id {
        let text = format!("{event} says request id {:?}, the Job is {job}", event.request_id);
        found.push(Violation::WrongRequest(text));
    }
}

fn headers(event: &Event<'_>, found: &mut Vec<Violation>) {
    let version = event.version.to_string();
    let expected = [
        ("Job-Event", event.word),
        ("Job-Uid", event.uid),
        ("Job-Request-Id", event.request_id.trim()),
        ("Job-Resource-Version", &version),
    ];
    for (name, expected) in expected {
        let value = event.message.headers.get(name).map(|value| value.trim());
        if value != Some(expected) {
            let text = format!("{event}: header {name} is {value:?}, the event says {expected:?}");
            found.push(Violation::WrongHeader(text));
        }
    }
}

fn result(outcome: &Event<'_>, job: &JobSeen, found: &mut Vec<Violation>) {
    let result = outcome.result().unwrap_or_default();
    let said = match result {
        "Complete" => Some(Ended::Complete),
        "Failed" => Some(Ended::Failed),
        "Deleted" | "Cancelled" => None,
        _ => {
            found.push(Violation::WrongResult(format!("{outcome}: {result:?} is no result")));
            return;
        }
    };
    let in_event = Ended::of(&outcome.message.event["status"]);
    let text = || format!("{outcome}: result {result}, its own status: {in_event:?}; the Job: {job}");
    match (said, in_event, job.ended) {
        (Some(said), own, real) if said == own && (said == real || real == Ended::Unknown) => {}
        (None, Ended::Not, Ended::Complete | Ended::Failed) => found.push(Violation::EndOverlooked(text())),
        (None, Ended::Not, _) if job.deleted => {}
        _ => found.push(Violation::WrongResult(text())),
    }
}

/// The event that brings the final condition is published too, before the outcome.
fn end_said(history: &History, outcome: &Event<'_>, events: &[Event<'_>], found: &mut Vec<Violation>) {
    let own = Ended::of(&outcome.message.event["status"]);
    let before = events.iter().filter(|event| event.message.stream_seq < outcome.message.stream_seq);
    let mut states = before.filter(|event| event.is_state());
    let said = states.any(|event| Ended::of(&event.message.event["status"]) == own);
    if own.is_final() && !said && history.is_whole() {
        found.push(Violation::EndNotSaid(outcome.to_string()));
    }
}

fn settled(history: &History, job: &JobSeen, found: &mut Vec<Violation>) {
    if !history.at_rest || !job.watched || job.deleted || !job.ended.is_final() {
        return;
    }
    if !job.settled {
        found.push(Violation::NotSettled(job.to_string()));
        return;
    }
    let right = match history.ttls.get(&job.template) {
        Some(ttl) => *ttl == job.ttl,
        None => job.ttl.is_some(),
    };
    if !right {
        let expected = history.ttls.get(&job.template).map_or("some".to_owned(), |ttl| format!("{ttl:?}"));
        found.push(Violation::WrongTtl(format!("{job}: found {:?}, expected {expected}", job.ttl)));
    }
}
