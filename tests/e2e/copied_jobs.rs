//! A Job that a user copies with its labels and annotations is not mistaken for the original.

use dispatcher_tests::job_controller::{finished_status, managed_template};
use dispatcher_tests::test_env::{TestEnv, event, text};
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{or_skip, until};
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::single_jobs::{OUTCOME_LABEL, another_job_is_retired, complete, start_job, until_retired};

/// The Job as a user copies it: without the fields that the API server sets, with its labels and
/// annotations.
fn copy_of(job: &Job, name: &str) -> Job {
    let server_labels = |label: &str| label.contains("controller-uid") || label.contains("job-name");
    let mut copy = job.clone();
    let meta = &mut copy.metadata;
    meta.name = Some(name.to_owned());
    (meta.uid, meta.resource_version, meta.creation_timestamp, meta.managed_fields) =
        (None, None, None, None);
    meta.labels.iter_mut().for_each(|labels| labels.retain(|label, _| !server_labels(label)));
    copy.status = None;
    let spec = copy.spec.as_mut().unwrap();
    (spec.selector, spec.ttl_seconds_after_finished) = (None, None);
    let labels = spec.template.metadata.as_mut().and_then(|meta| meta.labels.as_mut());
    labels.into_iter().for_each(|labels| labels.retain(|label, _| !server_labels(label)));
    copy
}

async fn until_deleted(env: &TestEnv, name: &str) {
    until(&format!("{name} to be deleted"), TIMEOUT, || async {
        env.namespace.jobs.get_opt(name).await.unwrap().is_none().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn finished_job_that_is_replaced_by_its_copy_runs_and_is_published_again() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    let name = start_job(&env, "rerun").await;
    env.set_status(&name, complete()).await;
    let original = until_retired(&env, &name).await;
    env.namespace.jobs.delete(&name, &DeleteParams::background()).await.unwrap();
    until_deleted(&env, &name).await;
    let copy = env.namespace.jobs.create(&PostParams::default(), &copy_of(&original, &name)).await.unwrap();
    assert!(copy.labels().contains_key(OUTCOME_LABEL), "the copy has the label of the original");

    until("the ADDED of the copy", TIMEOUT, || async {
        let events: Vec<Value> = env.history(&name).await.iter().map(event).collect();
        let is_added = |event: &&Value| {
            event["type"] == "ADDED" && event["uid"].as_str() == copy.metadata.uid.as_deref()
        };
        events.iter().any(|event| is_added(&event)).then_some(()).ok_or(events)
    })
    .await;
    until("the foreign label to be removed", TIMEOUT, || async {
        let labels = env.job(&name).await.labels().clone();
        if labels.contains_key(OUTCOME_LABEL) { Err(format!("{labels:?}")) } else { Ok(()) }
    })
    .await;
    env.set_status(&name, finished_status("Failed", 4, "BackoffLimitExceeded", "no")).await;
    let retired = until_retired(&env, &name).await;
    assert_eq!(retired.labels()[OUTCOME_LABEL], "Failed");
    let events: Vec<Value> = env.history(&name).await.iter().map(event).collect();
    let outcomes: Vec<_> = events.iter().filter(|event| event["type"] == "OUTCOME").collect();
    let uids: Vec<_> = outcomes.iter().map(|event| text(&event["uid"])).collect();
    assert_eq!(uids, [original.uid().unwrap(), copy.uid().unwrap()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_under_another_name_is_no_job_of_the_request() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let dispatcher = env.dispatcher().templates(templates).start().await;
    let (running, finished) = (start_job(&env, "running").await, start_job(&env, "finished").await);
    env.set_status(&finished, complete()).await;
    until_retired(&env, &finished).await;
    for original in [&running, &finished] {
        let (job, name) = (env.job(original).await, format!("{original}-copy"));
        env.namespace.jobs.create(&PostParams::default(), &copy_of(&job, &name)).await.unwrap();
        env.set_status(&name, complete()).await;
    }
    // The watch delivers a later Job after the copies.
    another_job_is_retired(&env, "other").await;
    for original in [&running, &finished] {
        assert_eq!(env.event_types(&format!("{original}-copy")).await, [""; 0]);
    }
    // Nor does a restart take them for Jobs of a request.
    dispatcher.kill().await;
    dispatcher.restart().await;
    another_job_is_retired(&env, "another").await;
    for original in [&running, &finished] {
        assert_eq!(env.event_types(&format!("{original}-copy")).await, [""; 0]);
    }
    assert_eq!(env.last_event(&running).await.unwrap()["type"], "MODIFIED");
}

#[tokio::test(flavor = "multi_thread")]
async fn outcome_label_that_a_user_sets_does_not_hide_a_running_job() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    let name = start_job(&env, "labelled").await;
    let label = Patch::Merge(json!({"metadata": {"labels": {OUTCOME_LABEL: "Complete"}}}));
    env.namespace.jobs.patch(&name, &PatchParams::default(), &label).await.unwrap();
    until("the label to be removed", TIMEOUT, || async {
        let labels = env.job(&name).await.labels().clone();
        if labels.contains_key(OUTCOME_LABEL) { Err(format!("{labels:?}")) } else { Ok(()) }
    })
    .await;
    env.set_status(&name, finished_status("Failed", 4, "BackoffLimitExceeded", "no")).await;
    assert_eq!(env.outcome(&name).await["result"], "Failed");
    assert_eq!(until_retired(&env, &name).await.labels()[OUTCOME_LABEL], "Failed");
}
