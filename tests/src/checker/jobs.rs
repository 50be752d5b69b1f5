//! Guarantees 2 and 3 per Job: one outcome, the correct one, as the last event; every event
//! correct.

use std::collections::{BTreeMap, BTreeSet};

use super::event::Event;
use super::history::{Finish, History, JobRecord};
use super::{Violation, order};

pub(super) fn check(history: &History, jobs: &[JobRecord], found: &mut Vec<Violation>) {
    let by_uid: BTreeMap<&str, &JobRecord> = jobs.iter().map(|job| (job.uid.as_str(), job)).collect();
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
        if !job.managed {
            found.push(Violation::UnmanagedJob(format!("{event}, {job}")));
            continue;
        }
        if !has_own_subject(&event, job) {
            found.push(Violation::WrongSubject(format!("{event}, {job}")));
            misplaced.insert(message.stream_seq);
        }
        check_request(&event, job, found);
        check_headers(&event, found);
        events.entry(event.uid).or_default().push(event);
    }
    order::check_interleaving(&events, &misplaced, found);
    for job in jobs.iter().filter(|job| job.managed) {
        let events = events.get(job.uid.as_str()).map_or(&[][..], Vec::as_slice);
        order::check(history, events, found);
        match events.iter().find(|event| event.is_outcome()) {
            Some(outcome) => {
                check_result(outcome, job, found);
                check_final_event(history, outcome, events, found);
                check_retired(history, job, found);
            }
            None if history.complete || job.deleted || job.finish.is_final() => {
                let last = events.last().map_or("no event".to_owned(), |event| format!("last: {event}"));
                found.push(Violation::MissingOutcome(format!("{job}; {last}")));
            }
            None => {}
        }
    }
}

/// Whether the subject, the body and the Job agree on the name and the template.
fn has_own_subject(event: &Event<'_>, job: &JobRecord) -> bool {
    let subject = format!("jobs.{}.status.{}", event.template, event.name);
    // The Job's template is read from labels, which anyone can remove; then it is unknown.
    let template = job.template.is_empty() || job.template == event.template;
    event.message.subject == subject && job.name == event.name && template
}

fn check_request(event: &Event<'_>, job: &JobRecord, found: &mut Vec<Violation>) {
    if event.request_seq != job.request_seq || event.request_id != job.request_id {
        let text = format!("{event} has request id {:?}; {job}", event.request_id);
        found.push(Violation::WrongRequest(text));
    }
}

fn check_headers(event: &Event<'_>, found: &mut Vec<Violation>) {
    let version = event.version.to_string();
    let expected = [
        ("Job-Event", event.type_),
        ("Job-Uid", event.uid),
        ("Job-Request-Id", event.request_id.trim()),
        ("Job-Resource-Version", &version),
    ];
    for (name, expected) in expected {
        let value = event.message.headers.get(name).map(|value| value.trim());
        if value != Some(expected) {
            let text = format!("{event}: header {name} is {value:?}, expected {expected:?}");
            found.push(Violation::WrongHeader(text));
        }
    }
}

fn check_result(outcome: &Event<'_>, job: &JobRecord, found: &mut Vec<Violation>) {
    let result = outcome.result().unwrap_or_default();
    let said = match result {
        "Complete" => Some(Finish::Complete),
        "Failed" => Some(Finish::Failed),
        "Deleted" | "Cancelled" => None,
        _ => {
            found.push(Violation::WrongResult(format!("{outcome}: unknown result {result:?}")));
            return;
        }
    };
    let in_event = Finish::of(&outcome.message.event["status"]);
    let text = || format!("{outcome}: result {result}, status in the event: {in_event:?}; {job}");
    match (said, in_event, job.finish) {
        (Some(said), own, real) if said == own && (said == real || real == Finish::Unknown) => {}
        (None, Finish::Not, Finish::Complete | Finish::Failed) => found.push(Violation::MissedFinish(text())),
        (None, Finish::Not, _) if job.deleted => {}
        _ => found.push(Violation::WrongResult(text())),
    }
}

/// The event with the final condition is published too, before the outcome.
fn check_final_event(
    history: &History,
    outcome: &Event<'_>,
    events: &[Event<'_>],
    found: &mut Vec<Violation>,
) {
    let own = Finish::of(&outcome.message.event["status"]);
    let before = events.iter().filter(|event| event.message.stream_seq < outcome.message.stream_seq);
    let mut states = before.filter(|event| event.is_state());
    let said = states.any(|event| Finish::of(&event.message.event["status"]) == own);
    if own.is_final() && !said && history.is_whole() {
        found.push(Violation::MissingFinalEvent(outcome.to_string()));
    }
}

fn check_retired(history: &History, job: &JobRecord, found: &mut Vec<Violation>) {
    if !history.complete || !job.watched || job.deleted || !job.finish.is_final() {
        return;
    }
    if !job.retired {
        found.push(Violation::NotRetired(job.to_string()));
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
