use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::testing::a_job;

fn template() -> TemplateName {
    TemplateName::try_from("simple").unwrap()
}

fn id(n: u8) -> RequestId {
    RequestId::try_from(format!("r{n}")).unwrap()
}

fn uid(n: u8) -> String {
    format!("u{n}")
}

fn synced() -> ConcurrencyTable {
    let mut table = ConcurrencyTable::default();
    table.begin_list();
    table.end_list();
    table
}

fn reserve_one(table: &mut ConcurrencyTable, limit: usize) -> ReservationId {
    table.reserve(&template(), limit, 1)[0]
}

fn observe(table: &mut ConcurrencyTable, n: u8, finished: bool) {
    let job = JobState { template: template(), request_id: id(n), ..a_job(&uid(n), 1, json!({})) };
    table.apply(&job, finished);
}

fn used(table: &ConcurrencyTable) -> usize {
    table.templates.get(&template()).map_or(0, Usage::total)
}

#[test]
fn nothing_is_reserved_before_the_first_list() {
    let mut table = ConcurrencyTable::default();
    assert!(table.reserve(&template(), 2, 9).is_empty());
    table.begin_list();
    observe(&mut table, 1, false);
    assert!(table.reserve(&template(), 2, 9).is_empty());
    table.end_list();
    assert_eq!(table.reserve(&template(), 2, 9).len(), 1);
}

#[test]
fn jobs_and_reservations_count_together() {
    let mut table = synced();
    assert_eq!(table.reserve(&template(), 3, 2).len(), 2);
    observe(&mut table, 9, false);
    assert!(table.reserve(&template(), 3, 2).is_empty());
    observe(&mut table, 9, true);
    assert_eq!(table.reserve(&template(), 3, 2).len(), 1);
    let other = TemplateName::try_from("other").unwrap();
    assert_eq!(table.reserve(&other, 3, 2).len(), 2, "another template is not limited");
}

#[test]
fn request_without_a_job_releases_its_reservation() {
    let mut table = synced();
    let reservation = reserve_one(&mut table, 1);
    table.bind(&template(), reservation, &id(1));
    table.release(&template(), reservation);
    assert_eq!(used(&table), 0);
}

#[test]
fn created_job_counts_before_the_watch_delivers_it_and_until_it_finishes() {
    let mut table = synced();
    let reservation = reserve_one(&mut table, 1);
    table.bind(&template(), reservation, &id(1));
    table.job_exists(&template(), reservation, &uid(1), false);
    table.release(&template(), reservation);
    assert_eq!(used(&table), 1, "the watch has not delivered it");
    observe(&mut table, 1, false);
    assert_eq!(used(&table), 1);
    observe(&mut table, 1, true);
    assert_eq!(used(&table), 0);
}

#[test]
fn job_that_finishes_before_its_create_returns_is_not_counted() {
    let mut table = synced();
    let reservation = reserve_one(&mut table, 1);
    table.bind(&template(), reservation, &id(1));
    observe(&mut table, 1, false);
    observe(&mut table, 1, true);
    table.job_exists(&template(), reservation, &uid(1), false);
    table.release(&template(), reservation);
    assert_eq!(used(&table), 0);
}

#[test]
fn job_that_the_watch_delivered_already_counts_once() {
    let mut table = synced();
    observe(&mut table, 1, false);
    let reservation = reserve_one(&mut table, 2);
    table.bind(&template(), reservation, &id(1));
    table.job_exists(&template(), reservation, &uid(1), false);
    table.release(&template(), reservation);
    assert_eq!(used(&table), 1);
}

#[test]
fn job_that_a_later_list_lacks_is_not_counted() {
    let mut table = synced();
    let (before, during) = (reserve_one(&mut table, 9), reserve_one(&mut table, 9));
    table.bind(&template(), before, &id(1));
    table.bind(&template(), during, &id(2));
    table.job_exists(&template(), before, &uid(1), false);
    table.release(&template(), before);
    observe(&mut table, 3, false);
    table.begin_list();
    table.job_exists(&template(), during, &uid(2), false);
    table.release(&template(), during);
    let departed = table.end_list();
    assert_eq!(used(&table), 2, "a Job that the list lacks may only have left the selector");
    assert_eq!(departed.iter().map(|job| job.uid.as_str()).collect::<Vec<_>>(), ["u3"]);
    departed.iter().for_each(|job| table.ended(job));
    assert_eq!(used(&table), 1, "only the Job that may have been created after the list counts");
}

#[test]
fn job_that_leaves_the_watch_counts_until_a_get_shows_its_end() {
    let mut table = synced();
    observe(&mut table, 1, false);
    assert_eq!(table.departed("another"), None);
    let departed = table.departed("u1").unwrap();
    assert_eq!(used(&table), 1);
    table.ended(&departed);
    assert_eq!((used(&table), table.departed("u1")), (0, None));
}

fn found(uid: &str, labels: &Value, status: &Value) -> JobObject {
    serde_json::from_value(json!({"metadata": {"uid": uid, "labels": labels}, "spec": {}, "status": status}))
        .unwrap()
}

#[test]
fn get_of_a_departed_job_decides_by_uid_condition_and_labels() {
    let job = departed_job(&template(), &JobName::try_from("a").unwrap(), "u");
    let (watched, hidden) = (
        json!({"natsjobs.dev/template": "simple"}),
        json!({"natsjobs.dev/template": "simple", "natsjobs.dev/outcome": "Complete"}),
    );
    let finished = json!({"conditions": [{"type": "Failed", "status": "True"}]});
    assert_eq!(job.departure(None), Departure::Ended);
    assert_eq!(job.departure(Some(&found("another", &watched, &json!({})))), Departure::Ended);
    assert_eq!(job.departure(Some(&found("u", &watched, &json!({"active": 1})))), Departure::Watched);
    for labels in [&hidden, &json!({})] {
        assert_eq!(job.departure(Some(&found("u", labels, &json!({"active": 1})))), Departure::Hidden);
        assert_eq!(job.departure(Some(&found("u", labels, &finished))), Departure::Ended);
    }
}

/// What happens to one of a few requests.
#[derive(Debug, Clone, Copy)]
enum Step {
    Create,
    CreateReturns,
    Finish,
    Delete,
    WatchDelivers,
    Relist,
}

fn step() -> impl Strategy<Value = (u8, Step)> {
    use Step::{Create, CreateReturns, Delete, Finish, Relist, WatchDelivers};
    let steps = vec![Create, CreateReturns, Finish, Delete, WatchDelivers, WatchDelivers, Relist];
    (0..6u8, prop::sample::select(steps))
}

/// A simulated Job, and how many of its states the watch has delivered.
#[derive(Debug, Default)]
struct SimulatedJob {
    reservation: Option<ReservationId>,
    /// Whether the Job is finished, for each of its states.
    states: Vec<bool>,
    delivered: usize,
    deleted: bool,
}

/// Ends a list. A GET of each Job that it lacks shows whether the Job is deleted.
fn end_list(table: &mut ConcurrencyTable, jobs: &[SimulatedJob]) {
    for departed in table.end_list() {
        let n: usize = departed.uid.trim_start_matches('u').parse().unwrap();
        if jobs[n].deleted {
            table.ended(&departed);
        }
    }
}

proptest! {
    /// Creates, ends, watch events and relists in any order: there are never more unfinished Jobs
    /// than the limit, and in the end no reservation is left.
    #[test]
    fn limit_holds_and_no_reservation_leaks(steps in prop::collection::vec(step(), 0..200)) {
        const LIMIT: usize = 2;
        let mut table = synced();
        let mut jobs: [SimulatedJob; 6] = Default::default();
        for (n, step) in steps {
            let job = &mut jobs[usize::from(n)];
            match step {
                Step::Create if job.states.is_empty() => {
                    if let Some(reservation) = table.reserve(&template(), LIMIT, 1).pop() {
                        table.bind(&template(), reservation, &id(n));
                        job.reservation = Some(reservation);
                        job.states.push(false);
                    }
                }
                Step::CreateReturns => if let Some(reservation) = job.reservation.take() {
                    table.job_exists(&template(), reservation, &uid(n), false);
                    table.release(&template(), reservation);
                },
                Step::Finish if job.states == [false] => job.states.push(true),
                Step::Delete if !job.states.is_empty() && !job.deleted => {
                    job.deleted = true;
                    job.states.push(true);
                }
                Step::WatchDelivers => if let Some(finished) = job.states.get(job.delivered) {
                    job.delivered += 1;
                    observe(&mut table, n, *finished);
                },
                Step::Relist => {
                    table.begin_list();
                    for (n, job) in (0u8..).zip(&mut jobs) {
                        job.delivered = job.states.len();
                        if let (Some(finished), false) = (job.states.last(), job.deleted) {
                            observe(&mut table, n, *finished);
                        }
                    }
                    end_list(&mut table, &jobs);
                }
                _ => {}
            }
            let unfinished = jobs.iter().filter(|job| job.states == [false]).count();
            prop_assert!(unfinished <= LIMIT, "{unfinished} at {step:?} of {n}");
        }
        for (n, job) in (0u8..).zip(&mut jobs) {
            if let Some(reservation) = job.reservation.take() {
                table.job_exists(&template(), reservation, &uid(n), false);
                table.release(&template(), reservation);
            }
            for finished in &job.states[job.delivered..] {
                observe(&mut table, n, *finished);
            }
        }
        let unfinished = jobs.iter().filter(|job| job.states == [false]).count();
        // A reservation made during the last list may still await the watch: another list removes it.
        table.begin_list();
        for (n, job) in (0u8..).zip(&jobs) {
            if let (Some(finished), false) = (job.states.last(), job.deleted) {
                observe(&mut table, n, *finished);
            }
        }
        end_list(&mut table, &jobs);
        prop_assert_eq!(used(&table), unfinished);
    }
}
