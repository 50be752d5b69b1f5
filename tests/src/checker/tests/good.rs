//! A history in which all promises hold.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::checker::history::*;

/// Builds histories Job by Job.
pub(super) struct Builder {
    history: History,
    version: u64,
}

/// Jobs that complete, fail and are deleted, before and after anything was said; rejections, one of them repeated; a
/// duplicate, an identity that is used again, a name that recurs, a lost answer, a Job of another maker.
pub(super) fn good() -> History {
    let mut builder = Builder::of(&History { requests_complete: true, at_rest: true, ..History::default() });
    builder.history.ttls.insert("simple".into(), Some(600));
    builder.ask(1, Some("id-1"), r#"{"foo":"1"}"#, Expect::Job(Some("simple-job-1".into())));
    builder.job("complete", "simple-job-1", 1, "id-1");
    builder.run("complete", "Complete");
    // Not settled any more: its TTL is over.
    builder.seen("complete").deleted = true;

    builder.ask(2, None, r#"{"foo":"2","name":"failed"}"#, Expect::Job(None));
    builder.job("failed", "failed", 2, "derived-2");
    builder.run("failed", "Failed");

    builder.ask(3, None, r#"{"foo":"3","name":"deleted"}"#, Expect::Either);
    builder.job("deleted", "deleted", 3, "derived-3");
    builder.delete("deleted", "Deleted");

    builder.ask(4, None, "no JSON", Expect::Rejection(Some("InvalidJson".into())));
    builder.reject(4, "InvalidJson");
    builder.ask(5, None, r#"{"foo":"A"}"#, Expect::Either);
    builder.reject(5, "InvalidName");

    // A duplicate within the window; the same again outside it, served by the same Job; and another one, rejected.
    builder.ask(1, Some("id-1"), r#"{"foo":"1"}"#, Expect::Either);
    builder.history.requests.last_mut().unwrap().duplicate = true;
    builder.ask(6, Some("id-1"), r#"{ "foo": "1" }"#, Expect::Job(None));
    builder.ask(7, Some("id-1"), r#"{"foo":"1","fail":true}"#, Expect::Either);
    builder.reject(7, "RequestIdReused");

    // The name recurs.
    builder.ask(8, Some("id-8"), r#"{"foo":"1"}"#, Expect::Job(None));
    builder.job("recurs", "simple-job-1", 8, "id-8");
    builder.run("recurs", "Complete");

    // Two lost answers: one request is stored, the other is not.
    for foo in ["9", "10"] {
        let name = format!("simple-job-{foo}");
        builder.ask(0, None, &format!(r#"{{"foo":"{foo}"}}"#), Expect::Job(Some(name)));
        builder.history.requests.last_mut().unwrap().seq = None;
    }
    builder.job("unanswered", "simple-job-9", 9, "derived-9");
    builder.run("unanswered", "Complete");

    // Gone before anything was said.
    builder.ask(11, None, r#"{"foo":"11"}"#, Expect::Either);
    builder.job("brief", "simple-job-11", 11, "derived-11");
    builder.delete_unsaid("brief");

    // Ended and deleted at once.
    builder.ask(12, None, r#"{"foo":"12"}"#, Expect::Either);
    builder.job("swift", "simple-job-12", 12, "derived-12");
    builder.delete("swift", "Complete");

    let foreign = JobSeen { name: "other".into(), uid: "other".into(), watched: true, ..JobSeen::default() };
    builder.history.jobs.push(foreign);
    // After a crash, under the same Nats-Msg-Id.
    let again = DeadLetter { stream_seq: 4, ..builder.history.rejected[0].clone() };
    builder.history.rejected.push(again);
    builder.done()
}

/// Lets a plain subscriber see everything, and the notices.
pub(super) fn listen(history: &mut History) {
    let republished = |message: &StatusMessage| LiveMessage {
        subject: message.subject.clone(),
        sequence: Some(message.stream_seq),
        event: message.event.clone(),
    };
    let notice = |letter: &DeadLetter| LiveMessage {
        subject: "jobs.simple.status._rejected".into(),
        sequence: None,
        event: json!({"type": "REJECTED", "requestSeq": letter.request_seq()}),
    };
    let seen = history.status.iter().map(republished).chain(history.rejected.iter().take(1).map(notice));
    history.live = Some(Live { after: 0, unbroken: true, messages: seen.collect() });
}

impl Builder {
    pub(super) fn of(history: &History) -> Self {
        Self { history: history.clone(), version: 100 + 10 * history.status.len() as u64 }
    }

    pub(super) fn done(mut self) -> History {
        listen(&mut self.history);
        self.history
    }

    /// A second Job for the request of another.
    pub(super) fn again(history: &mut History, uid: &str, second: &str) {
        let first = history.jobs.iter().find(|job| job.uid == uid).unwrap().clone();
        let mut builder = Self::of(history);
        builder.job(second, &first.name, first.request_seq, &first.request_id);
        builder.run(second, "Complete");
        *history = builder.done();
    }

    pub(super) fn ask(&mut self, seq: u64, msg_id: Option<&str>, payload: &str, expect: Expect) {
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
        self.history.jobs.push(JobSeen {
            name: name.into(),
            template: "simple".into(),
            uid: uid.into(),
            ours: true,
            request_id: request_id.into(),
            request_seq,
            watched: true,
            ..JobSeen::default()
        });
    }

    pub(super) fn seen(&mut self, uid: &str) -> &mut JobSeen {
        self.history.jobs.iter_mut().find(|job| job.uid == uid).unwrap()
    }

    /// From `ADDED` to a final condition, its outcome and the settlement.
    pub(super) fn run(&mut self, uid: &str, result: &str) {
        self.say(uid, "ADDED", json!({}), None);
        self.say(uid, "STALLED", json!({}), None);
        self.say(uid, "MODIFIED", json!({"active": 1}), None);
        let interim = json!([{"type": "FailureTarget", "status": "True"}]);
        self.say(uid, "MODIFIED", json!({"conditions": interim}), None);
        self.say(uid, "ATTEMPT", json!({}), None);
        let status = json!({"conditions": [{"type": result, "status": "True"}]});
        self.say(uid, "MODIFIED", status.clone(), None);
        self.say(uid, "OUTCOME", status, Some(result));
        let seen = self.seen(uid);
        seen.ended = if result == "Complete" { Ended::Complete } else { Ended::Failed };
        (seen.settled, seen.ttl) = (true, Some(600));
    }

    /// Deleted by hand, with or without a final condition.
    fn delete(&mut self, uid: &str, result: &str) {
        let (ended, status) = match result {
            "Complete" => (Ended::Complete, json!({"conditions": [{"type": "Complete", "status": "True"}]})),
            _ => (Ended::Not, json!({"active": 1})),
        };
        self.say(uid, "ADDED", json!({}), None);
        self.say(uid, "DELETED", status.clone(), None);
        self.say(uid, "OUTCOME", status, Some(result));
        let seen = self.seen(uid);
        (seen.deleted, seen.ended) = (true, ended);
    }

    fn delete_unsaid(&mut self, uid: &str) {
        self.say(uid, "DELETED", json!({}), None);
        self.say(uid, "OUTCOME", json!({}), Some("Deleted"));
        self.seen(uid).deleted = true;
    }

    fn say(&mut self, uid: &str, word: &str, status: Value, result: Option<&str>) {
        let JobSeen { template, name, request_id, request_seq, .. } = self.seen(uid).clone();
        if !matches!(word, "OUTCOME" | "ATTEMPT" | "STALLED") {
            self.version += 1;
        }
        let version = self.version.to_string();
        let mut event = json!({
            "type": word, "template": template, "name": name, "namespace": "jobs", "uid": uid, "requestId": request_id,
            "requestSeq": request_seq, "resourceVersion": version, "time": "2026-01-01T10:00:00.123Z", "status": status,
        });
        if let Some(result) = result {
            event["outcome"] = json!({"result": result, "succeeded": 0, "failed": 0});
        }
        match word {
            "ATTEMPT" => event["attempt"] = json!({"pod": "p", "exitCode": 1}),
            "STALLED" => event["stall"] = json!({"reason": "Unschedulable", "message": "no node"}),
            _ => {}
        }
        let headers = [
            ("Job-Event", word),
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
            ("Nats-Msg-Id", format!("{seq}-5")),
        ];
        self.history.rejected.push(DeadLetter {
            stream_seq: self.history.rejected.len() as u64 + 1,
            subject: "jobs.simple.rejected".into(),
            headers: headers.map(|(name, value)| (name.to_owned(), value)).into(),
            payload: request.payload.clone(),
        });
    }
}
