//! A NATS of a given version, a namespace, two replicas in pods, and a controller that ends Jobs.

use std::collections::BTreeMap;

use dispatcher_tests::attacks::{HOSTILE, WAITING};
use dispatcher_tests::job_controller::JobController;
use dispatcher_tests::test_env::TestEnv;
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{Kubernetes, Nats, until};
use k8s_openapi::api::batch::v1::Job;
use kube::api::ListParams;
use serde_json::json;

use crate::dispatchers::Dispatchers;

/// The template of the innocent tenant.
pub(crate) const INNOCENT: &str = "innocent";
/// The shipped concurrency limit of a template.
const MAX_ACTIVE: u32 = 200;

/// Where one test runs.
pub(crate) struct Environment {
    pub(crate) env: TestEnv,
    pub(crate) dispatchers: Dispatchers,
    _controller: JobController,
}

impl Environment {
    /// Starts everything and waits until both replicas are ready.
    ///
    /// # Errors
    /// If this machine cannot run Kubernetes.
    pub(crate) async fn start(nats_version: &'static str) -> Result<Self, String> {
        let kubernetes = Kubernetes::shared().await?;
        kubernetes.folder().ok_or("images can be imported only into the cluster of the testbed")?;
        let nats = Nats::process_of_version(nats_version).await;
        let env = TestEnv::new(nats, kubernetes.namespace().await).await;
        refuse_by_policy(kubernetes, &env.namespace.name).await;
        let templates = [INNOCENT, HOSTILE, WAITING].map(|name| (format!("{name}.yaml"), template(name)));
        let dispatchers = Dispatchers::start(kubernetes, &env, BTreeMap::from(templates)).await;
        let controller = JobController::start(env.namespace.jobs.clone());
        Ok(Self { env, dispatchers, _controller: controller })
    }

    /// Waits until the last flood is handled, so that a quiet phase is quiet.
    pub(crate) async fn until_quiet(&self) {
        self.env.until_queue_is_empty().await;
    }

    /// Every hostile request that has a Job has just one, and the queue becomes empty: a request
    /// ends as a Job or as a dead letter.
    pub(crate) async fn assert_hostile_requests_ended_at_most_once(&self) {
        self.env.until_queue_is_empty().await;
        let params = ListParams::default().labels(&format!("natsjobs.dev/template={HOSTILE}"));
        let jobs = self.env.namespace.jobs.list(&params).await.unwrap();
        let mut ids: Vec<String> = jobs.items.iter().map(request_id).collect();
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all, "two Jobs have the same request id");
    }
}

fn request_id(job: &Job) -> String {
    let annotations = job.metadata.annotations.iter().flatten();
    let mut ids = annotations.filter(|(name, _)| *name == "natsjobs.dev/request-id");
    ids.next().map(|(_, id)| id.clone()).unwrap_or_default()
}

/// A template whose Jobs the test ends: Kubernetes' own controller ignores them.
fn template(name: &str) -> String {
    let mut template = json!({
        "apiVersion": "natsjobs.dev/v1alpha1", "kind": "JobTemplate", "metadata": {"name": name},
        "spec": {
            "jobName": format!("{name}-${{id}}"),
            "parameters": {
                "type": "object", "required": ["id"],
                "properties": {"id": {"type": "string", "maxLength": 40}, "tier": {"type": "string", "maxLength": 200, "default": "plain"}},
            },
            "job": {"apiVersion": "batch/v1", "kind": "Job", "spec": {
                "managedBy": "tests.example.org/controller", "backoffLimit": 0, "ttlSecondsAfterFinished": 600,
                "template": {
                    "metadata": {"annotations": {"tier": "${tier}"}},
                    "spec": {
                        "restartPolicy": "Never", "serviceAccountName": "job", "automountServiceAccountToken": false,
                        "securityContext": {
                            "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}
                        },
                        "containers": [{
                            "name": "work", "image": "simple-job:0.1.0", "imagePullPolicy": "Never",
                            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                        }],
                    },
                },
            }},
        },
    });
    if name != WAITING {
        template["spec"]["limits"] = json!({"maxActive": MAX_ACTIVE});
    }
    template.to_string()
}

/// A policy that refuses each Job whose tier is not `plain`, and quotes the tier in its message.
async fn refuse_by_policy(kubernetes: &Kubernetes, namespace: &str) {
    let name = format!("{namespace}.tests.example.org");
    let tier = "object.spec.template.metadata.?annotations['tier'].orValue('plain')";
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {"resourceRules": [{
                    "apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"],
                }]},
                "validations": [{
                    "expression": format!("{tier} == 'plain'"),
                    "messageExpression": format!("'tier ' + {tier} + ' is not allowed'"),
                    "reason": "Forbidden",
                }],
            },
        },
        {
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {
                "policyName": name, "validationActions": ["Deny"],
                "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}},
            },
        },
    ]});
    let folder = dispatcher_tests::paths::temp_dir("policy").unwrap();
    let file = folder.path().join("policy.json");
    std::fs::write(&file, objects.to_string()).unwrap();
    kubernetes.kubectl(&["apply", "-f", &file.display().to_string()]).await.unwrap();
    until_enforced(kubernetes, namespace).await;
}

/// The API server enforces a new policy after some seconds.
async fn until_enforced(kubernetes: &Kubernetes, namespace: &str) {
    let folder = dispatcher_tests::paths::temp_dir("job").unwrap();
    let file = folder.path().join("job.json");
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "refused"}, "spec": {"template": {
        "metadata": {"annotations": {"tier": "x"}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "work", "image": "simple-job:0.1.0"}]},
    }}});
    std::fs::write(&file, job.to_string()).unwrap();
    let file = file.display().to_string();
    until("the policy to be enforced", TIMEOUT, || async {
        let args = ["--namespace", namespace, "create", "--dry-run=server", "-f", &file];
        match kubernetes.kubectl(&args).await {
            Err(error) if error.contains("is not allowed") => Ok(()),
            other => Err(other),
        }
    })
    .await;
}
