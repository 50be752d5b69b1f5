use anstream::adapter::strip_str;
use serde_json::json;

use super::*;

fn shown(event: &Value) -> String {
    strip_str(&super::event("jobs.simple.status.a", event.to_string().as_bytes())).to_string()
}

fn with(more: &Value) -> Value {
    let mut event = json!({"template": "simple", "name": "a", "time": "2026-01-01T10:00:01.123Z"});
    event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    event
}

#[test]
fn each_status_event_is_one_line() {
    for (event, line) in [
        (json!({"type": "ADDED", "status": {}}), "10:00:01 ADDED    simple/a  created"),
        (
            json!({"type": "MODIFIED", "status": {"active": 1, "ready": 0, "failed": 2}}),
            "10:00:01 MODIFIED simple/a  1 active, 2 failed",
        ),
        (
            json!({"type": "MODIFIED", "status": {"succeeded": 1, "conditions": [
                {"type": "SuccessCriteriaMet", "status": "True", "reason": "CompletionsReached"},
                {"type": "Suspended", "status": "False", "reason": "JobResumed"},
            ]}}),
            "10:00:01 MODIFIED simple/a  1 succeeded, SuccessCriteriaMet CompletionsReached",
        ),
        (
            json!({"type": "OUTCOME", "status": {}, "outcome": {"result": "Failed", "reason": "R", "message": "m"}}),
            "10:00:01 OUTCOME  simple/a  Failed R: m",
        ),
        (json!({"type": "OUTCOME", "outcome": {"result": "Deleted"}}), "10:00:01 OUTCOME  simple/a  Deleted"),
        (
            json!({"type": "STALLED", "status": {}, "reason": "ErrImagePull", "message": "m"}),
            "10:00:01 STALLED  simple/a  ErrImagePull: m",
        ),
        (
            json!({"type": "ATTEMPT", "attempt": {"pod": "a-1", "reason": "Error", "exitCode": 1}}),
            "10:00:01 ATTEMPT  simple/a  a-1: Error, exit code 1",
        ),
    ] {
        assert_eq!(shown(&with(&event)), line);
    }
}

#[test]
fn status_without_counts_is_described() {
    let time = "2026-01-01T10:00:00Z";
    for (status, details) in [
        (json!({}), "not started"),
        (json!(null), "not started"),
        (json!({"active": 0, "ready": 0}), "not started"),
        (json!({"startTime": time, "active": 0, "uncountedTerminatedPods": {}}), "no active pods"),
        (
            json!({"startTime": time, "conditions": [{"type": "Suspended", "status": "False"}]}),
            "no active pods",
        ),
        (json!({"startTime": time, "terminating": 1}), "1 terminating"),
        (
            json!({"startTime": time, "uncountedTerminatedPods": {"succeeded": ["a"], "failed": []}}),
            "1 succeeded (uncounted)",
        ),
        (
            json!({"active": 1, "uncountedTerminatedPods": {"failed": ["a", "b"]}}),
            "1 active, 2 failed (uncounted)",
        ),
    ] {
        let event = with(&json!({"type": "MODIFIED", "status": status}));
        assert_eq!(shown(&event), format!("10:00:01 MODIFIED simple/a  {details}"), "{event}");
    }
}

#[test]
fn rejection_without_a_job_name_is_shown() {
    let notice = json!({"type": "REJECTED", "template": "simple", "reason": "InvalidRequest", "message": "m", "time": ""});
    assert_eq!(shown(&notice), " REJECTED simple/(no Job)  InvalidRequest: m");
}

#[test]
fn message_that_is_not_a_status_event_is_shown_unchanged() {
    assert_eq!(event("jobs.simple.status.a", b"hello"), "jobs.simple.status.a hello");
}

#[test]
fn log_shows_warnings_and_all_levels_on_demand() {
    let line = |level: &str| {
        json!({"timestamp": "2026-01-01T10:00:01Z", "level": level, "message": "not ready", "component": "nats", "n": 1})
            .to_string()
    };
    let shown = |line: &str, all| log(line, all).map(|line| strip_str(&line).to_string());
    let warning = "10:00:01 WARN     dispatcher: not ready component=nats n=1";
    assert_eq!(shown(&line("WARN"), false).unwrap(), warning);
    assert_eq!(shown(&line("INFO"), false), None);
    assert!(shown(&line("INFO"), true).is_some());
    assert_eq!(
        shown("dispatcher: DISPATCHER_TEMPLATES: none", false).unwrap(),
        "dispatcher: DISPATCHER_TEMPLATES: none"
    );
    assert_eq!(shown("", false), None);
}

#[test]
fn nats_server_log_shows_warnings_and_errors_only() {
    let line = |level| format!("[7] 2026/01/01 10:00:01.000000 [{level}] Starting [x]");
    let shown = |level| nats_server(&line(level)).map(|line| strip_str(&line).to_string());
    assert_eq!(shown("INF"), None);
    assert_eq!(shown("ERR").unwrap(), "── nats-server: Starting [x]");
}
