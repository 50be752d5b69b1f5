//! Promise 1, request by request: one Job or one rejection, by the request's sequence.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::Violation;
use super::history::{DeadLetter, Expect, History, JobSeen, Request};
use super::reuse::{is_served, may_be_of};

/// What the streams and the cluster hold of one request.
#[derive(Default)]
struct Ends<'a> {
    request: Option<&'a Request>,
    jobs: Vec<&'a JobSeen>,
    letters: Vec<&'a DeadLetter>,
}

/// The requests that are known to be stored, by their sequence. A duplicate's answer names the sequence of the message
/// that is stored, which may be that of a publish without an answer.
pub(super) fn stored(history: &History) -> BTreeMap<u64, &Request> {
    let mut stored = BTreeMap::new();
    let of = |duplicate: bool| history.requests.iter().filter(move |request| request.duplicate == duplicate);
    for request in of(false).chain(of(true)) {
        if let Some(seq) = request.seq {
            stored.entry(seq).or_insert(request);
        }
    }
    stored
}

pub(super) fn check(history: &History, jobs: &[JobSeen], found: &mut Vec<Violation>) {
    letters(history, found);
    let mut all: BTreeMap<u64, Ends<'_>> = BTreeMap::new();
    for (seq, request) in stored(history) {
        all.entry(seq).or_default().request = Some(request);
    }
    for job in jobs.iter().filter(|job| job.ours) {
        all.entry(job.request_seq).or_default().jobs.push(job);
    }
    for letter in &history.rejected {
        if let Some(seq) = letter.request_seq() {
            all.entry(seq).or_default().letters.push(letter);
        }
    }
    // A publish without an answer accounts for at most one Job or rejection.
    let mut unanswered: Vec<_> = history.requests.iter().filter(|request| request.seq.is_none()).collect();
    for (seq, ends) in &all {
        let who = Who { seq: *seq, request: ends.request };
        counts(&who, ends, found);
        match ends.request {
            Some(request) => {
                payload(&who, request, &ends.letters, found);
                expected(history, jobs, &who, request, ends, found);
            }
            None if history.requests_complete => unasked(history, ends, &mut unanswered, found),
            None => {}
        }
    }
}

/// A request in a message.
struct Who<'a> {
    seq: u64,
    request: Option<&'a Request>,
}

impl fmt::Display for Who<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "request {}", self.seq)?;
        let Some(Request { template, msg_id, payload, .. }) = self.request else { return Ok(()) };
        let payload: String = String::from_utf8_lossy(payload).chars().take(120).collect();
        write!(formatter, " of {template} (Nats-Msg-Id {msg_id:?}, payload {payload})")
    }
}

fn place(letter: &DeadLetter) -> String {
    let DeadLetter { stream_seq, subject, .. } = letter;
    format!("message {stream_seq} on {subject} ({})", letter.header("Job-Error"))
}

/// What holds of the rejections alone.
fn letters(history: &History, found: &mut Vec<Violation>) {
    let mut requests: BTreeMap<&str, u64> = BTreeMap::new();
    for letter in &history.rejected {
        let needed = ["Job-Error", "Job-Error-Message", "Job-Request-Id", "Nats-Msg-Id"];
        for name in needed.into_iter().filter(|name| letter.header(name).is_empty()) {
            found.push(Violation::RejectionHeader(format!("{}: no {name}", place(letter))));
        }
        let Some(seq) = letter.request_seq() else {
            found.push(Violation::RejectionHeader(format!("{}: no Job-Request-Seq", place(letter))));
            continue;
        };
        let id = letter.header("Nats-Msg-Id");
        let other = *requests.entry(id).or_insert(seq);
        if other != seq && !id.is_empty() {
            let text = format!("{}: {id:?} of the requests {other} and {seq}", place(letter));
            found.push(Violation::RejectionIdShared(text));
        }
    }
}

/// Never two Jobs, never both, never two rejections.
fn counts(who: &Who<'_>, ends: &Ends<'_>, found: &mut Vec<Violation>) {
    if let [first, second, ..] = ends.jobs.as_slice() {
        found.push(Violation::SecondJob(format!("{who}: {first} and {second}")));
    }
    if let ([job, ..], [letter, ..]) = (ends.jobs.as_slice(), ends.letters.as_slice()) {
        found.push(Violation::JobAndRejection(format!("{who}: {job} and {}", place(letter))));
    }
    let ids: BTreeSet<_> = ends.letters.iter().map(|letter| letter.header("Nats-Msg-Id")).collect();
    if ids.len() > 1 && !ids.contains("") {
        found.push(Violation::RejectionRepeated(format!("{who}: {ids:?}")));
    }
}

fn payload(who: &Who<'_>, request: &Request, letters: &[&DeadLetter], found: &mut Vec<Violation>) {
    for letter in letters {
        if letter.payload != request.payload || letter.template() != request.template {
            let payload = String::from_utf8_lossy(&letter.payload);
            found.push(Violation::RejectionPayload(format!("{who}: {}: {payload}", place(letter))));
        }
    }
}

/// Never neither, and what was expected of it.
fn expected(
    history: &History,
    jobs: &[JobSeen],
    who: &Who<'_>,
    request: &Request,
    ends: &Ends<'_>,
    found: &mut Vec<Violation>,
) {
    for job in &ends.jobs {
        let id = request.msg_id.as_ref().is_none_or(|id| id.trim() == job.request_id.trim());
        let template = job.template.is_empty() || job.template == request.template;
        let name = !matches!(&request.expect, Expect::Job(Some(name)) if *name != job.name);
        if !(id && template && name) {
            found.push(Violation::WrongJob(format!("{who}, expected {:?}: {job}", request.expect)));
        }
    }
    match (&request.expect, ends.jobs.first(), ends.letters.first()) {
        // Said already.
        (_, Some(_), Some(_)) => {}
        (Expect::Job(_), None, Some(letter)) => {
            found.push(Violation::UnexpectedRejection(format!("{who}: {}", place(letter))));
        }
        (Expect::Rejection(Some(reason)), None, Some(letter)) if letter.header("Job-Error") != reason => {
            found.push(Violation::WrongReason(format!("{who}: {}, expected {reason}", place(letter))));
        }
        (_, None, Some(_)) | (Expect::Either | Expect::Job(_), Some(_), None) => {}
        (Expect::Rejection(reason), job, None) => {
            let job = job.map_or("no Job either".to_owned(), ToString::to_string);
            found.push(Violation::MissingRejection(format!("{who}: expected {reason:?}, found {job}")));
        }
        (Expect::Either | Expect::Job(_), None, None) => match is_served(history, jobs, request) {
            Err(None) if history.at_rest => found.push(Violation::LostRequest(who.to_string())),
            Ok(()) | Err(None) => {}
            Err(Some(job)) => {
                let text = format!("{who}: its identity was used before, with another request: {job}");
                found.push(Violation::MissingRejection(text));
            }
        },
    }
}

/// What no acknowledged request asked for: of a publish without an answer, or of nobody.
fn unasked(history: &History, ends: &Ends<'_>, unanswered: &mut Vec<&Request>, found: &mut Vec<Violation>) {
    let mut take = |fits: &dyn Fn(&Request) -> bool| {
        let place = unanswered.iter().position(|request| fits(request));
        place.map(|place| unanswered.swap_remove(place)).is_some()
    };
    if let Some(job) = ends.jobs.first() {
        let known =
            history.requests.iter().any(|request| may_be_of(request, job) && request.msg_id.is_some());
        if !known && !take(&|request| request.msg_id.is_none() && may_be_of(request, job)) {
            found.push(Violation::UnaskedJob(job.to_string()));
        }
    } else if let Some(letter) = ends.letters.first()
        && !take(&|request| request.template == letter.template() && request.payload == letter.payload)
    {
        let payload = String::from_utf8_lossy(&letter.payload);
        found.push(Violation::UnaskedRejection(format!("{}: {payload}", place(letter))));
    }
}
