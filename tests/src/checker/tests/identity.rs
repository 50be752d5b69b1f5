//! Requests with the same request id, and publishes without an ack.

use super::*;
use crate::checker::history::{Request, sha256};

fn place(history: &History, seq: u64) -> usize {
    history.requests.iter().position(|request| request.seq == Some(seq)).unwrap()
}

#[test]
fn repeated_request_must_not_create_a_second_job() {
    let mut history = valid();
    let mut builder = Builder::of(&history);
    builder.job("again", "simple-job-1", 6, "id-1");
    builder.finish("again", "Complete");
    history = builder.done();
    assert_eq!(names(&history), ["DuplicateJob"]);
}

#[test]
fn different_request_with_a_used_id_must_be_rejected_if_the_name_is_equal() {
    let mut history = valid();
    history.rejected.retain(|dead_letter| dead_letter.header("Job-Error") != "RequestIdReused");
    assert_eq!(names(&history), ["MissingRejection"]);
    // A request for another name may have its own Job.
    for (name, expected) in [("other", &[][..]), ("simple-job-1", &["DuplicateJob"])] {
        let mut builder = Builder::of(&history);
        builder.job("another", name, 7, "id-1");
        builder.finish("another", "Complete");
        assert_eq!(names(&builder.done()), expected, "{name}");
    }
}

#[test]
fn repeated_request_must_not_be_rejected_as_a_different_one() {
    let mut history = valid();
    let seven = place(&history, 7);
    history.requests[seven].payload = history.requests[0].payload.clone();
    let dead_letter =
        history.rejected.iter_mut().find(|dead_letter| dead_letter.request_seq() == Some(7)).unwrap();
    dead_letter.payload = history.requests[0].payload.clone();
    dead_letter.headers.insert("Job-Payload-Sha256".into(), sha256(&dead_letter.payload));
    assert_eq!(names(&history), ["JobAndRejection"]);
}

#[test]
fn unacknowledged_publish_accounts_for_one_job() {
    let history = valid();
    let mut builder = Builder::of(&history);
    builder.job("ten", "simple-job-10", 10, "derived-10");
    builder.finish("ten", "Complete");
    let two = builder.done();
    assert_eq!(names(&two), [""; 0]);
    let mut builder = Builder::of(&two);
    builder.job("thirteen", "simple-job-13", 13, "derived-13");
    builder.finish("thirteen", "Complete");
    assert_eq!(names(&builder.done()), ["JobWithoutRequest"]);
}

#[test]
fn publish_retried_after_a_lost_ack_is_one_request() {
    let request = Request {
        seq: None,
        duplicate: false,
        template: "simple".into(),
        msg_id: Some("id-20".into()),
        payload: br#"{"foo":"20"}"#.to_vec(),
        expect: Expect::Job(None),
    };
    let mut history = valid();
    history.requests.push(request.clone());
    let with_job = |history: &History, seq| {
        let mut builder = Builder::of(history);
        builder.job("twenty", "simple-job-20", seq, "id-20");
        builder.finish("twenty", "Complete");
        builder.done()
    };
    assert_eq!(names(&history), [""; 0], "the request may not be stored");
    assert_eq!(names(&with_job(&history, 20)), [""; 0], "the request is stored");
    // The ack of the retry says that it is a duplicate, so the first publish is stored.
    let mut duplicate = history.clone();
    duplicate.requests.push(Request { seq: Some(20), duplicate: true, ..request.clone() });
    assert_eq!(names(&duplicate), ["LostRequest"]);
    assert_eq!(names(&with_job(&duplicate, 20)), [""; 0]);
    // Both are stored.
    history.requests.push(Request { seq: Some(21), ..request });
    assert_eq!(names(&history), ["LostRequest"]);
    assert_eq!(names(&with_job(&history, 20)), [""; 0]);
    assert_eq!(names(&with_job(&history, 21)), [""; 0]);
}
