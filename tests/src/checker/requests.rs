//! Guarantee 1 per request: one Job or one dead letter, identified by the request's sequence.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::Violation;
use super::history::{DeadLetter, Expect, History, JobRecord, Request};
use super::reuse::{is_served, may_be_of};

/// What the streams and the cluster hold for one request.
#[derive(Default)]
struct Ends<'a> {
    request: Option<&'a Request>,
    jobs: Vec<&'a JobRecord>,
    dead_letters: Vec<&'a DeadLetter>,
}

/// The requests that are certainly stored, by their sequence. The ack of a duplicate names the
/// sequence of the stored message, which may be that of a publish without an ack.
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

pub(super) fn check(history: &History, jobs: &[JobRecord], found: &mut Vec<Violation>) {
    dead_letters(history, found);
    let mut all: BTreeMap<u64, Ends<'_>> = BTreeMap::new();
    for (seq, request) in stored(history) {
        all.entry(seq).or_default().request = Some(request);
    }
    for job in jobs.iter().filter(|job| job.managed) {
        all.entry(job.request_seq).or_default().jobs.push(job);
    }
    for dead_letter in &history.rejected {
        if let Some(seq) = dead_letter.request_seq() {
            all.entry(seq).or_default().dead_letters.push(dead_letter);
        }
    }
    // A publish without an ack accounts for at most one Job or dead letter.
    let mut unanswered: Vec<_> = history.requests.iter().filter(|request| request.seq.is_none()).collect();
    for (seq, ends) in &all {
        let who = Who { seq: *seq, request: ends.request };
        counts(&who, ends, found);
        match ends.request {
            Some(request) => {
                payload(&who, request, &ends.dead_letters, found);
                expected(history, jobs, &who, request, ends, found);
            }
            None if history.requests_complete => check_unrequested(history, ends, &mut unanswered, found),
            None => {}
        }
    }
}

/// A request, for messages.
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

fn place(dead_letter: &DeadLetter) -> String {
    let DeadLetter { stream_seq, subject, .. } = dead_letter;
    format!("message {stream_seq} on {subject} ({})", dead_letter.header("Job-Error"))
}

/// Checks the dead letters alone.
fn dead_letters(history: &History, found: &mut Vec<Violation>) {
    for dead_letter in &history.rejected {
        let needed = ["Job-Error", "Job-Error-Message", "Job-Request-Id", "Job-Request-Time"];
        for name in needed.into_iter().filter(|name| dead_letter.header(name).is_empty()) {
            found.push(Violation::RejectionHeader(format!("{}: no {name}", place(dead_letter))));
        }
        let Some(seq) = dead_letter.request_seq() else {
            found.push(Violation::RejectionHeader(format!("{}: no Job-Request-Seq", place(dead_letter))));
            continue;
        };
        if !dead_letter.subject.ends_with(&format!(".rejected.{seq}")) {
            found.push(Violation::RejectionSubject(format!("{}: of request {seq}", place(dead_letter))));
        }
    }
}

/// Never two Jobs, never both, never two dead letters.
fn counts(who: &Who<'_>, ends: &Ends<'_>, found: &mut Vec<Violation>) {
    if let [first, second, ..] = ends.jobs.as_slice() {
        found.push(Violation::DuplicateJob(format!("{who}: {first} and {second}")));
    }
    if let ([job, ..], [dead_letter, ..]) = (ends.jobs.as_slice(), ends.dead_letters.as_slice()) {
        found.push(Violation::JobAndRejection(format!("{who}: {job} and {}", place(dead_letter))));
    }
    // The same sequence at another time is a request of a recreated stream.
    let times: BTreeSet<_> =
        ends.dead_letters.iter().map(|dead_letter| dead_letter.header("Job-Request-Time")).collect();
    if times.len() < ends.dead_letters.len() {
        let places: Vec<_> = ends.dead_letters.iter().map(|dead_letter| place(dead_letter)).collect();
        found.push(Violation::DuplicateRejection(format!("{who}: {}", places.join(" and "))));
    }
}

fn payload(who: &Who<'_>, request: &Request, dead_letters: &[&DeadLetter], found: &mut Vec<Violation>) {
    for dead_letter in dead_letters {
        if !dead_letter.keeps(&request.payload) || dead_letter.template() != request.template {
            let payload = String::from_utf8_lossy(&dead_letter.payload);
            found.push(Violation::RejectionPayload(format!("{who}: {}: {payload}", place(dead_letter))));
        }
    }
}

/// Never neither, and the expected result.
#[expect(clippy::match_same_arms, reason = "each arm names its case")]
fn expected(
    history: &History,
    jobs: &[JobRecord],
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
            found.push(Violation::MismatchedJob(format!("{who}, expected {:?}: {job}", request.expect)));
        }
    }
    match (&request.expect, ends.jobs.first(), ends.dead_letters.first()) {
        // Reported by `check_counts`.
        (_, Some(_), Some(_)) => {}
        (Expect::Job(_), None, Some(dead_letter)) => {
            found.push(Violation::UnexpectedRejection(format!("{who}: {}", place(dead_letter))));
        }
        (Expect::Rejection(Some(reason)), None, Some(dead_letter))
            if dead_letter.header("Job-Error") != reason =>
        {
            found.push(Violation::WrongReason(format!("{who}: {}, expected {reason}", place(dead_letter))));
        }
        (_, None, Some(_)) | (Expect::Either | Expect::Job(_), Some(_), None) => {}
        (Expect::Rejection(reason), job, None) => {
            let job = job.map_or("no Job".to_owned(), ToString::to_string);
            found.push(Violation::MissingRejection(format!("{who}: expected {reason:?}, found {job}")));
        }
        (Expect::Either | Expect::Job(_), None, None) => match is_served(history, jobs, request) {
            Err(None) if history.complete => found.push(Violation::LostRequest(who.to_string())),
            Ok(()) | Err(None) => {}
            Err(Some(job)) => {
                let text = format!("{who}: its request id belongs to another request: {job}");
                found.push(Violation::MissingRejection(text));
            }
        },
    }
}

/// A Job or dead letter of no acknowledged request: its publish got no ack, or there was none.
fn check_unrequested(
    history: &History,
    ends: &Ends<'_>,
    unanswered: &mut Vec<&Request>,
    found: &mut Vec<Violation>,
) {
    let mut take = |fits: &dyn Fn(&Request) -> bool| {
        let place = unanswered.iter().position(|request| fits(request));
        place.map(|place| unanswered.swap_remove(place)).is_some()
    };
    if let Some(job) = ends.jobs.first() {
        let known =
            history.requests.iter().any(|request| may_be_of(request, job) && request.msg_id.is_some());
        if !known && !take(&|request| request.msg_id.is_none() && may_be_of(request, job)) {
            found.push(Violation::JobWithoutRequest(job.to_string()));
        }
    } else if let Some(dead_letter) = ends.dead_letters.first()
        && !take(&|request| request.template == dead_letter.template() && dead_letter.keeps(&request.payload))
    {
        let payload = String::from_utf8_lossy(&dead_letter.payload);
        found.push(Violation::RejectionWithoutRequest(format!("{}: {payload}", place(dead_letter))));
    }
}
