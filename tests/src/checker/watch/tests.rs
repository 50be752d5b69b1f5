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

fn seen(table: &Table) -> JobRecord {
    table.0["u"].job.clone()
}

#[test]
fn job_is_converted_to_a_record() {
    let expected = JobRecord {
        name: "a".into(),
        template: "simple".into(),
        uid: "u".into(),
        managed: true,
        request_id: "id".into(),
        request_seq: 7,
        finish: Finish::Failed,
        watched: true,
        ..JobRecord::default()
    };
    assert_eq!(read(&job("u", 1, Some("Failed"))).job, expected);
    let foreign = read(&Job::default()).job;
    assert!(!foreign.managed);
}

#[test]
fn observed_deletion_keeps_the_last_state() {
    let mut table = Table::default();
    table.apply(&job("u", 1, None));
    table.delete(&job("u", 2, None));
    assert!(seen(&table).deleted);
    assert_eq!(seen(&table).finish, Finish::Not);
}

#[test]
fn job_missing_from_a_list_has_an_unknown_end() {
    let mut table = Table::default();
    table.apply(&job("u", 1, None));
    table.apply(&job("v", 1, Some("Complete")));
    table.keep(&BTreeSet::new());
    assert_eq!((seen(&table).deleted, seen(&table).finish), (true, Finish::Unknown));
    assert_eq!(table.0["v"].job.finish, Finish::Complete);
}

#[test]
fn older_state_and_removed_metadata_are_ignored() {
    let mut table = Table::default();
    table.apply(&job("u", 5, Some("Complete")));
    table.apply(&job("u", 3, None));
    assert_eq!(seen(&table).finish, Finish::Complete);
    let mut bare = job("u", 6, None);
    bare.metadata.annotations = None;
    bare.metadata.labels = None;
    table.apply(&bare);
    let seen = seen(&table);
    assert_eq!((seen.managed, seen.request_seq, seen.template.as_str()), (true, 7, "simple"));
    assert_eq!(seen.finish, Finish::Complete);
}

#[test]
fn job_older_than_the_recording_is_unmanaged() {
    let mut table = Table::default();
    table.apply(&job("u", 1, None));
    table.disown(&["u".to_owned()].into());
    table.apply(&job("u", 2, Some("Complete")));
    assert!(!seen(&table).managed);
    table.apply(&job("v", 3, None));
    assert!(table.0["v"].job.managed);
}
