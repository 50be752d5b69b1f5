use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    contract::{event::EventType, job::JobState, job_status::JobStatus, submitter::Submitter},
    status::{
        event_body::{EventBody, status_event},
        subject::LastEvent,
    },
    testing::a_job,
};

const LIMIT: usize = 64 * 1024;

fn event_of(status: Value, body: &EventBody) -> StatusEvent {
    let job: JobState = a_job("u", 1, status);
    let last = LastEvent { uid: "u".into(), resource_version: 1, event: body.event_type() };
    status_event(&job, &last, body, "2026-01-02T03:04:05Z")
}

fn modified(status: Value) -> StatusEvent {
    event_of(status, &EventBody::Job(EventType::Modified, None))
}

fn condition(type_: &str, message: &str) -> Value {
    json!({"type": type_, "status": "True", "reason": "R", "message": message,
           "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

#[test]
fn encoded_event_is_the_fitting_one() {
    let long = "x".repeat(3 * LIMIT);
    for status in [json!({}), json!({"active": 1}), json!({"completedIndexes": long})] {
        let event = modified(status);
        for limit in [MIN_EVENT_BYTES, LIMIT, usize::MAX] {
            let encoded = encode(event.clone(), limit).unwrap();
            assert_eq!(encoded.event, fit(event.clone(), limit));
            assert_eq!(encoded.json, serde_json::to_vec(&encoded.event).unwrap());
            assert!(encoded.json.len() <= limit);
        }
    }
}

#[test]
fn event_that_fits_is_verbatim() {
    let status = json!({"active": 1, "completedIndexes": "0,2,4", "unknownField": ["x"]});
    let event = modified(status.clone());
    let fitted = fit(event.clone(), LIMIT);
    assert_eq!(fitted, event);
    assert_eq!((fitted.status, fitted.status_truncated), (status, false));
    assert!(!serde_json::to_string(&event).unwrap().contains("statusTruncated"));
}

#[test]
fn the_largest_fields_are_dropped_and_counts_and_conditions_stay() {
    let conditions = json!([condition("Failed", "no more tries")]);
    let status = json!({
        "active": 1, "succeeded": 170_000, "failed": 2, "startTime": "2026-01-01T00:00:00Z",
        "completedIndexes": "1,3,".repeat(50_000), "failedIndexes": "2,4", "conditions": conditions,
    });
    let event = fit(modified(status), LIMIT);
    assert!(event.status_truncated);
    let expected = json!({
        "active": 1, "succeeded": 170_000, "failed": 2, "startTime": "2026-01-01T00:00:00Z",
        "failedIndexes": "2,4", "conditions": conditions,
    });
    assert_eq!(event.status, expected);
}

#[test]
fn long_messages_of_conditions_are_cut_with_an_ellipsis() {
    let message = "x".repeat(LIMIT);
    let event = fit(modified(json!({"conditions": [condition("Failed", &message)]})), LIMIT);
    let shortened = event.status["conditions"][0]["message"].as_str().unwrap();
    assert!(shortened.starts_with("xxx") && shortened.ends_with('…') && shortened.len() <= CONDITION_TEXT);
    assert_eq!(event.status["conditions"][0]["reason"], "R");
}

#[test]
fn countless_conditions_leave_the_standard_ones() {
    let mut conditions: Vec<_> = (0..2000).map(|n| condition(&format!("Custom{n}"), "m")).collect();
    conditions.push(condition("Complete", "done"));
    let event = fit(modified(json!({"succeeded": 3, "conditions": conditions})), LIMIT);
    assert_eq!(event.status, json!({"succeeded": 3, "conditions": [condition("Complete", "done")]}));
}

#[test]
fn a_status_read_from_a_shortened_event_stays_marked() {
    let event = fit(modified(json!({"completedIndexes": "1,".repeat(LIMIT)})), LIMIT);
    let missing = JobState::from_last_event(event, String::new());
    let last = LastEvent { uid: "u".into(), resource_version: 1, event: EventType::Outcome };
    let outcome = Some(Box::new(missing.outcome_of_deletion()));
    let event = status_event(&missing, &last, &EventBody::Job(EventType::Outcome, outcome), "t");
    assert!(event.status_truncated);
}

#[test]
fn the_end_of_a_log_tail_is_kept() {
    let tail = format!("{}FATAL: disk full", "x".repeat(LIMIT));
    let attempt = Attempt { pod: "p".into(), log_tail: Some(tail), ..Attempt::default() };
    let event = fit(event_of(json!({"active": 1}), &EventBody::Attempt(Box::new(attempt))), LIMIT);
    assert!(event.attempt.unwrap().log_tail.unwrap().ends_with("FATAL: disk full"));
    assert_eq!((event.status, event.status_truncated), (json!({"active": 1}), false));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "(?s).{0,400}".prop_map(Value::from),
        (0usize..40_000).prop_map(|length| Value::from("\u{1}".repeat(length))),
    ];
    leaf.prop_recursive(3, 40, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,12}", inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_condition() -> impl Strategy<Value = Value> {
    let types = prop_oneof![
        Just("Complete"),
        Just("Failed"),
        Just("Suspended"),
        Just("FailureTarget"),
        Just("example.org/Custom"),
    ];
    let size = prop_oneof![0usize..40, 0usize..40_000];
    (types, any::<bool>(), "(?s).{0,40}", size, any::<char>()).prop_map(
        |(type_, status, reason, length, c)| {
            json!({"type": type_, "status": if status { "True" } else { "False" }, "reason": reason,
                   "message": c.to_string().repeat(length), "lastTransitionTime": "2026-01-01T00:00:00Z"})
        },
    )
}

fn any_status() -> impl Strategy<Value = Value> {
    let fields = prop::collection::btree_map(
        prop_oneof![
            "[a-z]{1,12}",
            Just("completedIndexes".to_owned()),
            Just("uncountedTerminatedPods".to_owned()),
        ],
        any_json(),
        0..6,
    );
    (fields, prop::collection::vec(any_condition(), 0..40), any::<i32>(), any::<i32>()).prop_map(
        |(fields, conditions, succeeded, failed)| {
            let mut status: Map<_, _> = fields.into_iter().collect();
            status.insert("conditions".into(), conditions.into());
            status.insert("succeeded".into(), succeeded.into());
            status.insert("failed".into(), failed.into());
            Value::Object(status)
        },
    )
}

fn any_text() -> impl Strategy<Value = Option<String>> + Clone {
    let long = (any::<char>(), 0usize..9000).prop_map(|(c, length)| c.to_string().repeat(length));
    prop::option::of(prop_oneof!["(?s).{0,40}", long])
}

fn any_body() -> impl Strategy<Value = EventBody> {
    let stall = (any_text(), any_text()).prop_map(|(reason, message)| Stall {
        reason: reason.unwrap_or_default(),
        message: message.unwrap_or_default(),
    });
    let attempt = (any_text(), any_text(), any_text()).prop_map(|(reason, message, log_tail)| Attempt {
        pod: "p".repeat(253),
        node: Some("n".repeat(253)),
        reason,
        message,
        log_tail,
        ..Attempt::default()
    });
    let attempts = prop::collection::vec(attempt.clone(), 0..12);
    let outcome = (attempts, any_text(), any_text(), prop::option::of(stall.clone()), any_text());
    let outcome = outcome.prop_map(|(attempts, reason, message, stall, start_time)| Outcome {
        reason,
        message,
        start_time,
        attempts,
        stall,
        ..a_job("u", 1, json!({})).outcome_of_deletion()
    });
    prop_oneof![
        Just(EventBody::Job(EventType::Added, None)),
        attempt.prop_map(|attempt| EventBody::Attempt(Box::new(attempt))),
        stall.prop_map(EventBody::Stall),
        outcome.prop_map(|outcome| EventBody::Job(EventType::Outcome, Some(Box::new(outcome)))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn any_event_fits_into_any_limit_and_keeps_its_result_and_counts(
        status in any_status(), body in any_body(), limit in MIN_EVENT_BYTES..200_000,
    ) {
        let mut event = event_of(status, &body);
        event.request_id = "\"".repeat(256).try_into().unwrap();
        let account = "\"".repeat(256);
        event.submitter = Some(Submitter { account: account.clone(), user: Some(account) });
        let fitted = fit(event.clone(), limit);
        prop_assert!(json_size(&fitted) <= limit, "{} > {limit}", json_size(&fitted));
        prop_assert_eq!(fitted.status_truncated, fitted.status != event.status);
        prop_assert_eq!(fit(event.clone(), limit), fitted.clone());
        prop_assert_eq!(fit(fitted.clone(), limit), fitted.clone());
        for field in ["succeeded", "failed"] {
            prop_assert_eq!(&fitted.status[field], &event.status[field]);
        }
        let result = |status: &Value| JobStatus::from(status.clone()).result();
        prop_assert_eq!(result(&event.status), result(&fitted.status));
        prop_assert_eq!(fitted.event, event.event);
        prop_assert_eq!(fitted.outcome.map(|outcome| outcome.result), event.outcome.map(|outcome| outcome.result));
    }
}
