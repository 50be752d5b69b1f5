//! Changes of permissions, quotas, admission policies and webhooks, on a real Kubernetes.

use std::time::{Duration, Instant};

use dispatcher_tests::{only_on_kubernetes, until};
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::scenario::{Scenario, repeat};
use dispatcher_tests::wait::TIMEOUT;

/// The number of concurrent requests; one in twenty is invalid.
const REQUESTS: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn permission_revoked() {
    only_on_kubernetes!("the local cluster has no RBAC");
    repeat("a permission on Jobs is revoked for some seconds", async |scenario, random| {
        let verb = random.choice(["create", "get", "patch", "watch", "list"]).unwrap();
        println!("revoked verb: {verb}");
        tokio::join!(scenario.load(0, REQUESTS), async {
            scenario.until_jobs(random.usize(0..80)).await;
            scenario.env.namespace.revoke(verb).await;
            // The duration of the fault.
            sleep(Duration::from_millis(random.u64(1_000..8_000))).await;
            scenario.env.namespace.grant(verb).await;
            let given = Instant::now();
            scenario.until_works("after").await;
            scenario.recovered("permission granted again", given);
        });
        scenario.until_ready().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quota_exceeded() {
    only_on_kubernetes!("the local cluster has no quotas");
    repeat("a quota of Jobs is exceeded, then raised", async |scenario, random| {
        let quotas: Api<ResourceQuota> =
            Api::namespaced(scenario.env.namespace.client.clone(), &scenario.env.namespace.name);
        let quota = |jobs: usize| {
            json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"},
                   "spec": {"hard": {"count/jobs.batch": jobs.to_string()}}})
        };
        let most = random.usize(1..60);
        quotas.create(&PostParams::default(), &serde_json::from_value(quota(most)).unwrap()).await.unwrap();
        until("the quota to be counted", TIMEOUT, || async {
            quotas.get("q").await.ok()?.status?.used.map(drop)
        })
        .await;
        scenario.load(0, REQUESTS).await;
        until("a failed create in the log", TIMEOUT, || async {
            scenario.dispatcher.log().contains("exceeded quota").then_some(())
        })
        .await;
        quotas.patch("q", &PatchParams::default(), &Patch::Merge(quota(1000))).await.unwrap();
        let raised = Instant::now();
        scenario.until_works("after").await;
        scenario.recovered("quota raised", raised);
    })
    .await;
}

/// Waits until a policy is enforced or not: the API server enforces it some time after storing it.
async fn until_denied(scenario: &Scenario, denied: bool) {
    let template = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "a"}]}});
    let job: Job = serde_json::from_value(json!({"metadata": {"name": "refused-fail"},
        "spec": {"template": template}}))
    .unwrap();
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    until("the admission control to change", TIMEOUT, || async {
        let answer = scenario.env.namespace.jobs.create(&dry, &job).await;
        if answer.is_err() == denied { Ok(()) } else { Err(format!("{:?}", answer.err())) }
    })
    .await;
}

fn of<K: serde::de::DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).unwrap()
}

/// Selects this namespace only, since other tests run concurrently.
fn selector(scenario: &Scenario) -> Value {
    json!({"matchLabels": {"kubernetes.io/metadata.name": scenario.env.namespace.name}})
}

fn rules() -> Value {
    json!([{"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"],
            "scope": "Namespaced"}])
}

/// Denied requests stay rejected; all other requests succeed.
async fn policy(fault: &str, reason: &'static str) {
    repeat(fault, async |scenario, random| {
        let (client, name) = (scenario.env.namespace.client.clone(), &scenario.env.namespace.name);
        let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client);
        scenario.load(0, random.usize(1..60)).await;
        let policy = json!({"metadata": {"name": name}, "spec": {
            "matchConstraints": {"resourceRules": rules()}, "failurePolicy": "Fail",
            "validations": [{"expression": "!object.metadata.name.contains('fail')", "reason": reason,
                             "message": "no Job may fail"}]}});
        let binding = json!({"metadata": {"name": name}, "spec": {"policyName": name,
            "validationActions": ["Deny"], "matchResources": {"namespaceSelector": selector(scenario)}}});
        policies.create(&PostParams::default(), &of(policy)).await.unwrap();
        bindings.create(&PostParams::default(), &of(binding)).await.unwrap();
        until_denied(scenario, true).await;
        scenario.load(REQUESTS, random.usize(40..REQUESTS)).await;
        scenario.env.until_queue_is_empty().await;
        let refused = scenario.env.dead_letters().await;
        let refused = refused
            .iter()
            .filter(|letter| dispatcher_tests::test_env::header(letter, "Job-Error") == "Refused");
        assert!(refused.count() > 0, "the policy rejects requests");
        bindings.delete(name, &DeleteParams::default()).await.unwrap();
        policies.delete(name, &DeleteParams::default()).await.unwrap();
        until_denied(scenario, false).await;
        scenario.load(2 * REQUESTS, 20).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_denies_with_422() {
    only_on_kubernetes!("the local cluster has no admission policies");
    policy("an admission policy denies some Jobs (422), then is removed", "Invalid").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_denies_with_403() {
    only_on_kubernetes!("the local cluster has no admission policies");
    policy("an admission policy denies some Jobs (403), then is removed", "Forbidden").await;
}

/// No server listens at the webhook's address, and its `failurePolicy` is `Fail`: every create
/// fails, but no request is rejected.
#[tokio::test(flavor = "multi_thread")]
async fn webhook_unreachable() {
    only_on_kubernetes!("the local cluster has no webhooks");
    repeat("an admission webhook is unreachable, then removed", async |scenario, random| {
        let name = &scenario.env.namespace.name;
        let webhooks: Api<ValidatingWebhookConfiguration> = Api::all(scenario.env.namespace.client.clone());
        let webhook = json!({"metadata": {"name": name}, "webhooks": [{
            "name": "away.tests.example.org", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "failurePolicy": "Fail", "timeoutSeconds": 2, "rules": rules(), "namespaceSelector": selector(scenario),
            "clientConfig": {"url": "https://127.0.0.1:9/refuse"}}]});
        let before = random.usize(1..60);
        scenario.load(0, before).await;
        webhooks.create(&PostParams::default(), &of(webhook)).await.unwrap();
        until_denied(scenario, true).await;
        tokio::join!(scenario.load(REQUESTS, REQUESTS), async {
            // The duration of the fault.
            sleep(Duration::from_millis(random.u64(1_000..5_000))).await;
            webhooks.delete(name, &DeleteParams::default()).await.unwrap();
            let removed = Instant::now();
            scenario.until_works("after").await;
            scenario.recovered("unreachable webhook removed", removed);
        });
        let letters = scenario.env.dead_letters().await;
        assert!(
            letters.iter().all(|letter| dispatcher_tests::test_env::header(letter, "Job-Error") != "Refused"),
            "no request is rejected"
        );
    })
    .await;
}
