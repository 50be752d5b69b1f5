//! A policy refuses to retire, delete or change a single Job. The dispatcher stays ready, and other
//! Jobs are not affected.

use dispatcher_tests::job_controller::{START_TIME, finished_status, managed_template};
use dispatcher_tests::proxy::ApiProxy;
use dispatcher_tests::test_env::TestEnv;
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{Dispatcher, only_on_kubernetes, or_skip, until};
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use local_cluster::faults::{Calls, Failure};
use serde_json::{Value, json};

use crate::service_client::call_service;

pub(crate) const OUTCOME_LABEL: &str = "natsjobs.dev/outcome";
const OUTCOME_RECORD: &str = "natsjobs.dev/outcome-record";

pub(crate) fn complete() -> Value {
    finished_status("Complete", 0, "CompletionsReached", "done")
}

fn running() -> Value {
    json!({"startTime": START_TIME, "active": 1, "ready": 0, "terminating": 0})
}

/// Requests a Job, and sets its status to running. Returns its name.
pub(crate) async fn start_job(env: &TestEnv, value: &str) -> String {
    env.request(json!({"foo": value}).to_string()).await;
    let name = format!("simple-job-{value}");
    env.job(&name).await;
    env.set_status(&name, running()).await;
    env.until_last(&name, "MODIFIED").await;
    name
}

pub(crate) async fn until_retired(env: &TestEnv, name: &str) -> Job {
    until(&format!("{name} to be retired"), TIMEOUT, || async {
        let job = env.namespace.jobs.get(name).await.map_err(|error| error.to_string())?;
        let (labels, uid) = (job.labels().clone(), job.uid().unwrap_or_default());
        let record = job.annotations().get(OUTCOME_RECORD).cloned().unwrap_or_default();
        let retired = labels.contains_key(OUTCOME_LABEL) && record.starts_with(&format!("{uid}/"));
        if retired { Ok(job) } else { Err(format!("{labels:?} {record}")) }
    })
    .await
}

/// Another Job passes through all its states: nothing holds it up.
pub(crate) async fn another_job_is_retired(env: &TestEnv, value: &str) {
    let name = start_job(env, value).await;
    env.set_status(&name, complete()).await;
    assert_eq!(env.outcome(&name).await["result"], "Complete");
    until_retired(env, &name).await;
}

pub(crate) async fn assert_ready(dispatcher: &Dispatcher) {
    let (status, body) = dispatcher.get("/readyz?verbose").await.unwrap();
    assert_eq!(status, 200, "{body}");
}

/// Waits until an operation was refused that often.
async fn until_refused(dispatcher: &Dispatcher, operation: &str, times: f64) {
    let series = format!("dispatcher_job_refusals_total{{template=\"simple\",operation=\"{operation}\"}} ");
    until(&format!("{times} refusals of {operation}"), TIMEOUT, || async {
        let (_, text) = dispatcher.get("/metrics").await?;
        let value = text.lines().find_map(|line| line.strip_prefix(&series)?.parse::<f64>().ok());
        if value.is_some_and(|value| value >= times) { Ok(()) } else { Err(format!("{value:?}")) }
    })
    .await;
}

/// Waits for a Kubernetes Event of this reason on a Job.
pub(crate) async fn until_event(env: &TestEnv, name: &str, reason: &str) -> Event {
    let events: Api<Event> = Api::namespaced(env.namespace.client.clone(), &env.namespace.name);
    until(&format!("the Event {reason} of {name}"), TIMEOUT, || async {
        let all = events.list(&ListParams::default()).await.map_err(|error| error.to_string())?.items;
        let is = |event: &&Event| {
            event.involved_object.name.as_deref() == Some(name) && event.reason.as_deref() == Some(reason)
        };
        all.iter().find(is).cloned().ok_or_else(|| format!("{} Events", all.len()))
    })
    .await
}

/// A dispatcher behind a proxy that can refuse its calls.
async fn start_behind_proxy(env: &TestEnv) -> (Dispatcher, ApiProxy, tempfile::TempDir) {
    let (folder, templates) = managed_template();
    let proxy = ApiProxy::start(&env.namespace.dispatcher_kubeconfig).await;
    let kubeconfig = proxy.kubeconfig.display().to_string();
    let dispatcher = env.dispatcher().templates(templates).env("KUBECONFIG", &kubeconfig).start().await;
    (dispatcher, proxy, folder)
}

fn refuse(proxy: &ApiProxy, verb: &str, name: &str) {
    proxy.faults.fail(Calls::of(verb, "jobs").named(name), u32::MAX, Failure::Code(403));
}

#[tokio::test(flavor = "multi_thread")]
async fn job_that_may_not_be_retired_is_reported_and_retired_later() {
    let env = or_skip!(TestEnv::start().await);
    let (dispatcher, proxy, _folder) = start_behind_proxy(&env).await;
    let frozen = start_job(&env, "frozen").await;
    refuse(&proxy, "patch", &frozen);
    env.set_status(&frozen, complete()).await;
    assert_eq!(env.outcome(&frozen).await["result"], "Complete");
    until_refused(&dispatcher, "retire", 2.0).await;
    assert_ready(&dispatcher).await;
    let event = until_event(&env, &frozen, "RetireRefused").await;
    assert_eq!(event.involved_object.uid, env.job(&frozen).await.uid());
    another_job_is_retired(&env, "other").await;
    assert_ready(&dispatcher).await;

    proxy.faults.clear();
    until_retired(&env, &frozen).await;
    let types = env.event_types(&frozen).await;
    assert_eq!(types.last().unwrap(), "OUTCOME", "{types:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn name_of_a_job_that_may_not_be_retired_can_be_used_again() {
    let env = or_skip!(TestEnv::start().await);
    let (dispatcher, proxy, _folder) = start_behind_proxy(&env).await;
    let frozen = start_job(&env, "frozen").await;
    refuse(&proxy, "patch", &frozen);
    env.set_status(&frozen, complete()).await;
    until_refused(&dispatcher, "retire", 4.0).await;
    let first = env.job(&frozen).await.uid().unwrap();
    env.namespace.jobs.delete(&frozen, &DeleteParams::background()).await.unwrap();
    env.request_with_id("again", r#"{"foo":"frozen"}"#).await;
    let added = env.until_last(&frozen, "ADDED").await;
    assert_ne!(added["uid"], first.as_str());
    assert_ready(&dispatcher).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_job_that_may_not_be_deleted_is_reported_and_deleted_later() {
    let env = or_skip!(TestEnv::start().await);
    let (dispatcher, proxy, _folder) = start_behind_proxy(&env).await;
    let protected = start_job(&env, "protected").await;
    let other = start_job(&env, "other").await;
    refuse(&proxy, "delete", &protected);
    let query = |name: &str| json!({"name": name}).to_string();
    let answer = call_service(&env.client, "cancel", &[], &query(&protected)).await;
    assert!(answer.is_err(), "{:?}", answer.ok());
    until_refused(&dispatcher, "delete", 2.0).await;
    assert_ready(&dispatcher).await;
    until_event(&env, &protected, "CancelRefused").await;
    let answer = call_service(&env.client, "cancel", &[], &query(&other)).await.unwrap();
    assert_eq!(answer["result"], "deleted", "{answer}");
    assert_eq!(env.outcome(&other).await["result"], "Cancelled");
    assert_eq!(env.last_event(&protected).await.unwrap()["type"], "MODIFIED");

    proxy.faults.clear();
    assert_eq!(env.outcome(&protected).await["result"], "Cancelled");
}

/// Replaces every label of a Job, as a `kubectl replace` with another manifest does.
async fn replace_labels(env: &TestEnv, name: &str) {
    let mut job = env.job(name).await;
    // Without any label, the API server would set those of the pod template.
    job.metadata.labels = Some([("example.org/own".to_owned(), "x".to_owned())].into());
    job.metadata.managed_fields = None;
    env.namespace.jobs.replace(name, &PostParams::default(), &job).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn job_whose_labels_may_not_be_restored_still_has_an_outcome() {
    let env = or_skip!(TestEnv::start().await);
    let (dispatcher, proxy, _folder) = start_behind_proxy(&env).await;
    let name = start_job(&env, "relabelled").await;
    refuse(&proxy, "patch", &name);
    replace_labels(&env, &name).await;
    until_refused(&dispatcher, "restore", 1.0).await;
    assert_ready(&dispatcher).await;
    env.set_status(&name, complete()).await;
    assert_eq!(env.outcome(&name).await["result"], "Complete");
    another_job_is_retired(&env, "other").await;
    assert_ready(&dispatcher).await;
}

/// Installs a policy that refuses such changes of a Job by the dispatcher.
pub(crate) async fn install_policy(env: &TestEnv, operation: &str, name: &str) {
    let id = format!("{}-{}", env.namespace.name, operation.to_lowercase());
    let user = env.namespace.user_of("dispatcher");
    let rules = json!([{"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": [operation], "resources": ["jobs"]}]);
    let condition = format!("request.userInfo.username == '{user}' && request.name == '{name}'");
    let policy = json!({"metadata": {"name": id}, "spec": {"failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": rules},
        "matchConditions": [{"name": "job", "expression": condition}],
        "validations": [{"expression": "false", "reason": "Forbidden", "message": "exceeded quota: no"}]}});
    let binding =
        json!({"metadata": {"name": id}, "spec": {"policyName": id, "validationActions": ["Deny"]}});
    let client = &env.namespace.client;
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    policies.create(&PostParams::default(), &serde_json::from_value(policy).unwrap()).await.unwrap();
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
    bindings.create(&PostParams::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();
    // The API server enforces a policy some time after it stores it.
    let config = dispatcher_tests::kubernetes::ready::config(&env.namespace.dispatcher_kubeconfig).unwrap();
    let client = kube::Client::try_from(config).unwrap();
    let jobs: Api<Job> = Api::namespaced(client, &env.namespace.name);
    until("the policy to be enforced", TIMEOUT, || async {
        let refused = if operation == "DELETE" {
            jobs.delete(name, &DeleteParams::background().dry_run()).await.err()
        } else {
            let params = PatchParams { dry_run: true, ..PatchParams::default() };
            let patch = Patch::Merge(json!({"metadata": {"annotations": {"example.org/a": "b"}}}));
            jobs.patch(name, &params, &patch).await.err()
        };
        refused.map(drop)
    })
    .await;
}

pub(crate) async fn remove_policy(env: &TestEnv, operation: &str) {
    let id = format!("{}-{}", env.namespace.name, operation.to_lowercase());
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(env.namespace.client.clone());
    bindings.delete(&id, &DeleteParams::default()).await.unwrap();
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(env.namespace.client.clone());
    policies.delete(&id, &DeleteParams::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_that_freezes_and_protects_one_job_does_not_make_the_dispatcher_unready() {
    only_on_kubernetes!("the local cluster has no admission policies");
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let dispatcher = env.dispatcher().templates(templates).start().await;
    let (frozen, protected) = (start_job(&env, "frozen").await, start_job(&env, "protected").await);
    install_policy(&env, "UPDATE", &frozen).await;
    install_policy(&env, "DELETE", &protected).await;
    env.set_status(&frozen, complete()).await;
    assert_eq!(env.outcome(&frozen).await["result"], "Complete");
    let query = json!({"name": protected}).to_string();
    assert!(call_service(&env.client, "cancel", &[], &query).await.is_err());
    until_refused(&dispatcher, "retire", 2.0).await;
    until_refused(&dispatcher, "delete", 2.0).await;
    assert_ready(&dispatcher).await;
    let event = until_event(&env, &frozen, "RetireRefused").await;
    assert!(event.message.unwrap().contains("ValidatingAdmissionPolicy"));
    until_event(&env, &protected, "CancelRefused").await;
    another_job_is_retired(&env, "other").await;
    assert_ready(&dispatcher).await;

    remove_policy(&env, "UPDATE").await;
    remove_policy(&env, "DELETE").await;
    until_retired(&env, &frozen).await;
    assert_eq!(env.outcome(&protected).await["result"], "Cancelled");
}
