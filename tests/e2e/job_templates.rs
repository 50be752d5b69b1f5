//! `JobTemplate` objects: added, changed, broken and deleted while the dispatcher runs.

use dispatcher_tests::dispatcher::Builder;
use dispatcher_tests::job_controller::managed_template;
use dispatcher_tests::test_env::TestEnv;
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{Kubernetes, only_on_kubernetes, or_skip, paths, until};
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::discovery::ApiResource;
use serde_json::{Value, json};

use crate::templates::rejection;

/// Installs the CRD.
pub(crate) async fn install(kubernetes: &Kubernetes) {
    kubernetes.create_crds(&paths::workspace().join("deploy/base/crd.yaml")).await.unwrap();
}

/// A template without a Job controller: its Jobs run until the test ends them. `more` is appended to
/// the spec.
pub(crate) fn template(name: &str, more: &str) -> Value {
    let text = format!(
        r#"
apiVersion: natsjobs.dev/v1alpha1
kind: JobTemplate
metadata: {{name: {name}}}
spec:
  jobName: {name}-${{who}}
  parameters:
    type: object
    properties: {{who: {{type: string}}, note: {{type: string}}}}
    required: [who]
  job:
    apiVersion: batch/v1
    kind: Job
    spec:
      managedBy: tests.example.com/none
      template:
        spec:
          restartPolicy: Never
          containers: [{{name: main, image: "simple-job:0.1.0"}}]
{more}"#
    );
    serde_saphyr::from_str(&text).unwrap()
}

/// The `JobTemplate` objects of a test.
pub(crate) struct JobTemplates(Api<DynamicObject>);

impl JobTemplates {
    pub(crate) fn of(env: &TestEnv) -> Self {
        let resource = ApiResource {
            group: "natsjobs.dev".to_owned(),
            version: "v1alpha1".to_owned(),
            api_version: "natsjobs.dev/v1alpha1".to_owned(),
            kind: "JobTemplate".to_owned(),
            plural: "jobtemplates".to_owned(),
        };
        Self(Api::namespaced_with(env.namespace.client.clone(), &env.namespace.name, &resource))
    }

    pub(crate) async fn apply(&self, name: &str, template: &Value) {
        let params = PatchParams::apply("test").force();
        self.0.patch(name, &params, &Patch::Apply(template)).await.unwrap();
    }

    async fn patch_spec(&self, name: &str, spec: Value) -> Result<DynamicObject, kube::Error> {
        self.0.patch(name, &PatchParams::default(), &Patch::Merge(json!({ "spec": spec }))).await
    }

    pub(crate) async fn delete(&self, name: &str) {
        self.0.delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// Waits until the condition `Ready` of the last generation has this reason; the status.
    pub(crate) async fn until_ready(&self, name: &str, reason: &str) -> Value {
        until(&format!("the reason {reason} of JobTemplate {name}"), TIMEOUT, || async {
            let object = self.0.get(name).await.map_err(|e| e.to_string())?;
            let status = object.data["status"].clone();
            let is_current = status["observedGeneration"].as_i64() == object.metadata.generation;
            let found = is_current && status["conditions"][0]["reason"] == reason;
            if found { Ok(status) } else { Err(status.to_string()) }
        })
        .await
    }

    pub(crate) async fn until_gone(&self, name: &str) {
        until(&format!("JobTemplate {name} to be gone"), TIMEOUT, || async {
            match self.0.get_opt(name).await {
                Ok(None) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
}

/// A dispatcher that has no template files.
fn dispatcher(env: &TestEnv, folder: &tempfile::TempDir) -> Builder {
    env.dispatcher().env("DISPATCHER_JOB_TEMPLATES", "true").templates(folder.path())
}

async fn environment() -> Result<(TestEnv, JobTemplates, tempfile::TempDir), String> {
    let kubernetes = Kubernetes::shared().await?;
    install(kubernetes).await;
    let env = TestEnv::start().await?;
    let objects = JobTemplates::of(&env);
    Ok((env, objects, paths::temp_dir("no-templates")?))
}

/// Waits for the first event of a Job and returns it.
async fn added(env: &TestEnv, template: &str, name: &str) -> Value {
    let subject = format!("jobs.{template}.status.{name}");
    until(&format!("an event on {subject}"), TIMEOUT, || async {
        let stream = env.jetstream.get_stream_no_info("JOB_STATUS").await.map_err(|e| e.to_string())?;
        let first = stream.direct_get_next_for_subject(&subject, Some(1)).await.map_err(|e| e.to_string())?;
        serde_json::from_slice::<Value>(&first.payload).map_err(|e| e.to_string())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn template_is_added_changed_and_deleted_without_a_restart() {
    only_on_kubernetes!("the local cluster has no custom resources");
    let (env, objects, folder) = or_skip!(environment().await);
    let _dispatcher = dispatcher(&env, &folder).start().await;

    objects.apply("greet", &template("greet", "")).await;
    let first = objects.until_ready("greet", "InUse").await;
    env.publish_to("greet", json!({"who": "a"})).await.unwrap();
    let event = added(&env, "greet", "greet-a").await;
    assert_eq!(event["templateHash"], first["hash"], "{event}");
    let job = env.job("greet-a").await;
    assert_eq!(
        job.metadata.annotations.unwrap()["natsjobs.dev/template-hash"],
        first["hash"].as_str().unwrap()
    );

    objects.patch_spec("greet", json!({"limits": {"maxActive": 7}})).await.unwrap();
    let second = objects.until_ready("greet", "InUse").await;
    assert_ne!(first["hash"], second["hash"]);
    assert_eq!(second["limit"], 7);
    env.publish_to("greet", json!({"who": "b"})).await.unwrap();
    assert_eq!(added(&env, "greet", "greet-b").await["templateHash"], second["hash"]);

    objects.delete("greet").await;
    objects.until_gone("greet").await;
    assert!(env.publish_to("greet", json!({"who": "c"})).await.is_err(), "the subject is removed");
    let mut jobs = env.jetstream.get_stream("JOBS").await.unwrap();
    assert_eq!(jobs.info().await.unwrap().config.subjects, ["dispatcher.requests.none"]);
    objects.apply("greet", &template("greet", "")).await;
    objects.until_ready("greet", "InUse").await;
    env.publish_to("greet", json!({"who": "d"})).await.unwrap();
    added(&env, "greet", "greet-d").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_change_keeps_the_last_valid_version_and_disturbs_no_other_template() {
    only_on_kubernetes!("the local cluster has no custom resources");
    let (env, objects, folder) = or_skip!(environment().await);
    let dispatcher = dispatcher(&env, &folder).start().await;
    for name in ["good", "other"] {
        objects.apply(name, &template(name, "")).await;
    }
    let valid = objects.until_ready("good", "InUse").await;
    objects.until_ready("other", "InUse").await;

    // The schema of the CRD cannot see that the parameter is not declared.
    let job = json!({"job": {"metadata": {"labels": {"team": "${undeclared}"}}}});
    objects.patch_spec("good", job).await.unwrap();
    let broken = objects.until_ready("good", "Invalid").await;
    assert_eq!(broken["hash"], valid["hash"]);
    let message = broken["conditions"][0]["message"].as_str().unwrap();
    assert!(message.contains("spec.job") && message.contains("undeclared"), "{message}");
    assert_eq!(dispatcher.get("/readyz").await.unwrap().0, 200);
    for name in ["good", "other"] {
        env.publish_to(name, json!({"who": "a"})).await.unwrap();
        let event = added(&env, name, &format!("{name}-a")).await;
        if name == "good" {
            assert_eq!(event["templateHash"], valid["hash"]);
        }
    }
    let verbose = dispatcher.get("/readyz?verbose").await.unwrap().1;
    assert!(verbose.contains("JobTemplate good is not in use"), "{verbose}");
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_refuses_what_the_api_server_can_decide() {
    only_on_kubernetes!("the local cluster has no custom resources");
    let (env, objects, folder) = or_skip!(environment().await);
    let _dispatcher = dispatcher(&env, &folder).start().await;
    objects.apply("fixed", &template("fixed", "")).await;
    objects.until_ready("fixed", "InUse").await;
    let error = objects.patch_spec("fixed", json!({"jobName": "other-${who}"})).await.unwrap_err();
    assert!(error.to_string().contains("jobName cannot change"), "{error}");
    let long = "x".repeat(64);
    for (name, more, expected) in [
        ("a.b", "", "RFC 1123 label"),
        (long.as_str(), "", "RFC 1123 label"),
        ("policy", "  deletionPolicy: Keep", "deletionPolicy"),
        ("limit", "  limits: {maxActive: 0}", "maxActive"),
    ] {
        let mut object: DynamicObject = serde_json::from_value(template("x", more)).unwrap();
        object.metadata.name = Some(name.to_owned());
        let error = objects.0.create(&PostParams::default(), &object).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_object_without_a_valid_version_disappears() {
    only_on_kubernetes!("the local cluster has no custom resources");
    let (env, objects, folder) = or_skip!(environment().await);
    let dispatcher = dispatcher(&env, &folder).start().await;
    objects.apply("greet", &template("greet", "")).await;
    objects.until_ready("greet", "InUse").await;
    assert_eq!(dispatcher.terminate().await, Some(0));
    let job = json!({"job": {"metadata": {"labels": {"team": "${undeclared}"}}}});
    objects.patch_spec("greet", job).await.unwrap();
    dispatcher.restart().await;
    objects.until_ready("greet", "Invalid").await;
    objects.delete("greet").await;
    objects.until_gone("greet").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn object_cannot_exceed_the_limits_of_the_operator() {
    only_on_kubernetes!("the local cluster has no custom resources");
    let (env, objects, folder) = or_skip!(environment().await);
    let limited = dispatcher(&env, &folder).env("DISPATCHER_ALLOWED_IMAGES", "other:*");
    let dispatcher = limited.start().await;
    objects.apply("image", &template("image", "")).await;
    let mut host = template("host", "");
    host["spec"]["job"]["spec"]["template"]["spec"]["hostNetwork"] = true.into();
    objects.apply("host", &host).await;
    for (name, field) in [("image", "image"), ("host", "hostNetwork")] {
        let status = objects.until_ready(name, "Invalid").await;
        let message = status["conditions"][0]["message"].as_str().unwrap();
        assert!(message.contains(field), "{message}");
        assert!(status["hash"].is_null());
        assert!(env.publish_to(name, json!({"who": "a"})).await.is_err(), "no subject exists for {name}");
    }
    assert_eq!(dispatcher.get("/readyz").await.unwrap().0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn deletion_finishes_the_queue_or_rejects_it() {
    only_on_kubernetes!("the local cluster has no custom resources");
    let (env, objects, folder) = or_skip!(environment().await);
    let _dispatcher = dispatcher(&env, &folder).start().await;
    for (name, policy) in [("finish", "Finish"), ("reject", "Reject")] {
        let more = format!("  limits: {{maxActive: 1}}\n  deletionPolicy: {policy}\n");
        objects.apply(name, &template(name, &more)).await;
        objects.until_ready(name, "InUse").await;
        env.publish_to(name, json!({"who": "first"})).await.unwrap();
        added(&env, name, &format!("{name}-first")).await;
        let queued = env.publish_to(name, json!({"who": "second"})).await.unwrap();
        objects.delete(name).await;
        objects.until_ready(name, "Deleting").await;
        // The limit keeps the second request in the queue until the first Job ends.
        env.namespace.jobs.delete(&format!("{name}-first"), &DeleteParams::background()).await.unwrap();
        objects.until_gone(name).await;
        if policy == "Finish" {
            added(&env, name, "finish-second").await;
        } else {
            assert_eq!(rejection(&env, name, queued).await.0, "TemplateDeleted");
            assert!(env.namespace.jobs.get_opt("reject-second").await.unwrap().is_none());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_folder_is_read_without_a_restart() {
    let env = or_skip!(TestEnv::start().await);
    let (folder, path) = managed_template();
    let dispatcher = env.dispatcher().templates(path).start().await;
    env.request(r#"{"foo":"a"}"#).await;
    env.until_last("simple-job-a", "ADDED").await;

    let file = folder.path().join("greet.yaml");
    std::fs::write(&file, template("greet", "").to_string()).unwrap();
    let sent =
        until("the subject of the new template", TIMEOUT, || env.publish_to("greet", json!({"who": "a"})))
            .await;
    assert!(sent > 0);
    let first = added(&env, "greet", "greet-a").await;
    assert!(dispatcher.log().contains("template added"));

    std::fs::write(&file, "kind: [").unwrap();
    until("the broken file to be reported", TIMEOUT, || async {
        let verbose = dispatcher.get("/readyz?verbose").await?.1;
        if verbose.contains("greet.yaml is not in use") { Ok(()) } else { Err(verbose) }
    })
    .await;
    env.publish_to("greet", json!({"who": "b"})).await.unwrap();
    assert_eq!(added(&env, "greet", "greet-b").await["templateHash"], first["templateHash"]);
    assert_eq!(dispatcher.get("/readyz").await.unwrap().0, 200);
}
