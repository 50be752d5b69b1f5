use serde_json::json;

use super::*;
use crate::testing::a_job;

fn template() -> TemplateName {
    TemplateName::try_from("simple").unwrap()
}

fn name(text: &str) -> JobName {
    JobName::try_from(text).unwrap()
}

fn id(text: &str) -> RequestId {
    RequestId::try_from(text).unwrap()
}

fn by_name(up_to: u64) -> Cancel {
    Cancel::Name { template: template(), name: name("a"), up_to }
}

fn by_id(up_to: u64) -> Cancel {
    Cancel::Request { template: template(), request_id: id("order *> 1"), name: name("a"), up_to }
}

#[test]
fn cancelled_name_covers_only_requests_stored_before() {
    let mut table = Table::default();
    assert!(!table.covers(&template(), &name("a"), &id("1"), 1));
    table.put(by_name(7), 1);
    assert!(table.covers(&template(), &name("a"), &id("1"), 7));
    assert!(
        !table.covers(&template(), &name("a"), &id("1"), 8),
        "a later request of that name is not cancelled"
    );
    assert!(!table.covers(&template(), &name("b"), &id("1"), 7));
    assert!(!table.covers(&TemplateName::try_from("other").unwrap(), &name("a"), &id("1"), 7));
}

#[test]
fn cancelled_request_covers_no_other_request_of_its_name() {
    let mut table = Table::default();
    table.put(by_id(7), 1);
    assert!(table.covers(&template(), &name("a"), &id("order *> 1"), 7));
    assert!(!table.covers(&template(), &name("a"), &id("order 2"), 7));
    assert!(!table.covers(&template(), &name("a"), &id("order *> 1"), 8));
}

#[test]
fn newest_entry_wins_and_an_older_removal_keeps_it() {
    let mut table = Table::default();
    table.put(by_name(7), 1);
    let first = table.entries().remove(0);
    table.put(by_name(20), 5);
    table.put(by_name(7), 1);
    assert!(table.covers(&template(), &name("a"), &id("1"), 20));
    table.mark_checked(&first);
    assert!(!table.entries()[0].checked, "the check was for another revision");
    table.remove(&first);
    let newest = table.entries().remove(0);
    assert_eq!(newest.cancel, by_name(20));
    table.remove(&newest);
    assert!(table.entries().is_empty());
}

#[test]
fn checked_entry_is_checked_again_when_its_job_appears() {
    let mut table = Table::default();
    table.put(by_id(7), 1);
    let entry = table.entries().remove(0);
    table.mark_checked(&entry);
    assert!(table.entries()[0].checked);
    table.mark_unchecked(&template(), &name("b"));
    assert!(table.entries()[0].checked);
    table.mark_unchecked(&template(), &name("a"));
    assert!(!table.entries()[0].checked);
}

#[test]
fn entry_covers_the_job_of_its_requests_and_no_later_one() {
    let job = |seq: u64, request: &str| JobState {
        template: template(),
        name: name("a"),
        request_seq: seq,
        request_id: id(request),
        ..a_job("u", 1, json!({}))
    };
    assert!(by_name(7).covers_job(&job(7, "x")) && !by_name(7).covers_job(&job(8, "x")));
    assert!(by_id(7).covers_job(&job(7, "order *> 1")) && !by_id(7).covers_job(&job(7, "x")));
    let cancel = Cancel::job(&job(7, "x"));
    assert!(cancel.covers_job(&job(9, "y")), "only the uid counts");
    assert!(!cancel.covers_job(&JobState { uid: "v".into(), ..job(7, "x") }));
}

#[test]
fn key_is_valid_in_a_bucket_and_entry_is_json() {
    for cancel in [by_name(7), by_id(7), Cancel::job(&a_job("u-1", 1, json!({})))] {
        let key = cancel.key();
        assert!(key.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c)), "{key}");
        let text = serde_json::to_string(&cancel).unwrap();
        assert_eq!(serde_json::from_str::<Cancel>(&text).unwrap(), cancel, "{text}");
    }
    let entry = serde_json::to_value(by_name(7)).unwrap();
    assert_eq!(entry, json!({"cancel": "name", "template": "simple", "name": "a", "upTo": 7}));
}
