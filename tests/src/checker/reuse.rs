//! Promise 1 where several requests carry one `Nats-Msg-Id`, published again outside the deduplication window.
//!
//! The same request again is served by the Job that is there. Another request under the same identity is rejected where
//! it asks for the same name; where it asks for another name, the contract leaves it a Job of its own.

use std::collections::BTreeMap;

use super::Violation;
use super::history::{Expect, History, JobSeen, Request};
use super::requests::stored;

/// Whether the Job can be this request's, as far as identity, template and expected name tell.
pub(super) fn may_be_of(request: &Request, job: &JobSeen) -> bool {
    let id = request.msg_id.as_ref().is_none_or(|id| id.trim() == job.request_id.trim());
    let name = !matches!(&request.expect, Expect::Job(Some(name)) if *name != job.name);
    let template = job.template.is_empty() || request.template == job.template;
    id && name && template && !matches!(request.expect, Expect::Rejection(_))
}

/// A Job with the request that it was made for, where that is known.
type Made<'a> = (&'a JobSeen, Option<&'a Request>);

/// The Jobs of an identity.
fn group<'a>(
    history: &'a History,
    stored: &BTreeMap<u64, &'a Request>,
    jobs: impl Iterator<Item = &'a JobSeen>,
    id: &str,
) -> Vec<Made<'a>> {
    let made_for = |job: &'a JobSeen| {
        let retried = |r: &&Request| r.seq.is_none() && r.msg_id.is_some() && may_be_of(r, job);
        stored.get(&job.request_seq).copied().or_else(|| history.requests.iter().find(retried))
    };
    jobs.filter(|job| job.ours && job.request_id.trim() == id.trim())
        .map(|job| (job, made_for(job)))
        .collect()
}

/// Whether a request without a Job or rejection of its own is served by the Job of the same request under the same
/// identity. The error is the Job of another request, if there is one.
pub(super) fn is_served<'a>(
    history: &'a History,
    jobs: &'a [JobSeen],
    request: &Request,
) -> Result<(), Option<&'a JobSeen>> {
    let Some(id) = &request.msg_id else { return Err(None) };
    let of_template = jobs.iter().filter(|job| job.template == request.template || job.template.is_empty());
    let mut instead = None;
    for (job, made_for) in group(history, &stored(history), of_template, id) {
        if made_for.is_none_or(|other| other.is_same(request)) {
            return Ok(());
        }
        instead = Some(job);
    }
    Err(instead)
}

pub(super) fn check(history: &History, jobs: &[JobSeen], found: &mut Vec<Violation>) {
    let stored = stored(history);
    let mut by_id: BTreeMap<(&str, &str), Vec<&JobSeen>> = BTreeMap::new();
    for job in jobs.iter().filter(|job| job.ours) {
        by_id.entry((job.template.as_str(), job.request_id.as_str())).or_default().push(job);
    }
    for ((template, id), jobs) in by_id.iter().filter(|(_, jobs)| jobs.len() > 1) {
        let group = group(history, &stored, jobs.iter().copied(), id);
        for (place, (job, made_for)) in group.iter().enumerate() {
            let same = |(other, request): &&Made<'_>| {
                let same_request = made_for.zip(*request).is_some_and(|(one, other)| one.is_same(other));
                other.request_seq != job.request_seq && (same_request || other.name == job.name)
            };
            if let Some((other, _)) = group.iter().take(place).find(same) {
                found.push(Violation::SecondJob(format!(
                    "request id {id:?} of {template}: {other} and {job}"
                )));
            }
        }
    }
    // `RequestIdReused` is for another request only.
    for letter in history.rejected.iter().filter(|letter| letter.header("Job-Error") == "RequestIdReused") {
        let Some((seq, request)) = letter.request_seq().and_then(|seq| Some((seq, *stored.get(&seq)?)))
        else {
            continue;
        };
        let jobs = by_id.get(&(letter.template(), request.msg_id.as_deref().unwrap_or_default()));
        let same = |job: &&&JobSeen| {
            let made_for = stored.get(&job.request_seq);
            job.request_seq != seq && made_for.is_some_and(|other| other.is_same(request))
        };
        if let Some(job) = jobs.into_iter().flatten().find(same) {
            let text = format!("request {seq}, the same as that of {job}, is rejected: RequestIdReused");
            found.push(Violation::JobAndRejection(text));
        }
    }
}
