//! Makes the attempts of an outcome fit into a message: tails of logs go first, the oldest first. Pure.

use crate::contract::{
    event::{Attempt, Outcome},
    text::json_len,
};

/// The most that the attempts of one event take, in bytes of JSON.
const MOST: usize = 256 * 1024;

/// Shortens the attempts to a quarter of what the server takes as one message: the rest is the Job's own.
pub(super) fn fit(outcome: &mut Outcome, max_payload: usize) {
    let budget = MOST.min(max_payload / 4);
    let mut size: usize = outcome.attempts.iter().map(size).sum();
    for attempt in &mut outcome.attempts {
        if size <= budget {
            return;
        }
        let tail = attempt.log_tail.take();
        size -= tail.as_deref().map_or(0, text);
    }
    let mut omitted = 0;
    outcome.attempts.retain(|attempt| {
        let over = size > budget;
        if over {
            size -= self::size(attempt);
            omitted += 1;
        }
        !over
    });
    outcome.attempts_omitted += omitted;
}

/// At least the bytes of an attempt in JSON.
fn size(attempt: &Attempt) -> usize {
    let texts = [&attempt.message, &attempt.log_tail, &attempt.reason, &attempt.node, &attempt.container];
    // Keys, names that Kubernetes bounds, and numbers.
    1024 + texts.into_iter().flatten().map(|text| self::text(text)).sum::<usize>()
}

fn text(text: &str) -> usize {
    text.chars().map(json_len).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::testing::a_job;

    fn outcome(attempts: Vec<Attempt>) -> Outcome {
        Outcome { attempts, ..a_job("u", 1, json!({})).outcome_of_deletion() }
    }

    fn attempt(n: usize, tail: &str) -> Attempt {
        Attempt { pod: n.to_string(), log_tail: Some(tail.into()), ..Attempt::default() }
    }

    #[test]
    fn what_fits_stays_as_it_is() {
        let mut small = outcome(vec![attempt(0, "a"), attempt(1, "b")]);
        let before = small.clone();
        fit(&mut small, 1 << 20);
        assert_eq!(small, before);
    }

    #[test]
    fn the_oldest_tails_go_first() {
        let tail = "x".repeat(100 * 1024);
        let mut large = outcome((0..3).map(|n| attempt(n, &tail)).collect());
        fit(&mut large, 1 << 20);
        let tails: Vec<_> = large.attempts.iter().map(|a| a.log_tail.is_some()).collect();
        assert_eq!((tails, large.attempts_omitted), (vec![false, true, true], 0));
    }

    proptest! {
        #[test]
        fn the_event_stays_well_below_the_limit(
            tails in prop::collection::vec("(?s).{0,2000}", 0..16), max_payload in 4096usize..200_000,
        ) {
            let attempts = tails.iter().enumerate().map(|(n, tail)| attempt(n, tail)).collect();
            let mut fitted = outcome(attempts);
            fit(&mut fitted, max_payload);
            prop_assert!(serde_json::to_string(&fitted.attempts).unwrap().len() <= max_payload / 2);
            prop_assert_eq!(fitted.attempts.len() + fitted.attempts_omitted as usize, tails.len());
        }
    }
}
