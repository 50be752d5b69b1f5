//! Kubernetes permissions: by the API server's audit log, the dispatcher's Role grants each
//! permission that is used and no other. The `ServiceAccount` of the Jobs has no permissions.

use std::collections::BTreeSet;

use dispatcher_tests::kubernetes::ready;
use dispatcher_tests::rbac;
use dispatcher_tests::test_env::{TestEnv, header};
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{Dispatcher, Kubernetes, Nats, Options, only_on_kubernetes, or_skip, paths, until};
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::authorization::v1::{SelfSubjectRulesReview, SelfSubjectRulesReviewSpec};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::attempts::{modified_template, terminate_pod};
use crate::job_templates::{JobTemplates, install, template};
use crate::service_client::call_service;
use crate::single_jobs::{install_policy, remove_policy, until_event};

/// The audit log of an API server.
struct Audit {
    folder: tempfile::TempDir,
}

impl Audit {
    fn new() -> Self {
        let folder = paths::temp_dir("audit").unwrap();
        let policy = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
                            "rules": [{"level": "Metadata"}]});
        std::fs::write(folder.path().join("policy.yaml"), policy.to_string()).unwrap();
        Self { folder }
    }

    /// In `blocking` mode the API server writes an event before it answers the request.
    fn options(&self) -> Options {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let apiserver_args = vec![
            format!("--audit-policy-file={}", path("policy.yaml")),
            format!("--audit-log-path={}", path("audit.log")),
            "--audit-log-mode=blocking".to_owned(),
        ];
        Options { apiserver_args, ..Options::default() }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("audit.log")).unwrap()
    }
}

fn parse<K: DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn role_grants_each_used_permission_and_no_other() {
    only_on_kubernetes!("the local cluster does not enforce permissions");
    let audit = Audit::new();
    let kubernetes = or_skip!(Kubernetes::control_plane(audit.options()).await);
    let env = TestEnv::new(Nats::start().await, kubernetes.namespace().await).await;
    let (_folder, templates) = modified_template(|_| {});
    // The testbed itself has made calls as the dispatcher, to verify its permissions.
    let before = audit.log().len();

    install(&kubernetes).await;
    let dispatcher =
        env.dispatcher().env("DISPATCHER_JOB_TEMPLATES", "true").templates(templates).start().await;
    serve_a_job_template(&env).await;
    fail_a_job(&env).await;
    request_a_taken_name(&env).await;
    refuse_a_job_by_policy(&env).await;
    freeze_a_finished_job(&env).await;
    cancel_a_running_job(&env).await;
    delete_a_job_during_downtime(&env, &dispatcher).await;
    wait_for_lease_renewal(&env).await;
    assert_eq!(dispatcher.terminate().await, Some(0), "{}", dispatcher.log());

    let granted = rbac::granted(env.namespace.objects()).unwrap();
    let calls = rbac::calls(&audit.log()[before..], &env.namespace.user_of("dispatcher")).unwrap();
    let difference = rbac::compare(&granted, &calls);
    assert_eq!(difference.refused, [].into(), "denied to the dispatcher");
    assert_eq!(difference.unused, [].into(), "granted in deploy/base and unused");
    assert_eq!(difference.not_granted, [].into(), "used and not granted in deploy/base");
}

/// Reports the status of a template, and holds it until it is deleted.
async fn serve_a_job_template(env: &TestEnv) {
    let objects = JobTemplates::of(env);
    objects.apply("greet", &template("greet", "")).await;
    objects.until_ready("greet", "InUse").await;
    objects.delete("greet").await;
    objects.until_gone("greet").await;
}

/// Creates a Job, watches it and its pods, reads the pod's log (there is none here) and retires the
/// Job.
async fn fail_a_job(env: &TestEnv) {
    env.request_with_id("fails", r#"{"foo":"fails"}"#).await;
    let pod = until("the Job's pod", TIMEOUT, || async {
        env.namespace.pods.list(&ListParams::default()).await.ok()?.items.pop()?.metadata.name
    })
    .await;
    terminate_pod(&env.namespace.pods, &pod, 1, "").await;
    assert_eq!(env.outcome("simple-job-fails").await["result"], "Failed");
    until("the Job to be retired", TIMEOUT, || async {
        let spec = env.namespace.jobs.get("simple-job-fails").await.ok()?.spec?;
        spec.ttl_seconds_after_finished
    })
    .await;
}

/// Reads the existing Job.
async fn request_a_taken_name(env: &TestEnv) {
    let sequence = env.request_with_id("another", r#"{"foo":"fails"}"#).await;
    assert_eq!(header(&env.dead_letter(sequence).await, "Job-Error"), "NameTaken");
}

/// The form of the answer names the policy, so no access review is necessary.
async fn refuse_a_job_by_policy(env: &TestEnv) {
    let client = &env.namespace.client;
    let rules = json!([{"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}]);
    let policy = json!({"metadata": {"name": "no-refused"}, "spec": {"matchConstraints": {"resourceRules": rules},
        "validations": [{"expression": "!object.metadata.name.contains('refused')", "reason": "Forbidden"}]}});
    let binding = json!({"metadata": {"name": "no-refused"},
        "spec": {"policyName": "no-refused", "validationActions": ["Deny"]}});
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    policies.create(&PostParams::default(), &parse(policy)).await.unwrap();
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
    bindings.create(&PostParams::default(), &parse(binding)).await.unwrap();
    let pod = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "a"}]}});
    let job = parse(json!({"metadata": {"name": "refused"}, "spec": {"template": pod}}));
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    until("the admission policy to be in force", TIMEOUT, || async {
        env.namespace.jobs.create(&dry, &job).await.err()
    })
    .await;
    let sequence = env.request(r#"{"foo":"refused"}"#).await;
    assert_eq!(header(&env.dead_letter(sequence).await, "Job-Error"), "Refused");
}

/// Creates a Kubernetes Event on a Job: a policy refuses to retire it.
async fn freeze_a_finished_job(env: &TestEnv) {
    env.request(r#"{"foo":"frozen"}"#).await;
    env.job("simple-job-frozen").await;
    install_policy(env, "UPDATE", "simple-job-frozen").await;
    let pod = until("the Job's pod", TIMEOUT, || async {
        let pods = env.namespace.pods.list(&ListParams::default()).await.ok()?.items;
        pods.into_iter()
            .filter_map(|pod| pod.metadata.name)
            .find(|name| name.starts_with("simple-job-frozen"))
    })
    .await;
    terminate_pod(&env.namespace.pods, &pod, 1, "").await;
    env.outcome("simple-job-frozen").await;
    until_event(env, "simple-job-frozen", "RetireRefused").await;
    remove_policy(env, "UPDATE").await;
}

/// Deletes a Job.
async fn cancel_a_running_job(env: &TestEnv) {
    env.request(r#"{"foo":"cancelled"}"#).await;
    env.until_last("simple-job-cancelled", "MODIFIED").await;
    let answer =
        call_service(&env.client, "cancel", &[], r#"{"name":"simple-job-cancelled"}"#).await.unwrap();
    assert_eq!(answer["result"], "deleted", "{answer}");
    assert_eq!(env.outcome("simple-job-cancelled").await["result"], "Cancelled");
}

/// Releases and reacquires the Lease, resyncs, and verifies that the Job is missing.
async fn delete_a_job_during_downtime(env: &TestEnv, dispatcher: &Dispatcher) {
    env.request(r#"{"foo":"lost"}"#).await;
    env.until_last("simple-job-lost", "MODIFIED").await;
    dispatcher.terminate().await;
    env.namespace.jobs.delete("simple-job-lost", &DeleteParams::background()).await.unwrap();
    dispatcher.restart().await;
    assert_eq!(env.outcome("simple-job-lost").await["result"], "Deleted");
}

async fn wait_for_lease_renewal(env: &TestEnv) {
    let leases: Api<Lease> = Api::namespaced(env.namespace.client.clone(), &env.namespace.name);
    let renewed = async || leases.get("dispatcher").await.ok()?.spec?.renew_time;
    let first = until("the Lease", TIMEOUT, &renewed).await;
    until("the Lease to be renewed", TIMEOUT, || async { renewed().await.filter(|time| *time > first) })
        .await;
}

/// The rules of a user in a namespace, including cluster-wide ones.
async fn rules(kubernetes: &Kubernetes, user: &str, namespace: &str) -> BTreeSet<String> {
    let mut config = ready::config(kubernetes.kubeconfig_path()).unwrap();
    config.auth_info.impersonate = Some(user.to_owned());
    let reviews: Api<SelfSubjectRulesReview> = Api::all(Client::try_from(config).unwrap());
    let spec = SelfSubjectRulesReviewSpec { namespace: Some(namespace.to_owned()) };
    let review = SelfSubjectRulesReview { spec, ..SelfSubjectRulesReview::default() };
    let status = reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap();
    assert!(!status.incomplete, "{status:?}");
    let resource_rules = status.resource_rules.iter().map(|rule| json!(rule).to_string());
    resource_rules.chain(status.non_resource_rules.iter().map(|rule| json!(rule).to_string())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn service_account_of_the_jobs_has_only_the_default_permissions() {
    only_on_kubernetes!("the local cluster does not enforce permissions");
    let kubernetes = or_skip!(Kubernetes::shared().await);
    let namespace = kubernetes.namespace().await;
    let (jobs, dispatchers) = (&namespace.name, namespace.name.replace("jobs", "dispatcher"));
    let nonexistent = namespace.user_of("job") + "-nonexistent";
    for of_namespace in [jobs, &dispatchers, "default", "kube-system"] {
        let any = rules(kubernetes, &nonexistent, of_namespace).await;
        let found = rules(kubernetes, &namespace.user_of("job"), of_namespace).await;
        assert_eq!(found, any, "in {of_namespace}");
    }
    // Proves that the review reports granted permissions.
    let any = rules(kubernetes, &nonexistent, jobs).await;
    let dispatcher = rules(kubernetes, &namespace.user_of("dispatcher"), jobs).await;
    assert!(dispatcher.is_superset(&any) && dispatcher.len() > any.len(), "{dispatcher:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_of_a_job_gets_no_service_account_token() {
    only_on_kubernetes!("the local cluster issues no tokens");
    let env = or_skip!(TestEnv::start().await);
    let _dispatcher = env.dispatcher().sleep_seconds("0.1").start().await;
    env.request(r#"{"foo":"x"}"#).await;
    let pod = until("the Job's pod", TIMEOUT, || async {
        env.namespace.pods.list(&ListParams::default()).await.ok()?.items.pop()
    })
    .await;
    assert_eq!(pod.spec.as_ref().unwrap().service_account_name.as_deref(), Some("job"));
    assert!(!has_token(&pod), "{pod:?}");

    // The account `job` disables tokens even for pods that do not. Other accounts mount one.
    let mounts_token = async |account: &str| {
        let restricted = json!({"allowPrivilegeEscalation": false, "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]},
                                "seccompProfile": {"type": "RuntimeDefault"}});
        let pod = json!({"metadata": {"name": "default-mount"}, "spec": {"serviceAccountName": account,
            "containers": [{"name": "a", "image": "a", "securityContext": restricted}]}});
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        has_token(&env.namespace.pods.create(&dry, &parse(pod)).await.unwrap())
    };
    assert!(!mounts_token("job").await);
    assert!(mounts_token("default").await);
}

/// Whether the pod mounts a `ServiceAccount` token.
fn has_token(pod: &Pod) -> bool {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let mut sources =
        volumes.flat_map(|volume| volume.projected.iter().flat_map(|p| p.sources.iter().flatten()));
    sources.any(|source| source.service_account_token.is_some())
}
