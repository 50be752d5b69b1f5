//! A history in which every guarantee holds.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::checker::history::*;

/// Builds histories, one Job at a time.
pub(super) struct Builder {
    history: History,
    version: u64,
}

/// Jobs that complete, fail and are deleted, before and after their first event; dead letters, one
/// of them duplicated; a duplicate, a reused request id, a reused name, a lost ack, an unmanaged
/// Job.
pub(super) fn valid() -> History {
    let mut builder = Builder::of(&History { requests_complete: true, complete: true, ..History::default() });
    builder.history.ttls.insert("simple".into(), Some(600));
    builder.request(1, Some("id-1"), r#"{"foo":"1"}"#, Expect::Job(Some("simple-job-1".into())));
    builder.job("complete", "simple-job-1", 1, "id-1");
    builder.finish("complete", "Complete");
    // Not retired any more, since the TTL has deleted it.
    builder.seen("complete").deleted = true;

    builder.request(2, None, r#"{"foo":"2","name":"failed"}"#, Expect::Job(None));
    builder.job("failed", "failed", 2, "derived-2");
    builder.finish("failed", "Failed");

    builder.request(3, None, r#"{"foo":"3","name":"deleted"}"#, Expect::Either);
    builder.job("deleted", "deleted", 3, "derived-3");
    builder.delete("deleted", "Deleted");

    builder.request(4, None, "no JSON", Expect::Rejection(Some("InvalidJson".into())));
    builder.reject(4, "InvalidJson");
    builder.request(5, None, r#"{"foo":"A"}"#, Expect::Either);
    builder.reject(5, "InvalidName");

    // A duplicate within the window; the same request outside it, for which the Job exists already;
    // and a different request with the same id, which is rejected.
    builder.request(1, Some("id-1"), r#"{"foo":"1"}"#, Expect::Either);
    builder.history.requests.last_mut().unwrap().duplicate = true;
    builder.request(6, Some("id-1"), r#"{ "foo": "1" }"#, Expect::Job(None));
    builder.request(7, Some("id-1"), r#"{"foo":"1","fail":true}"#, Expect::Either);
    builder.reject(7, "RequestIdReused");

    // The same name again.
    builder.request(8, Some("id-8"), r#"{"foo":"1"}"#, Expect::Job(None));
    builder.job("recurs", "simple-job-1", 8, "id-8");
    builder.finish("recurs", "Complete");

    // Two lost acks: one request is stored, the other is not.
    for foo in ["9", "10"] {
        let name = format!("simple-job-{foo}");
        builder.request(0, None, &format!(r#"{{"foo":"{foo}"}}"#), Expect::Job(Some(name)));
        builder.history.requests.last_mut().unwrap().seq = None;
    }
    builder.job("unanswered", "simple-job-9", 9, "derived-9");
    builder.finish("unanswered", "Complete");

    // Deleted before its first event.
    builder.request(11, None, r#"{"foo":"11"}"#, Expect::Either);
    builder.job("brief", "simple-job-11", 11, "derived-11");
    builder.delete_before_added("brief");

    // Finished and deleted immediately.
    builder.request(12, None, r#"{"foo":"12"}"#, Expect::Either);
    builder.job("swift", "simple-job-12", 12, "derived-12");
    builder.delete("swift", "Complete");

    let foreign =
        JobRecord { name: "other".into(), uid: "other".into(), watched: true, ..JobRecord::default() };
    builder.history.jobs.push(foreign);
    builder.done()
}

/// Lets a plain subscriber receive every event and rejection notice.
pub(super) fn subscribe(history: &mut History) {
    let republished = |message: &StatusMessage| ReceivedMessage {
        subject: message.subject.clone(),
        sequence: Some(message.stream_seq),
        event: message.event.clone(),
    };
    let notice = |dead_letter: &DeadLetter| ReceivedMessage {
        subject: "jobs.simple.status._rejected".into(),
        sequence: None,
        event: json!({"type": "REJECTED", "requestSeq": dead_letter.request_seq()}),
    };
    let seen = history.status.iter().map(republished).chain(history.rejected.iter().take(1).map(notice));
    history.live = Some(Subscriber { after: 0, stayed_connected: true, messages: seen.collect() });
}

impl Builder {
    pub(super) fn of(history: &History) -> Self {
        Self { history: history.clone(), version: 100 + 10 * history.status.len() as u64 }
    }

    pub(super) fn done(mut self) -> History {
        subscribe(&mut self.history);
        self.history
    }

    /// A second Job for a request.
    pub(super) fn duplicate_job(history: &mut History, uid: &str, second: &str) {
        let first = history.jobs.iter().find(|job| job.uid == uid).unwrap().clone();
        let mut builder = Self::of(history);
        builder.job(second, &first.name, first.request_seq, &first.request_id);
        builder.finish(second, "Complete");
        *history = builder.done();
    }

    pub(super) fn request(&mut self, seq: u64, msg_id: Option<&str>, payload: &str, expect: Expect) {
        self.history.requests.push(Request {
            seq: Some(seq),
            duplicate: false,
            template: "simple".into(),
            msg_id: msg_id.map(str::to_owned),
            payload: payload.into(),
            expect,
        });
    }

    pub(super) fn job(&mut self, uid: &str, name: &str, request_seq: u64, request_id: &str) {
        self.history.jobs.push(JobRecord {
            name: name.into(),
            template: "simple".into(),
            uid: uid.into(),
            managed: true,
            request_id: request_id.into(),
            request_seq,
            watched: true,
            ..JobRecord::default()
        });
    }

    pub(super) fn seen(&mut self, uid: &str) -> &mut JobRecord {
        self.history.jobs.iter_mut().find(|job| job.uid == uid).unwrap()
    }

    /// From `ADDED` to a final condition, its outcome and its retirement.
    pub(super) fn finish(&mut self, uid: &str, result: &str) {
        self.publish(uid, "ADDED", json!({}), None);
        self.publish(uid, "STALLED", json!({}), None);
        self.publish(uid, "MODIFIED", json!({"active": 1}), None);
        let interim = json!([{"type": "FailureTarget", "status": "True"}]);
        self.publish(uid, "MODIFIED", json!({"conditions": interim}), None);
        self.publish(uid, "ATTEMPT", json!({}), None);
        let status = json!({"conditions": [{"type": result, "status": "True"}]});
        self.publish(uid, "MODIFIED", status.clone(), None);
        self.publish(uid, "OUTCOME", status, Some(result));
        let seen = self.seen(uid);
        seen.finish = if result == "Complete" { Finish::Complete } else { Finish::Failed };
        (seen.retired, seen.ttl) = (true, Some(600));
    }

    /// Deleted manually, with or without a final condition.
    fn delete(&mut self, uid: &str, result: &str) {
        let (finish, status) = match result {
            "Complete" => (Finish::Complete, json!({"conditions": [{"type": "Complete", "status": "True"}]})),
            _ => (Finish::Not, json!({"active": 1})),
        };
        self.publish(uid, "ADDED", json!({}), None);
        self.publish(uid, "DELETED", status.clone(), None);
        self.publish(uid, "OUTCOME", status, Some(result));
        let seen = self.seen(uid);
        (seen.deleted, seen.finish) = (true, finish);
    }

    fn delete_before_added(&mut self, uid: &str) {
        self.publish(uid, "DELETED", json!({}), None);
        self.publish(uid, "OUTCOME", json!({}), Some("Deleted"));
        self.seen(uid).deleted = true;
    }

    fn publish(&mut self, uid: &str, type_: &str, status: Value, result: Option<&str>) {
        let JobRecord { template, name, request_id, request_seq, .. } = self.seen(uid).clone();
        if !matches!(type_, "OUTCOME" | "ATTEMPT" | "STALLED") {
            self.version += 1;
        }
        let version = self.version.to_string();
        let mut event = json!({
            "type": type_, "template": template, "name": name, "namespace": "jobs", "uid": uid, "requestId": request_id,
            "requestSeq": request_seq, "resourceVersion": version, "time": "2026-01-01T10:00:00.123Z", "status": status,
        });
        if let Some(result) = result {
            event["outcome"] = json!({"result": result, "succeeded": 0, "failed": 0});
        }
        match type_ {
            "ATTEMPT" => event["attempt"] = json!({"pod": "p", "exitCode": 1}),
            "STALLED" => event["stall"] = json!({"reason": "Unschedulable", "message": "no node"}),
            _ => {}
        }
        let headers = [
            ("Job-Event", type_),
            ("Job-Uid", uid),
            ("Job-Request-Id", &request_id),
            ("Job-Resource-Version", &version),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        self.history.status.push(StatusMessage {
            stream_seq: self.history.status.len() as u64 + 1,
            subject: format!("jobs.{template}.status.{name}"),
            headers: BTreeMap::from(headers),
            event,
        });
    }

    fn reject(&mut self, seq: u64, reason: &str) {
        let request = self.history.requests.iter().find(|request| request.seq == Some(seq)).unwrap();
        let headers = [
            ("Job-Error", reason.to_owned()),
            ("Job-Error-Message", "because".to_owned()),
            ("Job-Request-Id", format!("derived-{seq}")),
            ("Job-Request-Seq", seq.to_string()),
            ("Job-Request-Time", "5".to_owned()),
            ("Job-Payload-Sha256", sha256(&request.payload)),
        ];
        self.history.rejected.push(DeadLetter {
            stream_seq: self.history.rejected.len() as u64 + 1,
            subject: format!("jobs.simple.rejected.{seq}"),
            headers: headers.map(|(name, value)| (name.to_owned(), value)).into(),
            payload: request.payload.clone(),
        });
    }
}
