//! Tests the real `kubectl`: get, get -w, logs -f, describe, delete.
//!
//! The tests are skipped without `kubectl` on the `PATH`. `make test` appends the one of the tests'
//! Kubernetes to the `PATH`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail fast"
)]

#[path = "api/cluster.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod cluster;

use std::{collections::BTreeMap, io::Write, process::Stdio, time::Duration};

use kube::api::{Patch, PatchParams, PostParams};
use local_cluster::{
    controller,
    kubelet::{self, Kubelet, Program},
};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use cluster::{Cluster, TIMEOUT, job, job_with, pod_of};

/// `kubectl` for a cluster, without the caller's configuration.
struct Kubectl {
    folder: tempfile::TempDir,
}

impl Kubectl {
    fn of(cluster: &Cluster) -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&path).any(|folder| folder.join("kubectl").is_file()) {
            skip("no kubectl on the PATH");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("kubeconfig"),
            cluster.credentials.kubeconfig(cluster.port, "default"),
        )
        .unwrap();
        Some(Self { folder })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.arg("--cache-dir").arg(self.folder.path()).args(arguments);
        let kubeconfig = self.folder.path().join("kubeconfig");
        command.env("KUBECONFIG", kubeconfig).env("HOME", self.folder.path()).kill_on_drop(true);
        command
    }

    /// Writes a file and returns its path.
    fn file(&self, name: &str, content: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    /// Runs a command that must succeed, and returns stdout and stderr.
    async fn run(&self, arguments: &[&str]) -> String {
        let output =
            timeout(3 * TIMEOUT, self.command(arguments).output()).await.expect("timed out").unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let all = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {all}");
        all
    }
}

/// Reports a skipped test on stderr and in the file that `make test` prints at its end.
///
/// With `CI=true`, a skipped test fails.
fn skip(why: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "test skipped in CI: {why}");
    eprintln!("skipped: {why}");
    let target = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/skipped-tests");
    let file = std::fs::OpenOptions::new().create(true).append(true).open(target);
    let _ = file.and_then(|mut file| writeln!(file, "local-cluster/tests/kubectl.rs: {why}"));
}

/// Collapses whitespace to single spaces.
fn collapse(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

async fn set_status(cluster: &Cluster, status: serde_json::Value) {
    let patch = json!({"status": status});
    cluster.jobs().patch_status("a", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn get_lists_jobs_and_pods_in_the_usual_columns() {
    let cluster = Cluster::new().await;
    let Some(kubectl) = Kubectl::of(&cluster) else { return };
    assert!(kubectl.run(&["get", "jobs"]).await.contains("No resources found in default namespace."));
    let created = cluster.create("a").await;
    let pod = pod_of(&created, "a-x", json!({"spec": {"nodeName": "here"}}));
    cluster.pods().create(&PostParams::default(), &pod).await.unwrap();
    let jobs = kubectl.run(&["get", "jobs"]).await;
    let lines: Vec<_> = jobs.lines().map(collapse).collect();
    assert_eq!(lines[0], "NAME STATUS COMPLETIONS DURATION AGE");
    assert!(lines[1].starts_with("a Running 0/1"), "{jobs}");
    let pods = kubectl.run(&["get", "po", "-o", "wide"]).await;
    let lines: Vec<_> = pods.lines().map(collapse).collect();
    assert_eq!(lines[0], "NAME READY STATUS RESTARTS AGE IP NODE NOMINATED NODE READINESS GATES");
    assert!(lines[1].starts_with("a-x 0/1 Pending 0 "), "{pods}");
    assert!(lines[1].ends_with("<none> here <none> <none>"), "{pods}");
    for (arguments, expected) in [
        (vec!["get", "job", "a", "-o", "jsonpath={.spec.backoffLimit}"], "6"),
        (vec!["get", "pods", "-l", "job-name=b"], "No resources found"),
        (vec!["get", "all", "-A"], "pod/a-x"),
        (vec!["get", "ns"], "Active"),
        (vec!["get", "leases,sa,events"], "serviceaccount/default"),
        (vec!["api-resources"], "batch/v1"),
        (vec!["version"], "local-cluster"),
    ] {
        let found = kubectl.run(&arguments).await;
        assert!(found.contains(expected), "{arguments:?}: {found}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn get_watch_prints_each_change() {
    let cluster = Cluster::new().await;
    let Some(kubectl) = Kubectl::of(&cluster) else { return };
    cluster.create("a").await;
    let mut command = kubectl.command(&["get", "jobs", "-w"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || {
        collapse(&timeout(2 * TIMEOUT, lines.next_line()).await.expect("timed out").unwrap().unwrap())
    };
    assert_eq!(next().await, "NAME STATUS COMPLETIONS DURATION AGE");
    assert!(next().await.starts_with("a Running 0/1"));
    let start = "2026-01-01T00:00:00Z";
    set_status(&cluster, json!({"startTime": start, "active": 1})).await;
    assert!(next().await.starts_with("a Running 0/1"));
    let true_ = |type_: &str| json!({"type": type_, "status": "True"});
    set_status(
        &cluster,
        json!({"active": 0, "succeeded": 1, "completionTime": "2026-01-01T00:00:07Z",
            "conditions": [true_("SuccessCriteriaMet"), true_("Complete")]}),
    )
    .await;
    assert!(next().await.starts_with("a Complete 1/1 7s"));
    cluster.jobs().create(&PostParams::default(), &job("b")).await.unwrap();
    assert!(next().await.starts_with("b Running 0/1"));
    child.kill().await.unwrap();
}

/// The Job's process pauses between two lines. `logs -f` prints the first line, follows, then ends.
#[tokio::test(flavor = "multi_thread")]
async fn logs_follow_until_the_container_ends() {
    let cluster = Cluster::new().await;
    let Some(kubectl) = Kubectl::of(&cluster) else { return };
    let shutdown = CancellationToken::new();
    let _stop = shutdown.clone().drop_guard();
    let images = BTreeMap::from([("i".to_owned(), Program::new("/bin/sh"))]);
    let options = kubelet::Options { images, ..kubelet::Options::default() };
    let kubelet = Kubelet::new(cluster.cluster.internal_client("default"), options).unwrap();
    cluster.cluster.register_logs(kubelet.logs());
    tokio::spawn(kubelet.run(shutdown.clone()));
    let client = cluster.cluster.internal_client("default");
    tokio::spawn(controller::run(client, controller::Options::default(), shutdown));

    let resume = kubectl.folder.path().join("resume");
    let script = format!("echo first; until [ -e {} ]; do sleep 0.05; done; echo second", resume.display());
    let container = json!([{"name": "c", "image": "i", "imagePullPolicy": "Never", "args": ["-c", script]}]);
    let change = json!({"spec": {"template": {"spec": {"containers": container}}}});
    cluster.jobs().create(&PostParams::default(), &job_with("a", change)).await.unwrap();
    // The log of a pod that has not started is unavailable.
    timeout(TIMEOUT, async {
        while !kubectl.command(&["logs", "job/a"]).output().await.unwrap().stdout.starts_with(b"first") {}
    })
    .await
    .expect("timed out");

    let mut command = kubectl.command(&["logs", "-f", "job/a"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || timeout(TIMEOUT, lines.next_line()).await.expect("timed out").unwrap();
    assert_eq!(next().await.as_deref(), Some("first"));
    std::fs::write(resume, "").unwrap();
    assert_eq!(next().await.as_deref(), Some("second"));
    assert_eq!(next().await, None, "the container has ended");
    assert!(timeout(TIMEOUT, child.wait()).await.expect("timed out").unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn describe_shows_a_job_with_its_events() {
    let cluster = Cluster::new().await;
    let Some(kubectl) = Kubectl::of(&cluster) else { return };
    let created = cluster.create("a").await;
    let event = json!({"metadata": {"generateName": "a."}, "type": "Warning", "reason": "BackoffLimitExceeded",
        "message": "Job has reached the specified backoff limit", "source": {"component": "job-controller"},
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z", "count": 1,
        "involvedObject": {"apiVersion": "batch/v1", "kind": "Job", "namespace": "default", "name": "a",
            "uid": created.metadata.uid}});
    let events: kube::Api<k8s_openapi::api::core::v1::Event> =
        kube::Api::default_namespaced(cluster.client());
    events.create(&PostParams::default(), &serde_json::from_value(event).unwrap()).await.unwrap();
    let text = kubectl.run(&["describe", "job", "a"]).await;
    let lines: Vec<_> = text.lines().map(collapse).collect();
    for line in ["Name: a", "Namespace: default", "Parallelism: 1", "Completions: 1", "Image: i"] {
        assert!(lines.iter().any(|found| found == line), "{line}: {text}");
    }
    assert!(text.contains("BackoffLimitExceeded"), "{text}");
    let pod = pod_of(&created, "a-x", json!({}));
    cluster.pods().create(&PostParams::default(), &pod).await.unwrap();
    assert!(kubectl.run(&["describe", "pod", "a-x"]).await.contains("Controlled By:  Job/a"));
    let error = kubectl.command(&["describe", "job", "b"]).output().await.unwrap();
    assert!(String::from_utf8_lossy(&error.stderr).contains("jobs.batch \"b\" not found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_removes_a_job_with_its_pods() {
    let cluster = Cluster::new().await;
    let Some(kubectl) = Kubectl::of(&cluster) else { return };
    for cascade in ["background", "foreground"] {
        let created = cluster.create("a").await;
        let pod = pod_of(&created, "a-x", json!({"spec": {"nodeName": "here"}}));
        cluster.pods().create(&PostParams::default(), &pod).await.unwrap();
        let end_pod = async {
            // The kubelet would remove the pod after its containers have ended.
            while cluster.pods().get("a-x").await.unwrap().metadata.deletion_timestamp.is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let at_once = kube::api::DeleteParams::default().grace_period(0);
            cluster.pods().delete("a-x", &at_once).await.unwrap();
        };
        let cascade = format!("--cascade={cascade}");
        let arguments = ["delete", "job", "a", &cascade];
        let (text, ()) = tokio::join!(kubectl.run(&arguments), end_pod);
        assert!(text.contains("job.batch \"a\" deleted"), "{text}");
        assert!(cluster.jobs().get_opt("a").await.unwrap().is_none());
        assert!(cluster.pods().get_opt("a-x").await.unwrap().is_none());
    }
}

const MANIFEST: &str = "\
apiVersion: batch/v1
kind: Job
metadata:
  name: a
  labels: {team: one}
spec:
  template:
    spec:
      restartPolicy: Never
      containers:
        - {name: c, image: i, env: [{name: A, value: b}]}
";

#[tokio::test(flavor = "multi_thread")]
async fn dry_runs_on_the_server_validate_and_store_nothing() {
    let cluster = Cluster::new().await;
    let Some(kubectl) = Kubectl::of(&cluster) else { return };
    let file = kubectl.file("job.yaml", MANIFEST);
    for command in [vec!["apply"], vec!["create"], vec!["apply", "--server-side"]] {
        let dry_run = |file: &str| [command.as_slice(), &["--dry-run=server", "-f", file]].concat().join(" ");
        let run = dry_run(&file);
        let text = kubectl.run(&run.split(' ').collect::<Vec<_>>()).await;
        let expected = if command.len() == 2 { "serverside-applied" } else { "created" };
        assert_eq!(text.trim(), format!("job.batch/a {expected} (server dry run)"), "{command:?}");
        assert!(cluster.jobs().get_opt("a").await.unwrap().is_none(), "{command:?} stored the Job");
        for (wrong, error) in [
            (
                MANIFEST.replace("value: b", "vlaue: b"),
                "unknown field \"spec.template.spec.containers[0].env[0].vlaue\"",
            ),
            (MANIFEST.replace("Never", "Always"), "spec.restartPolicy: Required value"),
            (MANIFEST.replace("name: c", "name: C"), "spec.template.spec.containers[0].name"),
        ] {
            let run = dry_run(&kubectl.file("wrong.yaml", &wrong));
            let output = kubectl.command(&run.split(' ').collect::<Vec<_>>()).output().await.unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && stderr.contains(error), "{command:?} {error}: {stderr}");
        }
    }
    // A dry run of a change shows it and keeps the stored object.
    kubectl.run(&["apply", "-f", &file]).await;
    let changed = kubectl.file("changed.yaml", &MANIFEST.replace("team: one", "team: two"));
    let text = kubectl.run(&["apply", "--dry-run=server", "-f", &changed]).await;
    assert_eq!(text.trim(), "job.batch/a configured (server dry run)");
    assert_eq!(cluster.jobs().get("a").await.unwrap().metadata.labels.unwrap()["team"], "one");
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_creates_then_changes_a_job() {
    let cluster = Cluster::new().await;
    let Some(kubectl) = Kubectl::of(&cluster) else { return };
    let file = kubectl.file("job.yaml", MANIFEST);
    assert_eq!(kubectl.run(&["apply", "-f", &file]).await.trim(), "job.batch/a created");
    assert_eq!(kubectl.run(&["apply", "-f", &file]).await.trim(), "job.batch/a unchanged");
    let changed = kubectl.file("changed.yaml", &MANIFEST.replace("team: one", "team: two"));
    assert_eq!(kubectl.run(&["apply", "-f", &changed]).await.trim(), "job.batch/a configured");
    assert_eq!(cluster.jobs().get("a").await.unwrap().metadata.labels.unwrap()["team"], "two");
    let output = kubectl.command(&["create", "-f", &file]).output().await.unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("AlreadyExists"), "{output:?}");
    // A warning does not prevent the write.
    let typo =
        kubectl.file("typo.yaml", &MANIFEST.replace("name: a", "name: b").replace("value: b", "vlaue: b"));
    let text = kubectl.run(&["apply", "--validate=warn", "-f", &typo]).await;
    assert!(text.contains("Warning: unknown field") && text.contains("job.batch/b created"), "{text}");
}
