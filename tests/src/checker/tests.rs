use std::collections::BTreeSet;

use serde_json::json;

use super::history::{Ended, Live, LiveMessage, StatusMessage};
use super::*;

mod delays;
mod good;
mod identity;

use good::{Builder, good};

/// A name of a violation, and a change of the good history that brings it.
type Plant = (&'static str, fn(&mut History));

fn event(history: &mut History, uid: &str, word: &str) -> usize {
    let is_it = |m: &StatusMessage| m.event["uid"] == uid && m.event["type"] == word;
    history.status.iter().position(is_it).unwrap()
}

fn set(history: &mut History, uid: &str, word: &str, change: fn(&mut StatusMessage)) {
    let place = event(history, uid, word);
    change(&mut history.status[place]);
    replay(history);
}

/// Gives the messages the sequences of their places, and lets the plain subscriber see them so.
fn replay(history: &mut History) {
    for (message, seq) in history.status.iter_mut().zip(1..) {
        message.stream_seq = seq;
    }
    good::listen(history);
}

fn insert_copy(history: &mut History, uid: &str, word: &str, behind: usize) {
    let place = event(history, uid, word);
    let copy = history.status[place].clone();
    history.status.insert(place + behind, copy);
    replay(history);
}

fn job<'a>(history: &'a mut History, uid: &str) -> &'a mut history::JobSeen {
    history.jobs.iter_mut().find(|job| job.uid == uid).unwrap()
}

fn live(history: &mut History) -> &mut Vec<LiveMessage> {
    &mut history.live.as_mut().unwrap().messages
}

const PLANTS: &[Plant] = &[
    ("LostRequest", |h| h.rejected.retain(|letter| letter.header("Job-Error") != "InvalidName")),
    ("SecondJob", |h| Builder::again(h, "complete", "complete-again")),
    ("JobAndRejection", |h| {
        let mut letter = h.rejected[0].clone();
        letter.headers.insert("Job-Request-Seq".into(), "1".into());
        letter.headers.insert("Nats-Msg-Id".into(), "1-5".into());
        letter.payload = h.requests[0].payload.clone();
        h.rejected.push(letter);
    }),
    ("UnaskedJob", |h| {
        let mut builder = Builder::of(h);
        builder.job("unasked", "stray", 99, "nobody");
        builder.run("unasked", "Complete");
        *h = builder.done();
    }),
    ("UnaskedRejection", |h| {
        let mut letter = h.rejected[0].clone();
        letter.headers.insert("Job-Request-Seq".into(), "98".into());
        letter.headers.insert("Nats-Msg-Id".into(), "98-5".into());
        h.rejected.push(letter);
    }),
    ("WrongJob", |h| h.requests[0].expect = Expect::Job(Some("another".into()))),
    ("MissingRejection", |h| h.requests[0].expect = Expect::Rejection(None)),
    ("UnexpectedRejection", |h| {
        let place = h.requests.iter().position(|r| matches!(r.expect, Expect::Rejection(_))).unwrap();
        h.requests[place].expect = Expect::Job(None);
    }),
    ("WrongReason", |h| {
        h.rejected[0].headers.insert("Job-Error".into(), "Refused".into());
    }),
    ("RejectionRepeated", |h| {
        let mut letter = h.rejected[0].clone();
        letter.headers.insert("Nats-Msg-Id".into(), "other".into());
        h.rejected.push(letter);
    }),
    ("RejectionIdShared", |h| {
        let id = h.rejected[0].header("Nats-Msg-Id").to_owned();
        h.rejected[1].headers.insert("Nats-Msg-Id".into(), id);
    }),
    ("RejectionPayload", |h| h.rejected[0].payload.push(b' ')),
    ("RejectionHeader", |h| drop(h.rejected[0].headers.remove("Job-Error-Message"))),
    ("LeftInQueue", |h| h.jobs_stream_left = 1),
    ("NoOutcome", |h| {
        let place = event(h, "failed", "OUTCOME");
        h.status.remove(place);
        replay(h);
    }),
    ("SecondOutcome", |h| insert_copy(h, "complete", "OUTCOME", 1)),
    ("AfterOutcome", |h| {
        let place = event(h, "complete", "ATTEMPT");
        let event = h.status.remove(place);
        h.status.push(event);
        replay(h);
    }),
    ("WrongResult", |h| set(h, "failed", "OUTCOME", |m| m.event["outcome"]["result"] = "Complete".into())),
    ("EndOverlooked", |h| job(h, "deleted").ended = Ended::Complete),
    ("ForeignJob", |h| {
        let mut message = h.status[0].clone();
        message.event["uid"] = "other".into();
        h.status.push(message);
        replay(h);
    }),
    ("NotSettled", |h| job(h, "failed").settled = false),
    ("WrongTtl", |h| job(h, "failed").ttl = None),
    ("OutOfOrder", |h| {
        let place = event(h, "failed", "MODIFIED");
        h.status.swap(place, place + 1);
        replay(h);
    }),
    ("Ahead", |h| {
        set(h, "failed", "ATTEMPT", |m| {
            let version = m.event["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap() + 1;
            m.event["resourceVersion"] = version.to_string().into();
            m.headers.insert("Job-Resource-Version".into(), version.to_string());
        });
    }),
    ("Repeated", |h| insert_copy(h, "failed", "MODIFIED", 1)),
    ("AddedNotFirst", |h| insert_copy(h, "failed", "ADDED", 1)),
    ("NoAdded", |h| {
        let place = event(h, "failed", "ADDED");
        h.status.remove(place);
        replay(h);
    }),
    ("EndNotSaid", |h| {
        h.status.retain(|m| {
            let uid = m.event["uid"] == "failed" && m.event["type"] == "MODIFIED";
            !(uid && Ended::of(&m.event["status"]).is_final())
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
        set(h, "failed", "MODIFIED", |m| m.event["stall"] = json!({"reason": "Unschedulable"}))
    }),
    ("WrongSubject", |h| set(h, "failed", "MODIFIED", |m| m.subject = "jobs.simple.status.deleted".into())),
    ("WrongHeader", |h| set(h, "failed", "MODIFIED", |m| drop(m.headers.remove("Job-Uid")))),
    ("WrongRequest", |h| set(h, "failed", "MODIFIED", |m| m.event["requestSeq"] = json!(1))),
    ("LiveUnknown", |h| {
        let mut message = live(h)[0].clone();
        message.sequence = None;
        live(h).insert(1, message);
    }),
    ("LiveDiffers", |h| live(h)[0].event["type"] = "MODIFIED".into()),
    ("LiveOrder", |h| live(h).swap(0, 1)),
    ("LiveMissed", |h| drop(live(h).remove(1))),
];

fn names(history: &History) -> Vec<String> {
    check(history).iter().map(|violation| violation.name().to_owned()).collect()
}

#[test]
fn a_good_history_breaks_nothing() {
    let history = good();
    assert_guarantees(&history);
    assert!(history.jobs.len() > 4 && history.rejected.len() > 2, "{}", history.summary());
}

#[test]
fn each_kind_of_violation_is_caught_as_what_it_is() {
    for (name, plant) in PLANTS {
        let mut history = good();
        plant(&mut history);
        let found = check(&history);
        let only = found.iter().map(Violation::name).collect::<BTreeSet<_>>();
        let texts: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(only, BTreeSet::from([*name]), "{name}: {texts:#?}");
    }
}

#[test]
fn every_kind_of_violation_is_planted() {
    let planted: BTreeSet<_> = PLANTS.iter().map(|(name, _)| *name).collect();
    assert_eq!(planted, Violation::NAMES.iter().copied().collect());
}

#[test]
fn a_job_under_way_is_no_violation_until_the_run_is_at_rest() {
    let mut history = good();
    let outcome = event(&mut history, "failed", "OUTCOME");
    history.status.remove(outcome);
    replay(&mut history);
    job(&mut history, "failed").ended = Ended::Not;
    history.at_rest = false;
    assert_eq!(names(&history), [""; 0]);
    history.at_rest = true;
    assert_eq!(names(&history), ["NoOutcome"]);
}

#[test]
fn a_job_that_no_watch_saw_is_known_from_its_events() {
    let mut history = good();
    history.jobs.retain(|job| job.uid != "deleted");
    assert_eq!(names(&history), [""; 0]);
    let place = event(&mut history, "deleted", "OUTCOME");
    history.status.remove(place);
    replay(&mut history);
    assert_eq!(names(&history), ["NoOutcome"]);
}

#[test]
fn a_subscriber_whose_connection_broke_may_have_missed_messages() {
    let mut history = good();
    live(&mut history).remove(1);
    let live = history.live.take().unwrap();
    history.live = Some(Live { unbroken: false, ..live });
    assert_eq!(names(&history), [""; 0]);
}

/// Of JetStream servers that were all killed one republished what it had republished before (seed 16760350147175502260 of
/// `cluster::all_three_are_killed`).
#[test]
fn only_a_subscriber_whose_connection_broke_may_hear_a_message_twice() {
    let mut history = good();
    let again = live(&mut history)[0].clone();
    live(&mut history).insert(1, again);
    assert_eq!(names(&history), ["LiveOrder"]);
    let live = history.live.take().unwrap();
    history.live = Some(Live { unbroken: false, ..live });
    assert_eq!(names(&history), [""; 0]);
}

#[test]
fn a_present_job_is_not_deleted_and_a_missing_job_may_have_ended() {
    let mut history = good();
    job(&mut history, "deleted").deleted = false;
    assert_eq!(names(&history), ["WrongResult"]);
    let mut history = good();
    job(&mut history, "failed").ended = Ended::Unknown;
    assert_eq!(names(&history), [""; 0]);
}

#[test]
fn a_request_that_is_left_in_the_queue_is_not_lost() {
    let mut history = good();
    history.rejected.retain(|letter| letter.header("Job-Error") != "InvalidName");
    history.jobs_stream_left = 1;
    let found = check(&history);
    let text = found[0].to_string();
    assert_eq!((found.len(), found[0].name()), (1, "LeftInQueue"));
    assert!(text.contains("request 5 of simple"), "{text}");
    history.rejected.clear();
    history.requests.iter_mut().for_each(|request| request.expect = Expect::Either);
    assert!(names(&history).contains(&"LostRequest".to_owned()), "more are missing than are left");
}

#[test]
fn a_violation_names_request_job_subject_and_sequence() {
    let mut history = good();
    insert_copy(&mut history, "complete", "OUTCOME", 1);
    let text = check(&history)[0].to_string();
    for part in
        ["second OUTCOME", "message 8 on jobs.simple.status.simple-job-1", "uid complete", "request 1"]
    {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}
