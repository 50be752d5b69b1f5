use serde_json::json;

use super::*;

fn job(uid: &str, version: u64, condition: Option<&str>) -> Job {
    let conditions: Vec<_> = condition.iter().map(|c| json!({"type": c, "status": "True"})).collect();
    serde_json::from_value(json!({
        "metadata": {
            "name": "a", "uid": uid, "resourceVersion": version.to_string(),
            "labels": {"natsjobs.dev/template": "simple"},
            "annotations": {"natsjobs.dev/request-id": "id", "natsjobs.dev/request-seq": "7"}
        },
        "status": {"conditions": conditions}
    }))
    .unwrap()
}

fn seen(table: &Table) -> JobSeen {
    table.0["u"].job.clone()
}

#[test]
fn a_job_is_read_with_all_that_the_checker_needs() {
    let expected = JobSeen {
        name: "a".into(),
        template: "simple".into(),
        uid: "u".into(),
        ours: true,
        request_id: "id".into(),
        request_seq: 7,
        ended: Ended::Failed,
        watched: true,
        ..JobSeen::default()
    };
    assert_eq!(read(&job("u", 1, Some("Failed"))).job, expected);
    let foreign = read(&Job::default()).job;
    assert!(!foreign.ours);
}

#[test]
fn a_job_whose_deletion_is_seen_is_known_to_its_end() {
    let mut table = Table::default();
    table.apply(&job("u", 1, None));
    table.delete(&job("u", 2, None));
    assert!(seen(&table).deleted);
    assert_eq!(seen(&table).ended, Ended::Not);
}

#[test]
fn a_job_that_is_in_no_list_any_more_ended_nobody_knows_how() {
    let mut table = Table::default();
    table.apply(&job("u", 1, None));
    table.apply(&job("v", 1, Some("Complete")));
    table.keep(&BTreeSet::new());
    assert_eq!((seen(&table).deleted, seen(&table).ended), (true, Ended::Unknown));
    assert_eq!(table.0["v"].job.ended, Ended::Complete);
}

#[test]
fn an_older_state_and_a_lost_mark_change_nothing() {
    let mut table = Table::default();
    table.apply(&job("u", 5, Some("Complete")));
    table.apply(&job("u", 3, None));
    assert_eq!(seen(&table).ended, Ended::Complete);
    let mut bare = job("u", 6, None);
    bare.metadata.annotations = None;
    bare.metadata.labels = None;
    table.apply(&bare);
    let seen = seen(&table);
    assert_eq!((seen.ours, seen.request_seq, seen.template.as_str()), (true, 7, "simple"));
    assert_eq!(seen.ended, Ended::Complete);
}

#[test]
fn a_job_that_was_there_before_the_first_request_is_not_ours() {
    let mut table = Table::default();
    table.apply(&job("u", 1, None));
    table.disown(&["u".to_owned()].into());
    table.apply(&job("u", 2, Some("Complete")));
    assert!(!seen(&table).ours);
    table.apply(&job("v", 3, None));
    assert!(table.0["v"].job.ours);
}
