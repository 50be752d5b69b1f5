//! Rights, quotas, policies and webhooks that come and go, on a real Kubernetes.

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

/// How many requests are published at once; one in twenty is bad.
const REQUESTS: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn a_right_is_taken_away_and_given_back() {
    only_on_kubernetes!("the local cluster knows no rights");
    repeat("a right on Jobs is taken away for some seconds and given back", async |scenario, random| {
        let verb = random.choice(["create", "get", "patch", "watch", "list"]).unwrap();
        println!("the right to {verb}");
        tokio::join!(scenario.load(0, REQUESTS), async {
            scenario.until_jobs(random.usize(0..80)).await;
            scenario.env.namespace.revoke(verb).await;
            // The fault itself lasts this long.
            sleep(Duration::from_millis(random.u64(1_000..8_000))).await;
            scenario.env.namespace.grant(verb).await;
            let given = Instant::now();
            scenario.until_works("after").await;
            scenario.recovered("a right given back", given);
        });
        scenario.until_ready().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_exceeded_then_raised() {
    only_on_kubernetes!("the local cluster knows no quotas");
    repeat("a quota of Jobs is exceeded, then raised", async |scenario, random| {
        let quotas: Api<ResourceQuota> =
            Api::namespaced(scenario.env.namespace.client.clone(), &scenario.env.namespace.name);
        let quota = |jobs: usize| {
            json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"},
                   "spec": {"hard": {"count/jobs.batch": jobs.to_string()}}})
        };
        let most = random.usize(1..60);
        quotas.create(&PostParams::default(), &serde_json::from_value(quota(most)).unwrap()).await.unwrap();
        until("the quota to count", TIMEOUT, || async { quotas.get("q").await.ok()?.status?.used.map(drop) })
            .await;
        scenario.load(0, REQUESTS).await;
        until("a refusal in the log", TIMEOUT, || async {
            scenario.dispatcher.log().contains("exceeded quota").then_some(())
        })
        .await;
        quotas.patch("q", &PatchParams::default(), &Patch::Merge(quota(1000))).await.unwrap();
        let raised = Instant::now();
        scenario.until_works("after").await;
        scenario.recovered("a quota raised", raised);
    })
    .await;
}

/// Who waits until it is in force: the API server goes by a policy some time after it has stored it.
async fn until_refused(scenario: &Scenario, refused: bool) {
    let template = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "a"}]}});
    let job: Job = serde_json::from_value(json!({"metadata": {"name": "refused-fail"},
        "spec": {"template": template}}))
    .unwrap();
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    until("an admission to be in force, or not", TIMEOUT, || async {
        let answer = scenario.env.namespace.jobs.create(&dry, &job).await;
        if answer.is_err() == refused { Ok(()) } else { Err(format!("{:?}", answer.err())) }
    })
    .await;
}

fn of<K: serde::de::DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).unwrap()
}

/// Of this namespace only: others run beside it.
fn selector(scenario: &Scenario) -> Value {
    json!({"matchLabels": {"kubernetes.io/metadata.name": scenario.env.namespace.name}})
}

fn rules() -> Value {
    json!([{"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"],
            "scope": "Namespaced"}])
}

/// What it refuses is rejected, and stays so; the rest goes on.
async fn policy(fault: &str, reason: &'static str) {
    repeat(fault, async |scenario, random| {
        let (client, name) = (scenario.env.namespace.client.clone(), &scenario.env.namespace.name);
        let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client);
        scenario.load(0, random.usize(1..60)).await;
        let policy = json!({"metadata": {"name": name}, "spec": {
            "matchConstraints": {"resourceRules": rules()}, "failurePolicy": "Fail",
            "validations": [{"expression": "!object.metadata.name.contains('fail')", "reason": reason,
                             "message": "no Job that fails"}]}});
        let binding = json!({"metadata": {"name": name}, "spec": {"policyName": name,
            "validationActions": ["Deny"], "matchResources": {"namespaceSelector": selector(scenario)}}});
        policies.create(&PostParams::default(), &of(policy)).await.unwrap();
        bindings.create(&PostParams::default(), &of(binding)).await.unwrap();
        until_refused(scenario, true).await;
        scenario.load(REQUESTS, random.usize(40..REQUESTS)).await;
        scenario.env.until_queue_is_empty().await;
        let refused = scenario.env.dead_letters().await;
        let refused = refused
            .iter()
            .filter(|letter| dispatcher_tests::test_env::header(letter, "Job-Error") == "Refused");
        assert!(refused.count() > 0, "the policy rejects");
        bindings.delete(name, &DeleteParams::default()).await.unwrap();
        policies.delete(name, &DeleteParams::default()).await.unwrap();
        until_refused(scenario, false).await;
        scenario.load(2 * REQUESTS, 20).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_refuses_as_invalid() {
    only_on_kubernetes!("the local cluster knows no policies");
    policy("an admission policy refuses some Jobs (422), and is removed", "Invalid").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_refuses_as_forbidden() {
    only_on_kubernetes!("the local cluster knows no policies");
    policy("an admission policy refuses some Jobs (403), and is removed", "Forbidden").await;
}

/// Nobody listens where it leads to, and `failurePolicy` is `Fail`: nothing can be created, and nothing is rejected for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_away() {
    only_on_kubernetes!("the local cluster knows no webhooks");
    repeat("an admission webhook cannot be reached, and is removed", async |scenario, random| {
        let name = &scenario.env.namespace.name;
        let webhooks: Api<ValidatingWebhookConfiguration> = Api::all(scenario.env.namespace.client.clone());
        let webhook = json!({"metadata": {"name": name}, "webhooks": [{
            "name": "away.tests.example.org", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "failurePolicy": "Fail", "timeoutSeconds": 2, "rules": rules(), "namespaceSelector": selector(scenario),
            "clientConfig": {"url": "https://127.0.0.1:9/refuse"}}]});
        let before = random.usize(1..60);
        scenario.load(0, before).await;
        webhooks.create(&PostParams::default(), &of(webhook)).await.unwrap();
        until_refused(scenario, true).await;
        tokio::join!(scenario.load(REQUESTS, REQUESTS), async {
            // The fault itself lasts this long.
            sleep(Duration::from_millis(random.u64(1_000..5_000))).await;
            webhooks.delete(name, &DeleteParams::default()).await.unwrap();
            let removed = Instant::now();
            scenario.until_works("after").await;
            scenario.recovered("a webhook removed that was away", removed);
        });
        let letters = scenario.env.dead_letters().await;
        assert!(
            letters.iter().all(|letter| dispatcher_tests::test_env::header(letter, "Job-Error") != "Refused"),
            "nothing is rejected for it"
        );
    })
    .await;
}
