//! Requests under one identity, and publishes without an answer.

use super::*;
use crate::checker::history::Request;

fn place(history: &History, seq: u64) -> usize {
    history.requests.iter().position(|request| request.seq == Some(seq)).unwrap()
}

#[test]
fn the_same_request_again_must_not_become_a_second_job() {
    let mut history = good();
    let mut builder = Builder::of(&history);
    builder.job("again", "simple-job-1", 6, "id-1");
    builder.run("again", "Complete");
    history = builder.done();
    assert_eq!(names(&history), ["SecondJob"]);
}

#[test]
fn another_request_under_the_same_identity_must_be_rejected_where_the_name_is_the_same() {
    let mut history = good();
    history.rejected.retain(|letter| letter.header("Job-Error") != "RequestIdReused");
    assert_eq!(names(&history), ["MissingRejection"]);
    // One that asks for another name may have a Job of its own.
    for (name, expected) in [("other", &[][..]), ("simple-job-1", &["SecondJob"])] {
        let mut builder = Builder::of(&history);
        builder.job("another", name, 7, "id-1");
        builder.run("another", "Complete");
        assert_eq!(names(&builder.done()), expected, "{name}");
    }
}

#[test]
fn the_same_request_again_must_not_be_rejected_as_another() {
    let mut history = good();
    let seven = place(&history, 7);
    history.requests[seven].payload = history.requests[0].payload.clone();
    let letter = history.rejected.iter_mut().find(|letter| letter.request_seq() == Some(7)).unwrap();
    letter.payload = history.requests[0].payload.clone();
    assert_eq!(names(&history), ["JobAndRejection"]);
}

#[test]
fn a_publish_without_an_answer_accounts_for_one_job_only() {
    let history = good();
    let mut builder = Builder::of(&history);
    builder.job("ten", "simple-job-10", 10, "derived-10");
    builder.run("ten", "Complete");
    let two = builder.done();
    assert_eq!(names(&two), [""; 0]);
    let mut builder = Builder::of(&two);
    builder.job("thirteen", "simple-job-13", 13, "derived-13");
    builder.run("thirteen", "Complete");
    assert_eq!(names(&builder.done()), ["UnaskedJob"]);
}

#[test]
fn a_publish_tried_again_after_a_lost_answer_is_one_request() {
    let asked = Request {
        seq: None,
        duplicate: false,
        template: "simple".into(),
        msg_id: Some("id-20".into()),
        payload: br#"{"foo":"20"}"#.to_vec(),
        expect: Expect::Job(None),
    };
    let mut history = good();
    history.requests.push(asked.clone());
    let with_job = |history: &History, seq| {
        let mut builder = Builder::of(history);
        builder.job("twenty", "simple-job-20", seq, "id-20");
        builder.run("twenty", "Complete");
        builder.done()
    };
    assert_eq!(names(&history), [""; 0], "perhaps it was not stored");
    assert_eq!(names(&with_job(&history, 20)), [""; 0], "it was");
    // The second try is told that it is a duplicate: the first one is stored.
    let mut duplicate = history.clone();
    duplicate.requests.push(Request { seq: Some(20), duplicate: true, ..asked.clone() });
    assert_eq!(names(&duplicate), ["LostRequest"]);
    assert_eq!(names(&with_job(&duplicate, 20)), [""; 0]);
    // Both are stored.
    history.requests.push(Request { seq: Some(21), ..asked });
    assert_eq!(names(&history), ["LostRequest"]);
    assert_eq!(names(&with_job(&history, 20)), [""; 0]);
    assert_eq!(names(&with_job(&history, 21)), [""; 0]);
}
