use proptest::prelude::*;
use serde_json::json;

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

fn complete() -> Table {
    let mut table = Table::default();
    table.list_begins();
    table.listed();
    table
}

fn one(table: &mut Table, limit: usize) -> Number {
    table.reserve(&template(), limit, 1)[0]
}

fn seen(table: &mut Table, n: u8, finished: bool) {
    let state = JobState { template: template(), request_id: id(n), ..a_job(&uid(n), 1, json!({})) };
    table.apply(&state, finished);
}

fn used(table: &Table) -> usize {
    table.templates.get(&template()).map_or(0, PerTemplate::used)
}

#[test]
fn nothing_is_created_before_the_jobs_are_listed() {
    let mut table = Table::default();
    assert!(table.reserve(&template(), 2, 9).is_empty());
    table.list_begins();
    seen(&mut table, 1, false);
    assert!(table.reserve(&template(), 2, 9).is_empty());
    table.listed();
    assert_eq!(table.reserve(&template(), 2, 9).len(), 1);
}

#[test]
fn jobs_and_requests_under_work_count_together() {
    let mut table = complete();
    assert_eq!(table.reserve(&template(), 3, 2).len(), 2);
    seen(&mut table, 9, false);
    assert!(table.reserve(&template(), 3, 2).is_empty());
    seen(&mut table, 9, true);
    assert_eq!(table.reserve(&template(), 3, 2).len(), 1);
    let other = TemplateName::try_from("other").unwrap();
    assert_eq!(table.reserve(&other, 3, 2).len(), 2, "another template goes on");
}

#[test]
fn a_request_without_a_job_gives_its_slot_back() {
    let mut table = complete();
    let number = one(&mut table, 1);
    table.claim(&template(), number, &id(1));
    table.release(&template(), number);
    assert_eq!(used(&table), 0);
}

#[test]
fn a_created_job_counts_until_the_watch_has_seen_it_and_then_until_it_is_finished() {
    let mut table = complete();
    let number = one(&mut table, 1);
    table.claim(&template(), number, &id(1));
    table.has(&template(), number, &uid(1), false);
    table.release(&template(), number);
    assert_eq!(used(&table), 1, "the watch has not seen it");
    seen(&mut table, 1, false);
    assert_eq!(used(&table), 1);
    seen(&mut table, 1, true);
    assert_eq!(used(&table), 0);
}

#[test]
fn a_job_that_was_over_before_its_create_was_answered_leaves_nothing() {
    let mut table = complete();
    let number = one(&mut table, 1);
    table.claim(&template(), number, &id(1));
    seen(&mut table, 1, false);
    seen(&mut table, 1, true);
    table.has(&template(), number, &uid(1), false);
    table.release(&template(), number);
    assert_eq!(used(&table), 0);
}

#[test]
fn a_job_that_the_watch_knows_already_counts_once() {
    let mut table = complete();
    seen(&mut table, 1, false);
    let number = one(&mut table, 2);
    table.claim(&template(), number, &id(1));
    table.has(&template(), number, &uid(1), false);
    table.release(&template(), number);
    assert_eq!(used(&table), 1);
}

#[test]
fn a_job_that_was_there_before_a_list_and_is_not_in_it_is_gone() {
    let mut table = complete();
    let (before, during) = (one(&mut table, 9), one(&mut table, 9));
    table.claim(&template(), before, &id(1));
    table.claim(&template(), during, &id(2));
    table.has(&template(), before, &uid(1), false);
    table.release(&template(), before);
    seen(&mut table, 3, false);
    table.list_begins();
    table.has(&template(), during, &uid(2), false);
    table.release(&template(), during);
    table.listed();
    assert_eq!(used(&table), 1, "only what may have been created after the list is awaited");
}

/// What happens to one of a few requests, in an order that can be.
#[derive(Debug, Clone, Copy)]
enum Happens {
    Create,
    Answer,
    Finish,
    Vanish,
    WatchTells,
    Relist,
}

fn happens() -> impl Strategy<Value = (u8, Happens)> {
    use Happens::{Answer, Create, Finish, Relist, Vanish, WatchTells};
    (0..6u8, prop::sample::select(vec![Create, Answer, Finish, Vanish, WatchTells, WatchTells, Relist]))
}

/// A Job in a cluster, and how much of its life the watch has told.
#[derive(Debug, Default)]
struct Life {
    slot: Option<Number>,
    states: Vec<bool>,
    told: usize,
    gone: bool,
}

proptest! {
    /// However answers, ends, the watch and relists interleave: never more unfinished Jobs than the limit, and once all is
    /// told, nothing is left over.
    #[test]
    fn the_limit_holds_and_nothing_leaks(steps in prop::collection::vec(happens(), 0..200)) {
        const LIMIT: usize = 2;
        let mut table = complete();
        let mut lives: [Life; 6] = Default::default();
        for (n, step) in steps {
            let life = &mut lives[usize::from(n)];
            match step {
                Happens::Create if life.states.is_empty() => {
                    if let Some(number) = table.reserve(&template(), LIMIT, 1).pop() {
                        table.claim(&template(), number, &id(n));
                        life.slot = Some(number);
                        life.states.push(false);
                    }
                }
                Happens::Answer => if let Some(number) = life.slot.take() {
                    table.has(&template(), number, &uid(n), false);
                    table.release(&template(), number);
                },
                Happens::Finish if life.states == [false] => life.states.push(true),
                Happens::Vanish if !life.states.is_empty() && !life.gone => {
                    life.gone = true;
                    life.states.push(true);
                }
                Happens::WatchTells => if let Some(finished) = life.states.get(life.told) {
                    life.told += 1;
                    seen(&mut table, n, *finished);
                },
                Happens::Relist => {
                    table.list_begins();
                    for (n, life) in (0u8..).zip(&mut lives) {
                        life.told = life.states.len();
                        if let (Some(finished), false) = (life.states.last(), life.gone) {
                            seen(&mut table, n, *finished);
                        }
                    }
                    table.listed();
                }
                _ => {}
            }
            let unfinished = lives.iter().filter(|life| life.states == [false]).count();
            prop_assert!(unfinished <= LIMIT, "{unfinished} at {step:?} of {n}");
        }
        for (n, life) in (0u8..).zip(&mut lives) {
            if let Some(number) = life.slot.take() {
                table.has(&template(), number, &uid(n), false);
                table.release(&template(), number);
            }
            for finished in &life.states[life.told..] {
                seen(&mut table, n, *finished);
            }
        }
        let unfinished = lives.iter().filter(|life| life.states == [false]).count();
        // A slot that was awaited over a relist may still be: the next one ends that.
        table.list_begins();
        for (n, life) in (0u8..).zip(&lives) {
            if let (Some(finished), false) = (life.states.last(), life.gone) {
                seen(&mut table, n, *finished);
            }
        }
        table.listed();
        prop_assert_eq!(used(&table), unfinished);
    }
}
