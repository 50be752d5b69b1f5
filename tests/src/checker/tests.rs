use std::collections::BTreeSet;

use serde_json::json;

use super::history::{Finish, ReceivedMessage, StatusMessage, Subscriber, sha256};
use super::*;

mod delays;
mod identity;
mod valid;

use valid::{Builder, valid};

/// The name of a violation, and a change of the valid history that causes it.
type Mutation = (&'static str, fn(&mut History));

fn event(history: &mut History, uid: &str, type_: &str) -> usize {
    let is_it = |m: &StatusMessage| m.event["uid"] == uid && m.event["type"] == type_;
    history.status.iter().position(is_it).unwrap()
}

fn set(history: &mut History, uid: &str, type_: &str, change: fn(&mut StatusMessage)) {
    let place = event(history, uid, type_);
    change(&mut history.status[place]);
    replay(history);
}

/// Renumbers the messages and lets the plain subscriber receive them again.
fn replay(history: &mut History) {
    for (message, seq) in history.status.iter_mut().zip(1..) {
        message.stream_seq = seq;
    }
    valid::subscribe(history);
}

fn insert_copy(history: &mut History, uid: &str, type_: &str, behind: usize) {
    let place = event(history, uid, type_);
    let copy = history.status[place].clone();
    history.status.insert(place + behind, copy);
    replay(history);
}

fn job<'a>(history: &'a mut History, uid: &str) -> &'a mut history::JobRecord {
    history.jobs.iter_mut().find(|job| job.uid == uid).unwrap()
}

fn live(history: &mut History) -> &mut Vec<ReceivedMessage> {
    &mut history.live.as_mut().unwrap().messages
}

const MUTATIONS: &[Mutation] = &[
    ("LostRequest", |h| h.rejected.retain(|dead_letter| dead_letter.header("Job-Error") != "InvalidName")),
    ("DuplicateJob", |h| Builder::duplicate_job(h, "complete", "complete-again")),
    ("JobAndRejection", |h| {
        let mut dead_letter = h.rejected[0].clone();
        dead_letter.headers.insert("Job-Request-Seq".into(), "1".into());
        dead_letter.subject = "jobs.simple.rejected.1".into();
        dead_letter.payload = h.requests[0].payload.clone();
        dead_letter.headers.insert("Job-Payload-Sha256".into(), sha256(&dead_letter.payload));
        h.rejected.push(dead_letter);
    }),
    ("JobWithoutRequest", |h| {
        let mut builder = Builder::of(h);
        builder.job("extra", "stray", 99, "nobody");
        builder.finish("extra", "Complete");
        *h = builder.done();
    }),
    ("RejectionWithoutRequest", |h| {
        let mut dead_letter = h.rejected[0].clone();
        dead_letter.headers.insert("Job-Request-Seq".into(), "98".into());
        dead_letter.subject = "jobs.simple.rejected.98".into();
        h.rejected.push(dead_letter);
    }),
    ("MismatchedJob", |h| h.requests[0].expect = Expect::Job(Some("another".into()))),
    ("MissingRejection", |h| h.requests[0].expect = Expect::Rejection(None)),
    ("UnexpectedRejection", |h| {
        let place = h.requests.iter().position(|r| matches!(r.expect, Expect::Rejection(_))).unwrap();
        h.requests[place].expect = Expect::Job(None);
    }),
    ("WrongReason", |h| {
        h.rejected[0].headers.insert("Job-Error".into(), "Refused".into());
    }),
    ("DuplicateRejection", |h| {
        let dead_letter = h.rejected[0].clone();
        h.rejected.push(dead_letter);
    }),
    ("RejectionSubject", |h| h.rejected[1].subject = h.rejected[0].subject.clone()),
    ("RejectionPayload", |h| h.rejected[0].payload.push(b' ')),
    ("RejectionHeader", |h| drop(h.rejected[0].headers.remove("Job-Error-Message"))),
    ("QueuedRequests", |h| h.queued_requests = 1),
    ("MissingOutcome", |h| {
        let place = event(h, "failed", "OUTCOME");
        h.status.remove(place);
        replay(h);
    }),
    ("DuplicateOutcome", |h| insert_copy(h, "complete", "OUTCOME", 1)),
    ("EventAfterOutcome", |h| {
        let place = event(h, "complete", "ATTEMPT");
        let event = h.status.remove(place);
        h.status.push(event);
        replay(h);
    }),
    ("WrongResult", |h| set(h, "failed", "OUTCOME", |m| m.event["outcome"]["result"] = "Complete".into())),
    ("MissedFinish", |h| job(h, "deleted").finish = Finish::Complete),
    ("UnmanagedJob", |h| {
        let mut message = h.status[0].clone();
        message.event["uid"] = "other".into();
        h.status.push(message);
        replay(h);
    }),
    ("NotRetired", |h| job(h, "failed").retired = false),
    ("WrongTtl", |h| job(h, "failed").ttl = None),
    ("OutOfOrder", |h| {
        let place = event(h, "failed", "MODIFIED");
        h.status.swap(place, place + 1);
        replay(h);
    }),
    ("PodEventAhead", |h| {
        set(h, "failed", "ATTEMPT", |m| {
            let version = m.event["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap() + 1;
            m.event["resourceVersion"] = version.to_string().into();
            m.headers.insert("Job-Resource-Version".into(), version.to_string());
        });
    }),
    ("DuplicateEvent", |h| insert_copy(h, "failed", "MODIFIED", 1)),
    ("AddedNotFirst", |h| insert_copy(h, "failed", "ADDED", 1)),
    ("MissingAdded", |h| {
        let place = event(h, "failed", "ADDED");
        h.status.remove(place);
        replay(h);
    }),
    ("MissingFinalEvent", |h| {
        h.status.retain(|m| {
            let uid = m.event["uid"] == "failed" && m.event["type"] == "MODIFIED";
            !(uid && Finish::of(&m.event["status"]).is_final())
        });
        replay(h);
    }),
    ("Interleaved", |h| {
        let (late, early) = (event(h, "complete", "OUTCOME"), event(h, "recurs", "ADDED"));
        let outcome = h.status.remove(late);
        h.status.insert(early, outcome);
        replay(h);
    }),
    ("Malformed", |h| set(h, "failed", "MODIFIED", |m| m.event["resourceVersion"] = json!("x"))),
    ("Malformed", |h| set(h, "failed", "ATTEMPT", |m| drop(m.event["attempt"].take()))),
    ("Malformed", |h| {
        set(h, "failed", "MODIFIED", |m| m.event["stall"] = json!({"reason": "Unschedulable"}));
    }),
    ("WrongSubject", |h| set(h, "failed", "MODIFIED", |m| m.subject = "jobs.simple.status.deleted".into())),
    ("WrongHeader", |h| set(h, "failed", "MODIFIED", |m| drop(m.headers.remove("Job-Uid")))),
    ("WrongRequest", |h| set(h, "failed", "MODIFIED", |m| m.event["requestSeq"] = json!(1))),
    ("ReceivedUnknown", |h| {
        let mut message = live(h)[0].clone();
        message.sequence = None;
        live(h).insert(1, message);
    }),
    ("ReceivedDifferent", |h| live(h)[0].event["type"] = "MODIFIED".into()),
    ("ReceivedOutOfOrder", |h| live(h).swap(0, 1)),
    ("ReceivedTooFew", |h| drop(live(h).remove(1))),
];

fn names(history: &History) -> Vec<String> {
    check(history).iter().map(|violation| violation.name().to_owned()).collect()
}

#[test]
fn valid_history_has_no_violation() {
    let history = valid();
    assert_guarantees(&history);
    assert!(history.jobs.len() > 4 && history.rejected.len() > 2, "{}", history.summary());
}

#[test]
fn each_violation_is_reported_under_its_own_name() {
    for (name, mutate) in MUTATIONS {
        let mut history = valid();
        mutate(&mut history);
        let found = check(&history);
        let only = found.iter().map(Violation::name).collect::<BTreeSet<_>>();
        let texts: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(only, BTreeSet::from([*name]), "{name}: {texts:#?}");
    }
}

#[test]
fn every_violation_has_a_mutation() {
    let mutateed: BTreeSet<_> = MUTATIONS.iter().map(|(name, _)| *name).collect();
    assert_eq!(mutateed, Violation::NAMES.iter().copied().collect());
}

#[test]
fn unfinished_job_is_a_violation_only_in_a_complete_history() {
    let mut history = valid();
    let outcome = event(&mut history, "failed", "OUTCOME");
    history.status.remove(outcome);
    replay(&mut history);
    job(&mut history, "failed").finish = Finish::Not;
    history.complete = false;
    assert_eq!(names(&history), [""; 0]);
    history.complete = true;
    assert_eq!(names(&history), ["MissingOutcome"]);
}

#[test]
fn job_missed_by_the_watch_is_taken_from_its_events() {
    let mut history = valid();
    history.jobs.retain(|job| job.uid != "deleted");
    assert_eq!(names(&history), [""; 0]);
    let place = event(&mut history, "deleted", "OUTCOME");
    history.status.remove(place);
    replay(&mut history);
    assert_eq!(names(&history), ["MissingOutcome"]);
}

#[test]
fn reconnected_subscriber_may_miss_messages() {
    let mut history = valid();
    live(&mut history).remove(1);
    let live = history.live.take().unwrap();
    history.live = Some(Subscriber { stayed_connected: false, ..live });
    assert_eq!(names(&history), [""; 0]);
}

/// A restarted NATS cluster republished a message that it had republished before.
#[test]
fn only_a_reconnected_subscriber_may_receive_a_message_twice() {
    let mut history = valid();
    let again = live(&mut history)[0].clone();
    live(&mut history).insert(1, again);
    assert_eq!(names(&history), ["ReceivedOutOfOrder"]);
    let live = history.live.take().unwrap();
    history.live = Some(Subscriber { stayed_connected: false, ..live });
    assert_eq!(names(&history), [""; 0]);
}

#[test]
fn existing_job_is_not_deleted_and_missing_job_may_have_finished() {
    let mut history = valid();
    job(&mut history, "deleted").deleted = false;
    assert_eq!(names(&history), ["WrongResult"]);
    let mut history = valid();
    job(&mut history, "failed").finish = Finish::Unknown;
    assert_eq!(names(&history), [""; 0]);
}

#[test]
fn queued_request_is_not_lost() {
    let mut history = valid();
    history.rejected.retain(|dead_letter| dead_letter.header("Job-Error") != "InvalidName");
    history.queued_requests = 1;
    let found = check(&history);
    let text = found[0].to_string();
    assert_eq!((found.len(), found[0].name()), (1, "QueuedRequests"));
    assert!(text.contains("request 5 of simple"), "{text}");
    history.rejected.clear();
    history.requests.iter_mut().for_each(|request| request.expect = Expect::Either);
    assert!(names(&history).contains(&"LostRequest".to_owned()), "more requests are missing than are queued");
}

#[test]
fn violation_names_request_job_subject_and_sequence() {
    let mut history = valid();
    insert_copy(&mut history, "complete", "OUTCOME", 1);
    let text = check(&history)[0].to_string();
    for part in
        ["more than one OUTCOME", "message 8 on jobs.simple.status.simple-job-1", "uid complete", "request 1"]
    {
        assert!(text.contains(part), "{text:?} does not contain {part:?}");
    }
}
