//! Template files: validation by `dispatcher check`, and requests for Jobs of a template.

use std::path::{Path, PathBuf};
use std::process::Output;

use dispatcher_tests::checker::history::{kept, sha256};
use dispatcher_tests::job_controller::managed_template;
use dispatcher_tests::test_env::{TestEnv, header};
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{Kubernetes, only_on_kubernetes, or_skip, paths, until};
use k8s_openapi::api::batch::v1::Job;
use kube::Api;
use kube::api::{DynamicObject, ListParams};
use kube::discovery::ApiResource;
use serde_json::{Value, json};
use tokio::process::Command;

use dispatcher_core::testing::bad_requests;

/// A template that runs the shipped workload `simple-job`.
const GREET: &str = r#"
apiVersion: natsjobs.dev/v1alpha1
kind: JobTemplate
metadata:
  name: greet
spec:
  jobName: greet-${who}
  parameters:
    type: object
    properties:
      who: {type: string}
      times: {type: integer, default: 1, maximum: 9}
      loud: {type: boolean}
      image: {type: string, default: "simple-job:0.1.0"}
    required: [who]
  job:
    apiVersion: batch/v1
    kind: Job
    metadata:
      labels: {team: "${who}"}
    spec:
      backoffLimit: 0
      template:
        spec:
          restartPolicy: Never
          serviceAccountName: job
          securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
          containers:
            - name: greet
              image: ${image}
              imagePullPolicy: Never
              env:
                - {name: FOO, value: "hello ${who}, ${times} times"}
                - {name: LOUD, value: "${loud}"}
                - {name: SLEEP_SECONDS, value: "0"}
              resources: {limits: {memory: 64Mi, cpu: 100m}}
              securityContext: {capabilities: {drop: [ALL]}}
"#;

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = paths::temp_dir("templates").unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn shipped(name: &str) -> PathBuf {
    paths::workspace().join("deploy").join(name)
}

/// Waits for the outcome of a Job and returns it.
async fn outcome(env: &TestEnv, template: &str, name: &str) -> Value {
    let subject = format!("jobs.{template}.status.{name}");
    until(&format!("the outcome on {subject}"), TIMEOUT, || async {
        let stream = env.jetstream.get_stream_no_info("JOB_STATUS").await.map_err(|e| e.to_string())?;
        let last = stream.get_last_raw_message_by_subject(&subject).await.map_err(|e| e.to_string())?;
        let event: Value = serde_json::from_slice(&last.payload).map_err(|e| e.to_string())?;
        if event["outcome"].is_null() { Err(event.to_string()) } else { Ok(event["outcome"].clone()) }
    })
    .await
}

/// Waits for the dead letter of a request and returns its `Job-Error` and `Job-Error-Message`.
pub(crate) async fn rejection(env: &TestEnv, template: &str, sequence: u64) -> (String, String) {
    let subject = format!("jobs.{template}.rejected.{sequence}");
    until(&format!("the dead letter of request {sequence}"), TIMEOUT, || async {
        let stream = env.jetstream.get_stream_no_info("JOB_REJECTED").await.map_err(|e| e.to_string())?;
        let last = stream.get_last_raw_message_by_subject(&subject).await.map_err(|e| e.to_string())?;
        Ok::<_, String>((header(&last, "Job-Error"), header(&last, "Job-Error-Message")))
    })
    .await
}

/// Runs `dispatcher check`.
async fn check(args: &[&str]) -> Output {
    let mut command = Command::new(paths::built("dispatcher").unwrap());
    command.arg("check").args(args).kill_on_drop(true).output().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn added_template_file_works_after_a_restart() {
    let env = or_skip!(TestEnv::start().await);
    let simple = std::fs::read_to_string(shipped("templates/simple.yaml")).unwrap();
    let folder = folder(&[("simple.yaml", &simple)]);
    let dispatcher = env.dispatcher().templates(folder.path()).start().await;
    let unknown = env.jetstream.publish("jobs.greet.create", "{}".into()).await.unwrap().await;
    assert!(unknown.is_err(), "a request for an unknown template was stored");
    std::fs::write(folder.path().join("greet.yaml"), GREET).unwrap();
    assert_eq!(dispatcher.terminate().await, Some(0));
    dispatcher.restart().await;
    env.publish_to("greet", json!({"who": "you", "times": 3.0, "loud": true})).await.unwrap();
    env.publish_to("greet", json!({"who": "me"})).await.unwrap();
    for (who, times, loud) in [("you", "3", Some("true")), ("me", "1", None)] {
        let name = format!("greet-{who}");
        assert_eq!(outcome(&env, "greet", &name).await["result"], "Complete");
        let job = env.job(&name).await;
        assert_eq!(job.metadata.labels.unwrap()["team"], who);
        let pod = job.spec.unwrap().template.spec.unwrap();
        let env = pod.containers[0].env.clone().unwrap();
        let value = |name: &str| env.iter().find(|e| e.name == name).and_then(|e| e.value.clone());
        assert_eq!(value("FOO").unwrap(), format!("hello {who}, {times} times"));
        assert_eq!(value("LOUD").as_deref(), loud);
        assert_eq!(pod.automount_service_account_token, Some(false), "the pod mounts a token");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_parameters_are_rejected_by_field() {
    let env = or_skip!(TestEnv::start().await);
    let folder = folder(&[("greet.yaml", GREET)]);
    let _dispatcher = env.dispatcher().templates(folder.path()).start().await;
    let sequence = env.publish_to("greet", json!({"who": "a", "times": 10, "loud": "yes"})).await.unwrap();
    let (reason, message) = rejection(&env, "greet", sequence).await;
    assert_eq!(reason, "InvalidRequest");
    for fragment in ["`loud`", "boolean", "`times`", "10", "9"] {
        assert!(message.contains(fragment), "{fragment}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_limits_apply_to_every_template() {
    let env = or_skip!(TestEnv::start().await);
    let folder = folder(&[("greet.yaml", GREET)]);
    let dispatcher =
        env.dispatcher().templates(folder.path()).env("DISPATCHER_ALLOWED_IMAGES", "simple-job:*");
    let dispatcher = dispatcher
        .env("DISPATCHER_ALLOWED_SERVICE_ACCOUNTS", "job")
        .env("DISPATCHER_DEFAULT_ACTIVE_DEADLINE_SECONDS", "300");
    let _dispatcher = dispatcher.start().await;
    let sequence = env.publish_to("greet", json!({"who": "a", "image": "forbidden:1"})).await.unwrap();
    let (reason, message) = rejection(&env, "greet", sequence).await;
    assert_eq!(reason, "Refused");
    for fragment in ["containers[0].image", "\"forbidden:1\"", "simple-job:*"] {
        assert!(message.contains(fragment), "{fragment}: {message}");
    }
    env.publish_to("greet", json!({"who": "b"})).await.unwrap();
    assert_eq!(env.job("greet-b").await.spec.unwrap().active_deadline_seconds, Some(300));
    assert_eq!(outcome(&env, "greet", "greet-b").await["result"], "Complete");
    // A fixed value of a template is checked at start.
    let restricted =
        env.dispatcher().templates(folder.path()).env("DISPATCHER_ALLOWED_SERVICE_ACCOUNTS", "other");
    let refused = restricted.without_waiting().start().await;
    assert_eq!(refused.wait().await, Some(2));
    for fragment in ["serviceAccountName", "\"job\"", "other"] {
        assert!(refused.log().contains(fragment), "{fragment}: {}", refused.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rendered_job_is_accepted_by_kubernetes() {
    only_on_kubernetes!("the local cluster has no OpenAPI schema");
    let env = or_skip!(TestEnv::start().await);
    let kubernetes = or_skip!(Kubernetes::shared().await);
    let greet = folder(&[("greet.yaml", GREET)]);
    for (file, request) in [
        (shipped("templates/simple.yaml"), json!({"foo": "$(x) \"'\n", "name": "a", "fail": 1})),
        (
            shipped("templates/memory.yaml"),
            json!({"foo": "a", "reqBytes": "16Mi", "limBytes": "64Mi", "allocBytes": "1e8"}),
        ),
        (
            shipped("examples/dump.yaml"),
            json!({"database": "shop", "table": "public.orders", "format": "plain"}),
        ),
        (greet.path().join("greet.yaml"), json!({"who": "a"})),
    ] {
        let file = file.display().to_string();
        let rendered = check(&[&file, "--render", &request.to_string()]).await;
        assert!(rendered.status.success(), "{file}: {}", String::from_utf8_lossy(&rendered.stderr));
        let job: Job = serde_json::from_slice(&rendered.stdout).unwrap();
        let path = greet.path().join("job.json");
        std::fs::write(&path, &rendered.stdout).unwrap();
        let path = path.display().to_string();
        let namespace = &env.namespace.name;
        let dry_run =
            kubernetes.kubectl(&["apply", "--namespace", namespace, "--dry-run=server", "-f", &path]).await;
        let expected = format!("job.batch/{} created (server dry run)", job.metadata.name.unwrap());
        assert_eq!(dry_run.map(|out| out.trim().to_owned()), Ok(expected), "{file}");
    }
    // Kubernetes refuses a memory request above the limit, so the dry run validates the Job.
    let file = shipped("templates/memory.yaml").display().to_string();
    let over_limit =
        json!({"foo": "a", "reqBytes": "1Gi", "limBytes": "512Mi", "allocBytes": "1"}).to_string();
    let path = greet.path().join("job.json");
    std::fs::write(&path, check(&[&file, "--render", &over_limit]).await.stdout).unwrap();
    let path = path.display().to_string();
    let refused = kubernetes
        .kubectl(&["apply", "--namespace", &env.namespace.name, "--dry-run=server", "-f", &path])
        .await;
    assert!(refused.unwrap_err().contains("must be less than or equal to memory limit"));
}

#[tokio::test(flavor = "multi_thread")]
async fn check_reports_all_errors_of_all_files_and_exits_with_code_2() {
    let bad = GREET
        .replace("value: \"${loud}\"", "value: \"${lout}\"")
        .replace("jobName: greet-", "jobName: Greet-");
    let folder = folder(&[("bad.yaml", &bad), ("good.yaml", GREET), ("no.yaml", "kind: [")]);
    let path = |name: &str| folder.path().join(name).display().to_string();
    let output = check(&[&path("bad.yaml"), &path("good.yaml"), &path("no.yaml")]).await;
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        format!("ok {} (template greet)\n", path("good.yaml"))
    );
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    for (file, field, fragment) in [
        ("bad.yaml", "spec.job.spec.template.spec.containers[0].env[1].value: ", "`lout`"),
        ("bad.yaml", "spec.jobName: ", "valid"),
        ("no.yaml", "", "YAML"),
    ] {
        let start = format!("{}: {field}", path(file));
        let reported = errors.lines().any(|line| line.contains(&start) && line.contains(fragment));
        assert!(reported, "{start}... {fragment}: {errors}");
    }
    let folder = folder.path().join("good.yaml");
    assert_eq!(check(&[&folder.display().to_string()]).await.status.code(), Some(0));
    let rejected = check(&[&folder.display().to_string(), "--render", "{}"]).await;
    assert_eq!(rejected.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&rejected.stderr).contains("`who`"));
}

/// Fields of Kubernetes and Kueue that the dispatcher does not interpret.
#[tokio::test(flavor = "multi_thread")]
async fn other_fields_of_a_job_are_passed_through() {
    let env = or_skip!(TestEnv::start().await);
    let text = GREET
        .replace("backoffLimit: 0", "completions: 2\n      completionMode: Indexed\n      backoffLimitPerIndex: 1\n      suspend: true\n      activeDeadlineSeconds: 60\n      podFailurePolicy: {rules: [{action: FailIndex, onExitCodes: {operator: In, values: [42]}}]}")
        .replace("labels: {team: \"${who}\"}", "labels: {kueue.x-k8s.io/queue-name: \"${who}\"}");
    let folder = folder(&[("greet.yaml", &text)]);
    let _dispatcher = env.dispatcher().templates(folder.path()).start().await;
    env.publish_to("greet", json!({"who": "batch"})).await.unwrap();
    let job = env.job("greet-batch").await;
    assert_eq!(job.metadata.labels.as_ref().unwrap()["kueue.x-k8s.io/queue-name"], "batch");
    let spec = serde_json::to_value(job.spec.unwrap()).unwrap();
    for (field, value) in [
        ("completions", json!(2)),
        ("completionMode", json!("Indexed")),
        ("backoffLimitPerIndex", json!(1)),
        ("suspend", json!(true)),
        ("activeDeadlineSeconds", json!(60)),
    ] {
        assert_eq!(spec[field], value, "{field}");
    }
    assert_eq!(spec["podFailurePolicy"]["rules"][0]["action"], "FailIndex");
    assert_eq!(env.namespace.pods.list(&ListParams::default()).await.unwrap().items.len(), 0, "suspended");
}

/// Kubernetes 1.37 knows the fields, and the client library does not.
#[tokio::test(flavor = "multi_thread")]
async fn field_that_only_the_cluster_knows_reaches_the_job() {
    only_on_kubernetes!("the local cluster drops the same fields as the client library");
    let env = or_skip!(TestEnv::start().await);
    let rules = "restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}]";
    let text = GREET
        .replace(
            "restartPolicy: Never\n",
            "restartPolicy: Never\n          hostnameOverride: ${who}.example.org\n",
        )
        .replace(
            "image: ${image}\n",
            &format!("image: ${{image}}\n              restartPolicy: Never\n              {rules}\n"),
        );
    let folder = folder(&[("greet.yaml", &text)]);
    let dispatcher = env.dispatcher().templates(folder.path()).start().await;
    let field = "spec.job.spec.template.spec.hostnameOverride";
    assert!(dispatcher.log().contains(field), "no warning: {}", dispatcher.log());
    env.publish_to("greet", json!({"who": "me"})).await.unwrap();
    env.job("greet-me").await;
    let resource = ApiResource::erase::<Job>(&());
    let jobs: Api<DynamicObject> =
        Api::namespaced_with(env.namespace.client.clone(), &env.namespace.name, &resource);
    let job = jobs.get("greet-me").await.unwrap();
    let pod = job.data.pointer("/spec/template/spec").unwrap();
    assert_eq!(pod["hostnameOverride"], "me.example.org");
    assert_eq!(pod["containers"][0]["restartPolicyRules"][0]["exitCodes"]["values"], json!([42]));
}

#[tokio::test(flavor = "multi_thread")]
async fn name_without_the_prefix_of_the_template_is_rejected() {
    let env = or_skip!(TestEnv::start().await);
    let with_prefix = GREET.replace("jobName: greet-${who}", "jobName: greet-${who}\n  namePrefix: greet-");
    let other =
        GREET.replace("name: greet\nspec", "name: other\nspec").replace("greet-${who}", "other-${who}");
    let folder = folder(&[("greet.yaml", &with_prefix), ("other.yaml", &other)]);
    let _dispatcher = env.dispatcher().templates(folder.path()).start().await;
    for (template, fields, message) in [
        ("greet", json!({"who": "a", "name": "a"}), "`name`: expected a name that starts with `greet-`"),
        ("greet", json!({"who": "a", "generateName": "a-"}), "`generateName`: expected a name that starts"),
        (
            "other",
            json!({"who": "a", "name": "greet-a"}),
            "names that start with `greet-` belong to the template",
        ),
    ] {
        let sequence = env.publish_to(template, fields).await.unwrap();
        let (reason, found) = rejection(&env, template, sequence).await;
        assert_eq!(reason, "InvalidName");
        assert!(found.contains(message), "{found}");
    }
    env.publish_to("greet", json!({"who": "a", "name": "greet-b"})).await.unwrap();
    assert_eq!(outcome(&env, "greet", "greet-b").await["result"], "Complete");
}

/// The exit code and reason of the only container of a Job's only pod.
async fn terminated(env: &TestEnv, job: &str) -> (i32, String) {
    let pods =
        env.namespace.pods.list(&ListParams::default().labels(&format!("job-name={job}"))).await.unwrap();
    let status = pods.items[0].status.clone().unwrap();
    let state = status.container_statuses.unwrap()[0].state.clone().unwrap().terminated.unwrap();
    (state.exit_code, state.reason.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_job_is_killed_above_its_limit_and_completes_below_it() {
    let env = or_skip!(TestEnv::start().await);
    let _dispatcher = env.dispatcher().start().await;
    let bytes = |foo: &str, alloc: &str| json!({"foo": foo, "reqBytes": "16Mi", "limBytes": "64Mi", "allocBytes": alloc});
    env.publish_to("memory", bytes("much", "256Mi")).await.unwrap();
    env.publish_to("memory", bytes("little", "16Mi")).await.unwrap();
    let much = outcome(&env, "memory", "memory-job-much").await;
    assert_eq!((&much["result"], &much["reason"]), (&json!("Failed"), &json!("BackoffLimitExceeded")));
    assert_eq!(terminated(&env, "memory-job-much").await, (137, "OOMKilled".to_owned()));
    assert_eq!(outcome(&env, "memory", "memory-job-little").await["result"], "Complete");
    assert_eq!(terminated(&env, "memory-job-little").await, (0, "Completed".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_payload_of_the_corpus_becomes_a_dead_letter_and_blocks_no_request() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    let corpus = bad_requests();
    let mut sent = std::collections::BTreeMap::new();
    for bad in &corpus {
        sent.insert(env.publish(bad.payload.clone(), None).await, bad);
    }
    env.request(r#"{"foo":"good"}"#).await;
    env.until_last("simple-job-good", "ADDED").await;
    env.until_queue_is_empty().await;
    let dead_letters = env.dead_letters().await;
    assert_eq!(dead_letters.len(), corpus.len());
    for dead_letter in dead_letters {
        let sequence: u64 = header(&dead_letter, "Job-Request-Seq").parse().unwrap();
        let bad = sent.remove(&sequence).expect("a second dead letter of a request");
        assert!(kept(&dead_letter.payload, &bad.payload), "the payload of {sequence} was changed");
        assert_eq!(header(&dead_letter, "Job-Payload-Sha256"), sha256(&bad.payload));
        assert_eq!(header(&dead_letter, "Job-Error"), bad.reason, "{sequence}");
        assert!(
            header(&dead_letter, "Job-Error-Message").contains(&bad.message),
            "{sequence}: {:?}",
            dead_letter.headers
        );
        let known = [
            "Job-Error",
            "Job-Error-Message",
            "Job-Request-Id",
            "Job-Request-Seq",
            "Job-Request-Time",
            "Job-Request-Hash",
            "Job-Payload-Size",
            "Job-Payload-Sha256",
            "Job-Name",
        ];
        for (name, values) in dead_letter.headers.iter() {
            let name = name.to_string();
            let is_known = known.contains(&name.as_str()) || name.starts_with("Nats-");
            assert!(is_known, "{sequence}: unexpected header {name}");
            assert_eq!(values.len(), 1, "{sequence}: {name}");
        }
    }
    assert_eq!(env.namespace.jobs.list(&ListParams::default()).await.unwrap().items.len(), 1);
}

#[test]
fn documented_example_equals_the_tested_file() {
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let documented = read(&paths::workspace().join("docs/templates.md"));
    assert!(documented.contains(&format!("```yaml\n{}```", read(&shipped("examples/dump.yaml")))));
}
