//! The `ValidatingAdmissionPolicy` in `deploy/base`: it refuses what the rules of templates refuse, if
//! the dispatcher's `ServiceAccount` creates it.

use std::path::Path;

use dispatcher_core::template::Template;
use dispatcher_core::testing::{changed, job_of, shipped_limits, violations};
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{Kubernetes, only_on_kubernetes, or_skip, paths, until};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::in_cluster::SHIPPED_NAMESPACES;

const DISPATCHER: &str = "--as=system:serviceaccount:dispatcher:dispatcher";
const ADMINISTRATOR: &str = "--request-timeout=30s";
const REFUSED: &str =
    "ValidatingAdmissionPolicy 'dispatcher-jobs' with binding 'dispatcher-jobs' denied request: ";

/// Creates a Job in the namespace of `deploy/`, without storing it.
async fn create(kubernetes: &Kubernetes, folder: &Path, user: &str, job: &Value) -> Result<String, String> {
    create_in(kubernetes, folder, user, job, "--namespace=jobs").await
}

async fn create_in(
    kubernetes: &Kubernetes,
    folder: &Path,
    user: &str,
    job: &Value,
    namespace: &str,
) -> Result<String, String> {
    let path = folder.join("job.json");
    std::fs::write(&path, job.to_string()).unwrap();
    let path = path.display().to_string();
    kubernetes.kubectl(&[user, namespace, "create", "--dry-run=server", "-f", &path]).await
}

/// The Job of a shipped template, under the shipped limits.
async fn rendered(template: &str, request: &Value) -> Value {
    let template = paths::workspace().join("deploy/templates").join(template);
    let mut command = Command::new(paths::built("dispatcher").unwrap());
    command.arg("check").arg(template).args(["--render", &request.to_string()]);
    command.args(["--default-active-deadline-seconds", "86400", "--allowed-images", "simple-job:*"]);
    let output = command.args(["--allowed-service-accounts", "job"]).output().await.unwrap();
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_in_the_cluster_refuses_what_the_dispatcher_refuses() {
    only_on_kubernetes!("the local cluster has no admission policies");
    or_skip!(paths::needs_a_newer_kubernetes("drops some of these fields instead of refusing them"));
    let kubernetes = or_skip!(Kubernetes::shared().await);
    let _exclusive = SHIPPED_NAMESPACES.lock().await;
    let folder = paths::temp_dir("admission").unwrap();
    let base = paths::workspace().join("deploy/base");
    kubernetes.kubectl(&["apply", "-k", &base.display().to_string()]).await.unwrap();
    let privileged = json!([{"name": "x", "image": "simple-job:1", "securityContext": {"privileged": true}}]);
    let privileged = job_of(&changed("/spec/template/spec/containers", &privileged), "active");
    until("the policy to take effect", TIMEOUT, || async {
        match create(kubernetes, folder.path(), DISPATCHER, &privileged).await {
            Err(error) if error.contains(REFUSED) => Ok(()),
            other => Err(other),
        }
    })
    .await;
    let mut accepted = vec![];
    let mut invalid = vec![];
    for violation in violations() {
        let refused = Template::parse(&violation.template())
            .and_then(|template| template.with_policy(shipped_limits().into()));
        assert!(refused.is_err(), "the rules of templates allow {violation:?}");
        match create(kubernetes, folder.path(), DISPATCHER, &violation.job("violation")).await {
            Err(error) if error.contains(REFUSED) => {}
            // The API server checks the fields first. It knows no Windows pod without the network of
            // the node, among others.
            Err(error) if error.contains("is invalid: ") => invalid.push(violation.field),
            other => accepted.push((violation, other)),
        }
    }
    assert!(accepted.is_empty(), "{accepted:#?}");
    println!("refused by the API server itself: {invalid:?}");
    assert!(invalid.len() <= 6, "{invalid:?}");
    for job in [
        rendered("simple.yaml", &json!({"foo": "policy", "fail": true})).await,
        rendered(
            "memory.yaml",
            &json!({"foo": "policy", "reqBytes": "1Mi", "limBytes": "2Mi", "allocBytes": "1Mi"}),
        )
        .await,
        job_of(&changed("/spec/template/spec/priorityClassName", &Value::Null), "allowed"),
    ] {
        let created = create(kubernetes, folder.path(), DISPATCHER, &job).await;
        assert!(created.is_ok(), "{created:?}");
    }
    let mut endless = job_of(&changed("/spec/backoffLimit", &json!(1)), "endless");
    endless["spec"]["activeDeadlineSeconds"] = Value::Null;
    let refused = create(kubernetes, folder.path(), DISPATCHER, &endless).await.unwrap_err();
    assert!(refused.contains("activeDeadlineSeconds is missing"), "{refused}");
    // Other users of the namespace are not restricted.
    let created = create(kubernetes, folder.path(), ADMINISTRATOR, &privileged).await;
    assert!(created.is_ok(), "{created:?}");
    // Without its limits, the dispatcher creates no Jobs. Other namespaces do not notice.
    let limits = ["--namespace=dispatcher", "delete", "configmap", "dispatcher-limits"];
    kubernetes.kubectl(&limits).await.unwrap();
    let allowed = job_of(&changed("/spec/template/spec/priorityClassName", &Value::Null), "allowed");
    until("the policy to miss its limits", TIMEOUT, || async {
        match create(kubernetes, folder.path(), DISPATCHER, &allowed).await {
            Err(error) if error.contains("no params found") => Ok(()),
            other => Err(other),
        }
    })
    .await;
    let elsewhere =
        create_in(kubernetes, folder.path(), ADMINISTRATOR, &allowed, "--namespace=default").await;
    assert!(elsewhere.is_ok(), "{elsewhere:?}");
    kubernetes.delete_overlay(&base).await.unwrap();
}
