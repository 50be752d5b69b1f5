//! Kinds are files: what an operator writes, what `dispatcher check` says of it, and what becomes of a request.

use std::path::{Path, PathBuf};
use std::process::Output;

use dispatcher_tests::job_controller::managed_template;
use dispatcher_tests::test_env::{TestEnv, header};
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{Kubernetes, only_on_kubernetes, or_skip, paths, until};
use k8s_openapi::api::batch::v1::Job;
use kube::api::ListParams;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::bad_requests::bad_requests;

/// A template of the tests' own: it runs the shipped workload.
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

/// Publishes a request of any template; its sequence.
async fn request(env: &TestEnv, template: &str, payload: Value) -> u64 {
    let sent = env.jetstream.publish(format!("jobs.{template}.create"), payload.to_string().into()).await;
    sent.unwrap().await.expect("the request is stored").sequence
}

/// The outcome of a Job of any template, waited for.
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

/// The dead dead_letter of a request of any template, waited for: reason and message.
async fn rejection(env: &TestEnv, template: &str, sequence: u64) -> (String, String) {
    let subject = format!("jobs.{template}.rejected");
    until(&format!("the rejection of {sequence}"), TIMEOUT, || async {
        let stream = env.jetstream.get_stream_no_info("JOB_REJECTED").await.map_err(|e| e.to_string())?;
        let last = stream.get_last_raw_message_by_subject(&subject).await.map_err(|e| e.to_string())?;
        if header(&last, "Job-Request-Seq") == sequence.to_string() {
            Ok((header(&last, "Job-Error"), header(&last, "Job-Error-Message")))
        } else {
            Err("another's".to_owned())
        }
    })
    .await
}

/// Runs `dispatcher check`.
async fn check(args: &[&str]) -> Output {
    let mut command = Command::new(paths::built("dispatcher").unwrap());
    command.arg("check").args(args).kill_on_drop(true).output().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_is_added_as_a_file_works_without_a_rebuild() {
    let env = or_skip!(TestEnv::start().await);
    let simple = std::fs::read_to_string(shipped("templates/simple.yaml")).unwrap();
    let folder = folder(&[("simple.yaml", &simple)]);
    let dispatcher = env.dispatcher().templates(folder.path()).start().await;
    let unknown = env.jetstream.publish("jobs.greet.create", "{}".into()).await.unwrap().await;
    assert!(unknown.is_err(), "no stream takes a template that is not there");
    std::fs::write(folder.path().join("greet.yaml"), GREET).unwrap();
    assert_eq!(dispatcher.terminate().await, Some(0));
    dispatcher.restart().await;
    request(&env, "greet", json!({"who": "you", "times": 3.0, "loud": true})).await;
    request(&env, "greet", json!({"who": "me"})).await;
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
        assert_eq!(pod.automount_service_account_token, Some(false), "unless the template asks for it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_wrong_values_is_rejected_by_field() {
    let env = or_skip!(TestEnv::start().await);
    let folder = folder(&[("greet.yaml", GREET)]);
    let _dispatcher = env.dispatcher().templates(folder.path()).start().await;
    let sequence = request(&env, "greet", json!({"who": "a", "times": 10, "loud": "yes"})).await;
    let (reason, message) = rejection(&env, "greet", sequence).await;
    assert_eq!(reason, "InvalidRequest");
    assert_eq!(
        message,
        "field `loud`: found a string, allowed is a boolean; field `times`: found 10, allowed is at most 9"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_limits_hold_for_all_kinds() {
    let env = or_skip!(TestEnv::start().await);
    let folder = folder(&[("greet.yaml", GREET)]);
    let dispatcher =
        env.dispatcher().templates(folder.path()).env("DISPATCHER_ALLOWED_IMAGES", "simple-job:*");
    let dispatcher = dispatcher
        .env("DISPATCHER_ALLOWED_SERVICE_ACCOUNTS", "job")
        .env("DISPATCHER_DEFAULT_ACTIVE_DEADLINE_SECONDS", "300");
    let _dispatcher = dispatcher.start().await;
    let sequence = request(&env, "greet", json!({"who": "a", "image": "evil:1"})).await;
    let (reason, message) = rejection(&env, "greet", sequence).await;
    assert_eq!(reason, "Refused");
    assert!(
        message.contains("containers[0].image: found \"evil:1\", the operator allows simple-job:*"),
        "{message}"
    );
    request(&env, "greet", json!({"who": "b"})).await;
    assert_eq!(env.job("greet-b").await.spec.unwrap().active_deadline_seconds, Some(300));
    assert_eq!(outcome(&env, "greet", "greet-b").await["result"], "Complete");
    // What is fixed in a template is told at the start.
    let elsewhere =
        env.dispatcher().templates(folder.path()).env("DISPATCHER_ALLOWED_SERVICE_ACCOUNTS", "other");
    let refused = elsewhere.without_waiting().start().await;
    assert_eq!(refused.wait().await, Some(2));
    assert!(
        refused.log().contains("serviceAccountName: found \"job\", the operator allows other"),
        "{}",
        refused.log()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_check_renders_is_taken_by_kubernetes() {
    only_on_kubernetes!(
        "the local cluster has no OpenAPI, by which kubectl and the server look at every field"
    );
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
        let dry =
            kubernetes.kubectl(&["apply", "--namespace", namespace, "--dry-run=server", "-f", &path]).await;
        let expected = format!("job.batch/{} created (server dry run)", job.metadata.name.unwrap());
        assert_eq!(dry.map(|out| out.trim().to_owned()), Ok(expected), "{file}");
    }
    // And what Kubernetes refuses, it refuses there: a request above the limit.
    let file = shipped("templates/memory.yaml").display().to_string();
    let over = json!({"foo": "a", "reqBytes": "2Gi", "limBytes": "1Gi", "allocBytes": "1"}).to_string();
    let path = greet.path().join("job.json");
    std::fs::write(&path, check(&[&file, "--render", &over]).await.stdout).unwrap();
    let path = path.display().to_string();
    let refused = kubernetes
        .kubectl(&["apply", "--namespace", &env.namespace.name, "--dry-run=server", "-f", &path])
        .await;
    assert!(refused.unwrap_err().contains("must be less than or equal to memory limit"));
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_all_problems_of_all_files_and_ends_with_code_2() {
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
    let problems = String::from_utf8_lossy(&output.stderr).into_owned();
    for told in [
        format!(
            "{}: spec.job.spec.template.spec.containers[0].env[1].value: refers to `lout`, which is no declared",
            path("bad.yaml")
        ),
        format!("{}: spec.jobName: makes no valid name", path("bad.yaml")),
        format!("{}: not valid YAML", path("no.yaml")),
    ] {
        assert!(problems.contains(&told), "{told}: {problems}");
    }
    let folder = folder.path().join("good.yaml");
    assert_eq!(check(&[&folder.display().to_string()]).await.status.code(), Some(0));
    let rejected = check(&[&folder.display().to_string(), "--render", "{}"]).await;
    assert_eq!(rejected.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&rejected.stderr).contains("field `who`: is missing, but required"));
}

/// What is Kubernetes' and Kueue's own business: the Job that is there has it.
#[tokio::test(flavor = "multi_thread")]
async fn the_rest_of_a_job_passes_through() {
    let env = or_skip!(TestEnv::start().await);
    let text = GREET
        .replace("backoffLimit: 0", "completions: 2\n      completionMode: Indexed\n      backoffLimitPerIndex: 1\n      suspend: true\n      activeDeadlineSeconds: 60\n      podFailurePolicy: {rules: [{action: FailIndex, onExitCodes: {operator: In, values: [42]}}]}")
        .replace("labels: {team: \"${who}\"}", "labels: {kueue.x-k8s.io/queue-name: \"${who}\"}");
    let folder = folder(&[("greet.yaml", &text)]);
    let _dispatcher = env.dispatcher().templates(folder.path()).start().await;
    request(&env, "greet", json!({"who": "batch"})).await;
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

/// The exit code and reason of the one container of a Job's one pod.
async fn ended(env: &TestEnv, job: &str) -> (i32, String) {
    let pods =
        env.namespace.pods.list(&ListParams::default().labels(&format!("job-name={job}"))).await.unwrap();
    let status = pods.items[0].status.clone().unwrap();
    let ended = status.container_statuses.unwrap()[0].state.clone().unwrap().terminated.unwrap();
    (ended.exit_code, ended.reason.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_job_is_killed_over_its_limit_and_done_below_it() {
    let env = or_skip!(TestEnv::start().await);
    let _dispatcher = env.dispatcher().start().await;
    let bytes = |foo: &str, alloc: &str| json!({"foo": foo, "reqBytes": "16Mi", "limBytes": "64Mi", "allocBytes": alloc});
    request(&env, "memory", bytes("much", "256Mi")).await;
    request(&env, "memory", bytes("little", "16Mi")).await;
    let much = outcome(&env, "memory", "memory-job-much").await;
    assert_eq!((&much["result"], &much["reason"]), (&json!("Failed"), &json!("BackoffLimitExceeded")));
    assert_eq!(ended(&env, "memory-job-much").await, (137, "OOMKilled".to_owned()));
    assert_eq!(outcome(&env, "memory", "memory-job-little").await["result"], "Complete");
    assert_eq!(ended(&env, "memory-job-little").await, (0, "Completed".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_payload_of_the_corpus_is_kept_with_its_reason_and_stops_nothing() {
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
        let bad = sent.remove(&sequence).expect("each once");
        assert!(dead_letter.payload[..] == bad.payload[..], "the payload of {sequence} is kept as it was");
        assert_eq!(header(&dead_letter, "Job-Error"), bad.reason, "{sequence}");
        assert!(
            header(&dead_letter, "Job-Error-Message").contains(&bad.told),
            "{sequence}: {:?}",
            dead_letter.headers
        );
        let known = ["Job-Error", "Job-Error-Message", "Job-Request-Id", "Job-Request-Seq", "Job-Name"];
        for (name, values) in dead_letter.headers.iter() {
            let name = name.to_string();
            let is_known = known.contains(&name.as_str()) || name.starts_with("Nats-");
            assert!(is_known, "{sequence}: a header that nobody wrote: {name}");
            assert_eq!(values.len(), 1, "{sequence}: {name}");
        }
    }
    assert_eq!(env.namespace.jobs.list(&ListParams::default()).await.unwrap().items.len(), 1);
}

/// The example of the documentation is the file.
#[test]
fn the_documented_example_is_the_one_that_is_tested() {
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let documented = read(&paths::workspace().join("docs/templates.md"));
    assert!(documented.contains(&format!("```yaml\n{}```", read(&shipped("examples/dump.yaml")))));
}
