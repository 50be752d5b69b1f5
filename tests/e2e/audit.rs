//! The rights in Kubernetes: the Role gives what is used and nothing else, as the API server's audit log tells; the account of the
//! Jobs may do nothing.

use std::collections::BTreeSet;

use dispatcher_tests::kubernetes::ready;
use dispatcher_tests::rbac::{self, Permission};
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

use crate::asking::ask;
use crate::explanations::{end, template};
use dispatcher_tests::test_env::{TestEnv as World, header};
use dispatcher_tests::wait::TIMEOUT as PATIENCE;

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

    /// Each event is written before its request is answered (`blocking`, the default).
    fn options(&self) -> Options {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let apiserver_args = vec![
            format!("--audit-policy-file={}", path("policy.yaml")),
            format!("--audit-log-path={}", path("audit.log")),
            "--audit-log-mode=blocking".to_owned(),
        ];
        Options { apiserver_args, ..Options::default() }
    }

    fn read(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("audit.log")).unwrap()
    }
}

fn of<K: DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_gives_each_right_that_is_used_and_no_other() {
    only_on_kubernetes!("the local cluster knows no rights");
    let audit = Audit::new();
    let kubernetes = or_skip!(Kubernetes::control_plane(audit.options()).await);
    let world = World::new(Nats::start().await, kubernetes.namespace().await).await;
    let (_folder, templates) = template(|_| {});
    // The rig itself has asked in the dispatcher's name whether its rights are in force.
    let before = audit.read().len();

    let dispatcher = world.dispatcher().templates(templates).start().await;
    a_job_fails(&world).await;
    a_name_is_taken_twice(&world).await;
    a_policy_refuses(&world).await;
    a_running_job_is_cancelled(&world).await;
    a_job_is_lost_while_nobody_watches(&world, &dispatcher).await;
    the_lease_is_renewed(&world).await;
    assert_eq!(dispatcher.terminate().await, Some(0), "{}", dispatcher.log());

    let given = rbac::granted(world.namespace.objects()).unwrap();
    let calls = rbac::calls(&audit.read()[before..], &world.namespace.user_of("dispatcher")).unwrap();
    let difference = rbac::compare(&given, &calls);
    assert_eq!(difference.refused, [].into(), "refused to the dispatcher");
    assert_eq!(difference.unused, [].into(), "given in deploy/base/rbac.yaml and used by nothing");
    // Every account has it, by the ClusterRole system:basic-user: may I?
    let may_i = Permission {
        group: "authorization.k8s.io".to_owned(),
        resource: "selfsubjectaccessreviews".to_owned(),
        verb: "create".to_owned(),
        name: None,
    };
    assert_eq!(difference.not_granted, [may_i].into(), "used and not given in deploy/base/rbac.yaml");
}

/// Creates a Job, watches it and its pods, reads the pod's log (nobody has one here), settles it.
async fn a_job_fails(world: &World) {
    world.request_with_id("fails", r#"{"foo":"fails"}"#).await;
    let pod = until("the Job's pod", PATIENCE, || async {
        world.namespace.pods.list(&ListParams::default()).await.ok()?.items.pop()?.metadata.name
    })
    .await;
    end(&world.namespace.pods, &pod, 1, "").await;
    assert_eq!(world.outcome("simple-job-fails").await["result"], "Failed");
    until("the Job to be settled", PATIENCE, || async {
        let spec = world.namespace.jobs.get("simple-job-fails").await.ok()?.spec?;
        spec.ttl_seconds_after_finished
    })
    .await;
}

/// Looks at the Job that is there.
async fn a_name_is_taken_twice(world: &World) {
    let sequence = world.request_with_id("another", r#"{"foo":"fails"}"#).await;
    assert_eq!(header(&world.dead_letter(sequence).await, "Job-Error"), "NameTaken");
}

/// Asks whether the right to create is there: it is, so that the refusal is another's.
async fn a_policy_refuses(world: &World) {
    let client = &world.namespace.client;
    let rules = json!([{"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}]);
    let policy = json!({"metadata": {"name": "no-refused"}, "spec": {"matchConstraints": {"resourceRules": rules},
        "validations": [{"expression": "!object.metadata.name.contains('refused')", "reason": "Forbidden"}]}});
    let binding = json!({"metadata": {"name": "no-refused"},
        "spec": {"policyName": "no-refused", "validationActions": ["Deny"]}});
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    policies.create(&PostParams::default(), &of(policy)).await.unwrap();
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
    bindings.create(&PostParams::default(), &of(binding)).await.unwrap();
    let pod = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "a"}]}});
    let job = of(json!({"metadata": {"name": "refused"}, "spec": {"template": pod}}));
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    until("the policy to be in force", PATIENCE, || async {
        world.namespace.jobs.create(&dry, &job).await.err()
    })
    .await;
    let sequence = world.request(r#"{"foo":"refused"}"#).await;
    assert_eq!(header(&world.dead_letter(sequence).await, "Job-Error"), "Refused");
}

/// Deletes a Job.
async fn a_running_job_is_cancelled(world: &World) {
    world.request(r#"{"foo":"cancelled"}"#).await;
    world.until_last("simple-job-cancelled", "MODIFIED").await;
    let answer = ask(&world.client, "cancel", &[], r#"{"name":"simple-job-cancelled"}"#).await.unwrap();
    assert_eq!(answer["result"], "deleted", "{answer}");
    assert_eq!(world.outcome("simple-job-cancelled").await["result"], "Cancelled");
}

/// Releases the Lease and takes it again, compares what was said with the Jobs, and asks for the one that is not there.
async fn a_job_is_lost_while_nobody_watches(world: &World, dispatcher: &Dispatcher) {
    world.request(r#"{"foo":"lost"}"#).await;
    world.until_last("simple-job-lost", "MODIFIED").await;
    dispatcher.terminate().await;
    world.namespace.jobs.delete("simple-job-lost", &DeleteParams::background()).await.unwrap();
    dispatcher.restart().await;
    assert_eq!(world.outcome("simple-job-lost").await["result"], "Deleted");
}

async fn the_lease_is_renewed(world: &World) {
    let leases: Api<Lease> = Api::namespaced(world.namespace.client.clone(), &world.namespace.name);
    let renewed = async || leases.get("dispatcher").await.ok()?.spec?.renew_time;
    let first = until("the Lease", PATIENCE, &renewed).await;
    until("its renewal", PATIENCE, || async { renewed().await.filter(|time| *time > first) }).await;
}

/// The rules that hold for a user in a namespace, those of the whole cluster among them.
async fn rules(kubernetes: &Kubernetes, user: &str, namespace: &str) -> BTreeSet<String> {
    let mut config = ready::config(kubernetes.kubeconfig_path()).unwrap();
    config.auth_info.impersonate = Some(user.to_owned());
    let reviews: Api<SelfSubjectRulesReview> = Api::all(Client::try_from(config).unwrap());
    let spec = SelfSubjectRulesReviewSpec { namespace: Some(namespace.to_owned()) };
    let review = SelfSubjectRulesReview { spec, ..SelfSubjectRulesReview::default() };
    let status = reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap();
    assert!(!status.incomplete, "{status:?}");
    let of_resources = status.resource_rules.iter().map(|rule| json!(rule).to_string());
    of_resources.chain(status.non_resource_rules.iter().map(|rule| json!(rule).to_string())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_account_of_the_jobs_may_do_what_any_account_may_and_nothing_else() {
    only_on_kubernetes!("the local cluster knows no rights");
    let kubernetes = or_skip!(Kubernetes::shared().await);
    let namespace = kubernetes.namespace().await;
    let (jobs, dispatchers) = (&namespace.name, namespace.name.replace("jobs", "dispatcher"));
    let nobody = namespace.user_of("job") + "-that-nobody-has-made";
    for of_namespace in [jobs, &dispatchers, "default", "kube-system"] {
        let any = rules(kubernetes, &nobody, of_namespace).await;
        let found = rules(kubernetes, &namespace.user_of("job"), of_namespace).await;
        assert_eq!(found, any, "in {of_namespace}");
    }
    // Else the question would tell nothing.
    let any = rules(kubernetes, &nobody, jobs).await;
    let dispatcher = rules(kubernetes, &namespace.user_of("dispatcher"), jobs).await;
    assert!(dispatcher.is_superset(&any) && dispatcher.len() > any.len(), "{dispatcher:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_pod_of_a_job_gets_a_token() {
    only_on_kubernetes!("the local cluster gives no tokens");
    let world = or_skip!(World::start().await);
    let _dispatcher = world.dispatcher().sleep_seconds("0.1").start().await;
    world.request(r#"{"foo":"x"}"#).await;
    let pod = until("the Job's pod", PATIENCE, || async {
        world.namespace.pods.list(&ListParams::default()).await.ok()?.items.pop()
    })
    .await;
    assert_eq!(pod.spec.as_ref().unwrap().service_account_name.as_deref(), Some("job"));
    assert!(!has_token(&pod), "{pod:?}");

    // Nor does one whose template does not speak of it, under that account; under another it would.
    let with = async |account: &str| {
        let restricted = json!({"allowPrivilegeEscalation": false, "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]},
                                "seccompProfile": {"type": "RuntimeDefault"}});
        let pod = json!({"metadata": {"name": "silent"}, "spec": {"serviceAccountName": account,
            "containers": [{"name": "a", "image": "a", "securityContext": restricted}]}});
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        has_token(&world.namespace.pods.create(&dry, &of(pod)).await.unwrap())
    };
    assert!(!with("job").await);
    assert!(with("default").await);
}

/// Whether the API server has put a token of the pod's account into it, or anyone else has.
fn has_token(pod: &Pod) -> bool {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let mut sources =
        volumes.flat_map(|volume| volume.projected.iter().flat_map(|p| p.sources.iter().flatten()));
    sources.any(|source| source.service_account_token.is_some())
}
