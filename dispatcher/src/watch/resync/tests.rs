//! Tests of the Jobs that a second pass verifies.

use dispatcher_core::{contract::event::EventType, status::reconcile::LastEvent, testing::a_job};
use serde_json::json;

use super::*;

/// An open subject whose last event is of this Job.
fn open(uid: &str) -> OpenSubjects {
    let last = LastEvent { uid: uid.to_owned(), resource_version: 1, event: EventType::Added };
    let (template, name) = (TemplateName::try_from("simple").unwrap(), JobName::try_from("a").unwrap());
    OpenSubjects::from([((template, name), SubjectState { sequence: 1, last: Some(last) })])
}

#[test]
fn uncovered_is_a_job_of_neither_the_scan_nor_the_list_nor_the_watch() {
    let covered = CoveredJobs::default();
    assert_eq!(covered.uncovered(&open("a")).len(), 0, "before the first resync");
    covered.start(open("in-scan").values());
    for state in [a_job("in-list", 2, json!({})), a_job("retired", 3, json!({}))] {
        covered.add(&JobState { retired: state.uid == "retired", ..state });
    }
    for (uid, uncovered) in [("in-scan", 0), ("in-list", 0), ("retired", 1), ("in-neither", 1)] {
        assert_eq!(covered.uncovered(&open(uid)).len(), uncovered, "{uid}");
    }
    covered.clear();
    covered.add(&a_job("later", 4, json!({})));
    assert_eq!(covered.uncovered(&open("in-neither")).len(), 0, "after the second pass");
}

#[test]
fn a_verified_job_is_covered_and_the_next_one_of_its_name_is_not() {
    let covered = CoveredJobs::default();
    covered.start(OpenSubjects::new().values());
    covered.add_all(open("a").values());
    assert_eq!(covered.uncovered(&open("a")).len(), 0);
    assert_eq!(covered.uncovered(&open("the-next-of-its-name")).len(), 1);
}

#[test]
fn a_resync_forgets_the_jobs_that_the_previous_one_covered() {
    let covered = CoveredJobs::default();
    covered.start(open("before").values());
    covered.start(open("now").values());
    assert_eq!(covered.uncovered(&open("before")).len(), 1, "another replica may have published since");
}
