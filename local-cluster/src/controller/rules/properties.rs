//! Properties that hold for any sequence of pod changes.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{model::Model, *};

#[derive(Debug, Clone)]
enum Step {
    Run,
    End(bool),
    DeletePod,
    RemoveRetained,
    Advance(i64),
    Suspend(bool),
    Parallelism(i32),
    /// One sync only: the next step follows before the Job is stable.
    SyncOnce,
    /// One sync that stops before the removal of the finalizers.
    SyncPartially,
    SyncUntilStable,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Run),
        6 => any::<bool>().prop_map(Step::End),
        1 => Just(Step::DeletePod),
        2 => Just(Step::RemoveRetained),
        3 => (0..700_i64).prop_map(Step::Advance),
        1 => any::<bool>().prop_map(Step::Suspend),
        1 => (0..4_i32).prop_map(Step::Parallelism),
        4 => Just(Step::SyncOnce),
        2 => Just(Step::SyncPartially),
        6 => Just(Step::SyncUntilStable),
    ]
}

fn apply(model: &mut Model, step: Step) {
    let now = model.now;
    match step {
        Step::Run => drop(model.run()),
        Step::End(succeeded) => drop(model.end(succeeded)),
        Step::DeletePod => {
            if let Some(pod) = model.active().into_iter().next() {
                pod.metadata.deletion_timestamp = Some(Time(now));
            }
        }
        Step::RemoveRetained => model.pods.retain(|pod| !pods::is_deleting(pod) || pods::is_tracked(pod)),
        Step::Advance(seconds) => drop(model.advance(seconds)),
        Step::Suspend(suspend) => model.job.spec.as_mut().unwrap().suspend = Some(suspend),
        Step::Parallelism(parallelism) => model.job.spec.as_mut().unwrap().parallelism = Some(parallelism),
        Step::SyncOnce => drop(model.sync_once()),
        Step::SyncPartially => drop(model.sync_partially(false)),
        Step::SyncUntilStable => drop(model.sync_until_stable()),
    }
}

fn finals(status: &Value) -> Vec<String> {
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let kinds = conditions
        .iter()
        .filter(|condition| condition["status"] == "True")
        .filter_map(|condition| condition["type"].as_str());
    kinds.filter(|kind| ["Complete", "Failed"].contains(kind)).map(str::to_owned).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// A Job finishes at most once, its counters never decrease, and it never has too many pods.
    #[test]
    fn any_sequence_of_steps_has_one_result(
        steps in proptest::collection::vec(step(), 0..60),
        completions in proptest::option::of(0..5_i32),
        indexed: bool,
        parallelism in 0..4_i32,
        limit in 0..4_i32,
        deadline in proptest::option::of(1..2000_i64),
    ) {
        let mode = if indexed && completions.is_some() { "Indexed" } else { "NonIndexed" };
        let mut model = Model::new(json!({
            "completions": completions, "parallelism": parallelism, "backoffLimit": limit,
            "completionMode": mode, "activeDeadlineSeconds": deadline,
        }));
        let mut max_parallelism = parallelism;
        for step in steps {
            if let Step::Parallelism(parallelism) = step {
                max_parallelism = max_parallelism.max(parallelism);
            }
            apply(&mut model, step);
        }
        model.sync_until_stable().remove_retained().sync_until_stable();
        prop_assert!(i32::try_from(model.max_active).unwrap() <= max_parallelism);
        let mut seen = Vec::new();
        let (mut succeeded, mut failed) = (0, 0);
        for status in &model.written {
            let now = finals(status);
            prop_assert!(seen.is_empty(), "status written after the final condition: {status}");
            prop_assert!(now.len() <= 1, "two final conditions: {status}");
            let count = |field: &str| status[field].as_i64().unwrap_or(0);
            prop_assert!(count("succeeded") >= succeeded && count("failed") >= failed, "a counter decreases: {status}");
            prop_assert!(count("ready") <= count("active"), "more ready than active: {status}");
            (succeeded, failed) = (count("succeeded"), count("failed"));
            seen = now;
        }
        prop_assert!(succeeded + failed <= i64::try_from(model.created).unwrap(), "a pod is counted twice");
        if !seen.is_empty() {
            prop_assert!(model.active().is_empty(), "pods outlive the Job");
            prop_assert!(!model.pods.iter().any(pods::is_tracked), "a pod keeps its finalizer");
        }
        if seen == ["Complete"] {
            prop_assert!(succeeded >= i64::from(completions.unwrap_or(1)));
        }
    }
}
