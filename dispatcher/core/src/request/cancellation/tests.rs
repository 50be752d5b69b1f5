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
    Cancel::Name { template: template(), name: name("a"), up_to, account: None }
}

fn by_id(up_to: u64) -> Cancel {
    Cancel::Request {
        template: template(),
        request_id: id("order *> 1"),
        name: name("a"),
        up_to,
        account: None,
    }
}

fn covers(table: &Table, template: &TemplateName, job: &str, request: &str, sequence: u64) -> bool {
    covers_of(table, template, job, request, sequence, None)
}

fn covers_of(
    table: &Table,
    template: &TemplateName,
    job: &str,
    request: &str,
    sequence: u64,
    account: Option<&str>,
) -> bool {
    let (name, id) = (name(job), id(request));
    table.covers(&QueuedRequest { template, name: &name, id: &id, sequence, account })
}

#[test]
fn cancellation_of_an_account_covers_no_request_of_another() {
    let mut table = Table::default();
    let account = Some("ACME".to_owned());
    table.put(Cancel::Name { template: template(), name: name("a"), up_to: 7, account: account.clone() }, 1);
    table.put(
        Cancel::Request { template: template(), request_id: id("order"), name: name("b"), up_to: 7, account },
        2,
    );
    for (job, request) in [("a", "1"), ("b", "order")] {
        assert!(covers_of(&table, &template(), job, request, 7, Some("ACME")));
        assert!(!covers_of(&table, &template(), job, request, 7, Some("GLOBEX")));
        assert!(!covers_of(&table, &template(), job, request, 7, None));
    }
    assert_eq!(table.pending(&template()), 2);
    let mut job = JobState { name: name("a"), request_seq: 7, ..a_job("u", 1, json!({})) };
    let entry = table.entries().into_iter().find(|entry| entry.cancel.target().1.as_ref() == "a").unwrap();
    assert!(!entry.cancel.covers_job(&job), "a Job of an unknown account");
    job.submitter = Some(Submitter { account: "ACME".to_owned(), user: None });
    assert!(entry.cancel.covers_job(&job));
}

#[test]
fn unknown_account_may_cancel_nothing_if_callers_are_limited_to_their_own() {
    let of = |account: &str| Some(Submitter { account: account.to_owned(), user: None });
    let (acme, globex) = (of("ACME"), of("GLOBEX"));
    assert!(may_cancel(true, acme.as_ref(), acme.as_ref()));
    for (caller, owner) in [(&acme, &globex), (&acme, &None), (&None, &acme), (&None, &None)] {
        assert!(!may_cancel(true, caller.as_ref(), owner.as_ref()));
        assert!(may_cancel(false, caller.as_ref(), owner.as_ref()));
    }
}

#[test]
fn cancelled_name_covers_only_requests_stored_before() {
    let mut table = Table::default();
    assert!(!covers(&table, &template(), "a", "1", 1));
    table.put(by_name(7), 1);
    assert!(covers(&table, &template(), "a", "1", 7));
    assert!(!covers(&table, &template(), "a", "1", 8), "a later request of that name is not cancelled");
    assert!(!covers(&table, &template(), "b", "1", 7));
    assert!(!covers(&table, &TemplateName::try_from("other").unwrap(), "a", "1", 7));
}

#[test]
fn cancelled_request_covers_no_other_request_of_its_name() {
    let mut table = Table::default();
    table.put(by_id(7), 1);
    assert!(covers(&table, &template(), "a", "order *> 1", 7));
    assert!(!covers(&table, &template(), "a", "order 2", 7));
    assert!(!covers(&table, &template(), "a", "order *> 1", 8));
}

#[test]
fn newest_entry_wins_and_an_older_removal_keeps_it() {
    let mut table = Table::default();
    table.put(by_name(7), 1);
    let first = table.entries().remove(0);
    table.put(by_name(20), 5);
    table.put(by_name(7), 1);
    assert!(covers(&table, &template(), "a", "1", 20));
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
