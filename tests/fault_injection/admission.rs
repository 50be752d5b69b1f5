//! Admission control refuses, breaks on, or changes single Jobs. No other request waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{load_test, until};
use local_cluster::faults::{Calls, Creation, Denial, Failure};
use serde_json::{Value, json};

use crate::scenario::{JOBS, Scenario, repeat};

/// How long good requests may take while others fail. Before the breaker had a canary, three
/// failing requests stopped all others for minutes.
const SOON: Duration = Duration::from_secs(60);

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// Fails the creates of the Jobs `bad-…`, as a webhook does that crashes on them.
fn break_on_bad(creation: Creation<'_>) -> Result<(), Denial> {
    match creation.resource == "jobs" && name(creation.object).starts_with("bad-") {
        true => Err(Denial::broken_webhook("EOF")),
        false => Ok(()),
    }
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}-{n}")).collect()
}

async fn until_created(scenario: &Scenario, names: &[String]) {
    until("the Jobs of the good requests", SOON, || async {
        for name in names {
            scenario.jobs.get(name).await.map_err(|_| format!("no Job {name}"))?;
        }
        Ok::<_, String>(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_requests_delay_no_others() {
    repeat("a webhook crashes on some Jobs", async |scenario, random| {
        let before = names("before", 1);
        scenario.request(&before).await;
        until_created(scenario, &before).await;
        scenario.faults.set_admission(break_on_bad);
        let failing = [1, 3, 16, 200][random.usize(0..4)];
        scenario.request(&names("bad", failing)).await;
        let good = names("good", 40);
        scenario.request(&good).await;
        until_created(scenario, &good).await;
        let bad = scenario.jobs.get_opt("bad-0").await.unwrap();
        assert!(bad.is_none(), "the request still fails");
        assert_eq!(scenario.not_ready().await, None, "single requests make nothing unready");
        scenario.faults.reset_admission();
    })
    .await;
}

/// A restarted dispatcher has created no Job that could be its canary: it takes one of the cluster.
#[tokio::test(flavor = "multi_thread")]
async fn failing_requests_delay_no_others_after_a_restart() {
    repeat("a webhook crashes on some Jobs, and the dispatcher restarts", async |scenario, _| {
        let before = names("before", 1);
        scenario.request(&before).await;
        until_created(scenario, &before).await;
        scenario.faults.set_admission(break_on_bad);
        scenario.request(&names("bad", 100)).await;
        scenario.crash().await;
        let good = names("good", 40);
        scenario.request(&good).await;
        until_created(scenario, &good).await;
        scenario.faults.reset_admission();
    })
    .await;
}

/// Texts and codes of a webhook that mean something else elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn denial_of_any_code_is_a_rejection() {
    repeat("a webhook denies Jobs with each code", async |scenario, _| {
        let codes = [400, 401, 403, 404, 409, 418, 429, 500, 503, 599, 666];
        let texts = ["exceeded quota: q", "admission webhook \"x\" denied", "NamespaceTerminating", "exists"];
        scenario.faults.set_admission(move |creation| {
            let Some(number) = name(creation.object).strip_prefix("code-") else { return Ok(()) };
            let (code, text) = number.split_once('-').unwrap();
            let text = texts[text.parse::<usize>().unwrap()];
            let details = json!({"name": format!("code-{number}"), "kind": "jobs",
                                 "causes": [{"reason": "NamespaceTerminating"}]});
            Err(Denial::webhook(code.parse().unwrap(), text).with_details(details))
        });
        let denied: Vec<_> = codes
            .iter()
            .flat_map(|code| (0..texts.len()).map(move |text| format!("code-{code}-{text}")))
            .collect();
        scenario.request(&denied).await;
        scenario.request(&names("good", 20)).await;
        until_created(scenario, &names("good", 20)).await;
        until("a rejection of each denied request", TIMEOUT, || async {
            let refused = scenario.rejections("Refused").await;
            if refused == denied.len() { Ok(()) } else { Err(refused) }
        })
        .await;
        assert_eq!(scenario.not_ready().await, None, "a denial makes nothing unready");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quota_is_an_outage_of_all_and_rejects_nothing() {
    repeat("a quota is exceeded, then raised", async |scenario, random| {
        let before = random.usize(1..30);
        scenario.load(0, before).await;
        scenario.until_jobs(load_test::jobs_of_load(before)).await;
        let (creates, canaries) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counters = (creates.clone(), canaries.clone());
        scenario.faults.set_admission(move |creation| {
            if creation.resource != "jobs" {
                return Ok(());
            }
            let counter = if creation.dry_run { &counters.1 } else { &counters.0 };
            counter.fetch_add(1, Ordering::Relaxed);
            Err(Denial::quota(name(creation.object)))
        });
        scenario.load(100, 60).await;
        until("canaries while the breaker is open", TIMEOUT, || async {
            let count = canaries.load(Ordering::Relaxed);
            if count >= 3 { Ok(()) } else { Err(count) }
        })
        .await;
        let failed = creates.load(Ordering::Relaxed);
        assert!(failed <= 64, "{failed} creates failed: the breaker is open");
        assert_eq!(scenario.rejections("Refused").await, 0);
        assert_eq!(scenario.rejections("RetriesExhausted").await, 0);
        scenario.faults.reset_admission();
    })
    .await;
}

/// Changes one label or annotation of each new Job.
fn change(
    path: &'static str,
    key: &'static str,
    value: Value,
) -> impl Fn(Creation<'_>) -> Result<(), Denial> {
    move |creation| {
        if creation.resource == "jobs" {
            let map = &mut creation.object["metadata"][path];
            match value.is_null() {
                true => drop(map.as_object_mut().unwrap().remove(key)),
                false => map[key] = value.clone(),
            }
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_that_admission_changes_is_restored() {
    let changes = [
        ("labels", "app.kubernetes.io/managed-by", json!("platform")),
        ("labels", "natsjobs.dev/template", Value::Null),
        ("labels", "natsjobs.dev/template", json!("other")),
        ("labels", "natsjobs.dev/outcome", json!("Complete")),
        ("annotations", "natsjobs.dev/request-id", Value::Null),
        ("annotations", "natsjobs.dev/request-hash", json!("other")),
    ];
    repeat("admission changes the metadata of new Jobs", async |scenario, _| {
        for (number, (path, key, value)) in changes.clone().into_iter().enumerate() {
            scenario.faults.set_admission(change(path, key, value));
            let name = format!("changed-{number}");
            scenario.request(std::slice::from_ref(&name)).await;
            let added = scenario.until_last(&name, "OUTCOME").await;
            assert_eq!(added["outcome"]["result"], "Complete");
        }
    })
    .await;
}

/// The Job must not run without events: it is deleted, and the request is rejected. The history
/// checker expects an outcome of every Job, so it does not run here.
#[tokio::test(flavor = "multi_thread")]
async fn job_that_cannot_be_restored_is_deleted_and_its_request_rejected() {
    let scenario = Scenario::start().await;
    scenario.faults.set_admission(change("labels", "app.kubernetes.io/managed-by", json!("platform")));
    scenario.faults.fail(Calls::of("patch", "jobs").within(JOBS), 1000, Failure::Code(422));
    scenario.request(&["changed".to_owned()]).await;
    until("the rejection", TIMEOUT, || async {
        if scenario.rejections("Refused").await == 1 { Ok(()) } else { Err("none") }
    })
    .await;
    assert!(scenario.jobs.get_opt("changed").await.unwrap().is_none(), "the Job is deleted");
    scenario.faults.clear();
    scenario.request(&names("good", 3)).await;
    until_created(&scenario, &names("good", 3)).await;
}
