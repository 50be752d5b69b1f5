use serde_json::json;

use super::*;
use crate::doctor::Severity;

const CONTEXT: Context = Context { verify_only: false, is_clustered: false };
const VERIFY: Context = Context { verify_only: true, ..CONTEXT };

fn details() -> Details {
    let state = State { max_bytes: Some(1000), replicas: 1, refuses_when_full: true, ..State::default() };
    Details { state, harmful: vec![], warnings: vec![], update: Update::None }
}

fn of(found: Found, context: Context) -> Finding {
    let mut found = findings(&Stream { name: "JOBS".to_owned(), found }, context);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn existing(details: Details) -> Finding {
    of(Found::Exists(Box::new(details)), CONTEXT)
}

#[test]
fn state_is_read_from_the_answer_of_the_server() {
    let replicas = json!([{"name": "b", "current": true}, {"name": "c", "current": true, "offline": true},
                          {"name": "d", "current": false}]);
    let info = json!({"config": {"max_bytes": -1, "discard": "new", "num_replicas": 3},
        "state": {"messages": 2, "bytes": 30, "consumer_count": 4}, "cluster": {"replicas": replicas}});
    let state = State::of(&info);
    assert_eq!((state.messages, state.bytes, state.max_bytes, state.consumers), (2, 30, None, 4));
    assert!(state.refuses_when_full && state.replicas == 3);
    assert_eq!(state.lagging, ["c", "d"]);
}

#[test]
fn missing_stream_is_an_error_only_if_the_start_may_not_create_it() {
    assert_eq!(of(Found::Missing, CONTEXT).severity, Severity::Ok);
    let missing = of(Found::Missing, VERIFY);
    assert_eq!(missing.severity, Severity::Error);
    assert!(missing.advice.unwrap().contains("nats stream add --config DIRECTORY/JOBS.json"));
    assert_eq!(of(Found::Unknown("no leader".to_owned()), CONTEXT).severity, Severity::Error);
}

#[test]
fn each_harmful_setting_is_an_error_and_each_warning_a_warning() {
    let settings = Details { harmful: vec!["a".to_owned()], warnings: vec!["b".to_owned()], ..details() };
    let found =
        findings(&Stream { name: "JOBS".to_owned(), found: Found::Exists(Box::new(settings)) }, CONTEXT);
    let severities: Vec<_> =
        found.iter().map(|finding| (finding.severity, finding.message.as_str())).collect();
    assert_eq!(severities, [(Severity::Error, "a"), (Severity::Warning, "b")]);
    assert!(found[0].advice.as_ref().unwrap().contains("nats stream edit JOBS"));
}

#[test]
fn additions_are_an_error_only_with_no_provision() {
    let adds = || Details { update: Update::Adds("subject x".to_owned()), ..details() };
    assert_eq!(existing(adds()).severity, Severity::Ok);
    assert_eq!(of(Found::Exists(Box::new(adds())), VERIFY).severity, Severity::Error);
}

#[test]
fn stream_of_another_cluster_needs_its_own_account_or_adopt() {
    let refuses = |text: &str| Details { update: Update::Refuses(text.to_owned()), ..details() };
    let advice = existing(refuses("belongs to another cluster; or --adopt")).advice.unwrap();
    assert!(advice.contains("its own NATS account") && advice.contains("--adopt"), "{advice}");
    assert!(existing(refuses("subjects: found x")).advice.unwrap().contains("nats stream edit JOBS"));
}

#[test]
fn full_stream_that_refuses_messages_is_an_error() {
    let used = |bytes, refuses_when_full| {
        existing(Details { state: State { bytes, refuses_when_full, ..details().state }, ..details() })
    };
    assert_eq!(used(799, true).severity, Severity::Ok);
    assert_eq!(used(800, true).severity, Severity::Warning);
    let full = used(1000, true);
    assert!(full.severity == Severity::Error && full.message.contains("refused"));
    let history = used(1000, false);
    assert!(
        history.severity == Severity::Warning && history.message.contains("the oldest messages are dropped")
    );
}

#[test]
fn single_replica_matters_only_in_a_cluster() {
    let clustered = Context { is_clustered: true, ..CONTEXT };
    let found = of(Found::Exists(Box::new(details())), clustered);
    assert_eq!(found.severity, Severity::Warning);
    assert!(found.advice.unwrap().contains("--replicas 3"));
    let state = State { lagging: vec!["c".to_owned()], ..details().state };
    assert!(existing(Details { state, ..details() }).message.contains("offline or behind: c"));
}

#[test]
fn another_stream_on_a_subject_is_an_error_or_loses_events() {
    let overlap = |stream: &str, is_republished| Overlap {
        subject: "jobs.simple.create".to_owned(),
        stream: stream.to_owned(),
        is_republished,
        others: vec!["ALL".to_owned()],
    };
    let found = overlaps(&[overlap("JOBS", false), overlap("JOB_STATUS", true)]);
    assert_eq!(found[0].severity, Severity::Error);
    assert!(found[0].message.contains("captures jobs.simple.create, which JOBS needs"), "{found:?}");
    assert!(found[0].advice.as_ref().unwrap().contains("nats stream edit ALL"));
    assert_eq!(found[1].severity, Severity::Warning);
    assert!(found[1].advice.as_ref().unwrap().contains("source JOB_STATUS"));
}
