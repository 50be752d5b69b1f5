//! Guarantee 1 if several requests have the same `Nats-Msg-Id` outside the deduplication window.
//!
//! The same request again gets no second Job. A different request with the same id is rejected if
//! it has the same name; if it has another name, it may get its own Job.

use std::collections::BTreeMap;

use super::Violation;
use super::history::{Expect, History, JobRecord, Request};
use super::requests::stored;

/// Whether the Job may belong to this request, by request id, template and expected name.
pub(super) fn may_be_of(request: &Request, job: &JobRecord) -> bool {
    let id = request.msg_id.as_ref().is_none_or(|id| id.trim() == job.request_id.trim());
    let name = !matches!(&request.expect, Expect::Job(Some(name)) if *name != job.name);
    let template = job.template.is_empty() || request.template == job.template;
    id && name && template && !matches!(request.expect, Expect::Rejection(_))
}

/// A Job and the request that it was created for, if that is known.
type JobOf<'a> = (&'a JobRecord, Option<&'a Request>);

/// The Jobs with a request id.
fn jobs_with_id<'a>(
    history: &'a History,
    stored: &BTreeMap<u64, &'a Request>,
    jobs: impl Iterator<Item = &'a JobRecord>,
    id: &str,
) -> Vec<JobOf<'a>> {
    let made_for = |job: &'a JobRecord| {
        let retried = |r: &&Request| r.seq.is_none() && r.msg_id.is_some() && may_be_of(r, job);
        stored.get(&job.request_seq).copied().or_else(|| history.requests.iter().find(retried))
    };
    jobs.filter(|job| job.managed && job.request_id.trim() == id.trim())
        .map(|job| (job, made_for(job)))
        .collect()
}

/// Whether a request without its own Job or dead letter equals the request of an existing Job. The
/// error is the Job of a different request, if there is one.
pub(super) fn is_served<'a>(
    history: &'a History,
    jobs: &'a [JobRecord],
    request: &Request,
) -> Result<(), Option<&'a JobRecord>> {
    let Some(id) = &request.msg_id else { return Err(None) };
    let of_template = jobs.iter().filter(|job| job.template == request.template || job.template.is_empty());
    let mut instead = None;
    for (job, made_for) in jobs_with_id(history, &stored(history), of_template, id) {
        if made_for.is_none_or(|other| other.is_same(request)) {
            return Ok(());
        }
        instead = Some(job);
    }
    Err(instead)
}

pub(super) fn check(history: &History, jobs: &[JobRecord], found: &mut Vec<Violation>) {
    let stored = stored(history);
    let mut by_id: BTreeMap<(&str, &str), Vec<&JobRecord>> = BTreeMap::new();
    for job in jobs.iter().filter(|job| job.managed) {
        by_id.entry((job.template.as_str(), job.request_id.as_str())).or_default().push(job);
    }
    for ((template, id), jobs) in by_id.iter().filter(|(_, jobs)| jobs.len() > 1) {
        let group = jobs_with_id(history, &stored, jobs.iter().copied(), id);
        for (place, (job, made_for)) in group.iter().enumerate() {
            let same = |(other, request): &&JobOf<'_>| {
                let same_request = made_for.zip(*request).is_some_and(|(one, other)| one.is_same(other));
                other.request_seq != job.request_seq && (same_request || other.name == job.name)
            };
            if let Some((other, _)) = group.iter().take(place).find(same) {
                found.push(Violation::DuplicateJob(format!(
                    "request id {id:?} of {template}: {other} and {job}"
                )));
            }
        }
    }
    // `RequestIdReused` is correct only for a different request.
    for dead_letter in
        history.rejected.iter().filter(|dead_letter| dead_letter.header("Job-Error") == "RequestIdReused")
    {
        let Some((seq, request)) = dead_letter.request_seq().and_then(|seq| Some((seq, *stored.get(&seq)?)))
        else {
            continue;
        };
        let jobs = by_id.get(&(dead_letter.template(), request.msg_id.as_deref().unwrap_or_default()));
        let same = |job: &&&JobRecord| {
            let made_for = stored.get(&job.request_seq);
            job.request_seq != seq && made_for.is_some_and(|other| other.is_same(request))
        };
        if let Some(job) = jobs.into_iter().flatten().find(same) {
            let text =
                format!("request {seq} is rejected with RequestIdReused, but equals the request of {job}");
            found.push(Violation::JobAndRejection(text));
        }
    }
}
