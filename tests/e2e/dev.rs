//! `dispatcher dev`, as a process with its children: NATS, the local cluster and the dispatcher.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use async_nats::jetstream;
use dispatcher_tests::helper::{Helper, Program};
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{only_on_local, or_skip};
use dispatcher_tests::{paths, ports, until};
use k8s_openapi::api::batch::v1::Job;
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A running `dispatcher dev`. Dropping it ends the process and its children.
pub(crate) struct Dev {
    helper: Helper,
    /// The ports of NATS, of the API and of the dispatcher.
    pub(crate) ports: [u16; 3],
    folder: TempDir,
}

impl Dev {
    /// Starts on free ports, with `data` as the folder for persistent streams.
    pub(crate) async fn start(data: &Path, flags: &[&str]) -> Self {
        let folder = paths::temp_dir("dev").unwrap();
        let ports = [ports::free(), ports::free(), ports::free()];
        let named = ["--nats-port", "--api-port", "--admin-port"].into_iter().zip(ports);
        let mut args = vec!["dev".to_owned(), "--time-scale=0.01".to_owned(), "--restart-delay=0".to_owned()];
        args.extend(named.map(|(flag, port)| format!("{flag}={port}")));
        let templates = paths::workspace().join("deploy/templates");
        args.push(format!("--templates={}", templates.display()));
        args.extend(flags.iter().map(ToString::to_string));
        let env = [("XDG_DATA_HOME", data)];
        let program = Program {
            name: "dev".to_owned(),
            path: paths::built("dispatcher").unwrap(),
            args,
            env: env.map(|(name, path)| (name.to_owned(), path.display().to_string())).to_vec(),
            log: folder.path().join("dev.log"),
            folder: Some(folder.path().to_owned()),
        };
        let program = serde_json::to_string(&program).unwrap();
        let (helper, _) = Helper::start(&["run", &program], &[], TIMEOUT).await.unwrap();
        let dev = Self { helper, ports, folder };
        dev.until_starts(1).await;
        dev
    }

    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("dev.log")).unwrap()
    }

    /// Waits for an output line that contains all `parts`.
    pub(crate) async fn until_line_contains(&self, parts: &[&str]) {
        until(&format!("an output line with {parts:?}"), TIMEOUT, || async {
            let output = self.output();
            let found = output.lines().any(|line| parts.iter().all(|part| line.contains(part)));
            if found { Ok(()) } else { Err(output) }
        })
        .await;
    }

    /// The process ids of the dispatcher, one for each start: the output has the command that kills it.
    fn dispatcher_pids(&self) -> Vec<String> {
        let output = self.output();
        let commands = output.lines().filter(|line| !line.contains("nats-server"));
        let pids = commands.filter_map(|line| Some(line.split_once("kill -9 ")?.1));
        let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect();
        pids.map(digits).collect()
    }

    /// Waits for this number of starts of the dispatcher.
    async fn until_starts(&self, count: usize) {
        until(&format!("{count} starts of the dispatcher"), TIMEOUT, || async {
            if self.dispatcher_pids().len() == count { Ok(()) } else { Err(self.output()) }
        })
        .await;
    }

    pub(crate) async fn jetstream(&self) -> jetstream::Context {
        jetstream::new(async_nats::connect(format!("nats://127.0.0.1:{}", self.ports[0])).await.unwrap())
    }

    async fn request(&self, payload: &'static str) {
        // The connection must outlive the acknowledgement.
        let jetstream = self.jetstream().await;
        let sent = jetstream.publish("jobs.simple.create", payload.into()).await.unwrap();
        sent.await.expect("the request is not stored");
    }

    /// Waits until the last event of a Job has this type.
    pub(crate) async fn last(&self, job: &str, wanted: &str) -> Value {
        let jetstream = self.jetstream().await;
        let stream = jetstream.get_stream("JOB_STATUS").await.unwrap();
        let subject = format!("jobs.simple.status.{job}");
        until(&format!("{wanted} of {job}"), TIMEOUT, || async {
            let message =
                stream.get_last_raw_message_by_subject(&subject).await.map_err(|e| e.to_string())?;
            let event: Value = serde_json::from_slice(&message.payload).map_err(|e| e.to_string())?;
            if event["type"] == wanted { Ok(event) } else { Err(event.to_string()) }
        })
        .await
    }

    /// The path that the output shows.
    fn kubeconfig(&self) -> PathBuf {
        let output = self.output();
        let path = output.lines().find_map(|line| line.strip_prefix("Kubeconfig: "));
        path.expect("the output has the path of the kubeconfig").into()
    }

    async fn client(&self, change: impl FnOnce(&mut Config)) -> Client {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig()).unwrap();
        let mut config =
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        change(&mut config);
        Client::try_from(config).unwrap()
    }

    /// The names of the Jobs in the local cluster.
    pub(crate) async fn job_names(&self) -> Vec<String> {
        let jobs: Api<Job> = Api::all(self.client(|_| ()).await);
        let listed = jobs.list(&ListParams::default()).await.unwrap();
        listed.items.into_iter().filter_map(|job| job.metadata.name).collect()
    }

    /// Sends SIGINT, as Ctrl-C does, and returns the exit code.
    async fn interrupt(&self) -> Value {
        self.helper.must("int").await;
        self.helper.must("wait").await["code"].clone()
    }

    async fn until_ports_are_closed(&self) {
        let closed = || async {
            let open = |port: &&u16| TcpStream::connect((Ipv4Addr::LOCALHOST, **port)).is_ok();
            self.ports.iter().find(open).map_or(Ok(()), Err)
        };
        until("all ports to be closed", TIMEOUT, closed).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dispatcher_dev_runs_jobs_restarts_a_killed_dispatcher_and_stops_on_ctrl_c() {
    only_on_local!("dispatcher dev starts its own local cluster");
    let data = paths::temp_dir("data").unwrap();
    let dev = Dev::start(data.path(), &["--temporary", "--sleep-seconds=0"]).await;
    dev.request(r#"{"foo":"one"}"#).await;
    assert_eq!(dev.last("simple-job-one", "OUTCOME").await["outcome"]["result"], "Complete");
    dev.until_line_contains(&["simple-job-one", "Complete", "CompletionsReached"]).await;

    // Kill the dispatcher with the command that the banner shows.
    let pid = &dev.dispatcher_pids()[0];
    assert!(Command::new("kill").args(["-9", pid]).status().unwrap().success());
    // A request delivered to the killed process would be redelivered only after `ack_wait`.
    dev.until_line_contains(&["dispatcher", "signal 9"]).await;
    dev.request(r#"{"foo":"two"}"#).await;
    dev.until_starts(2).await;
    assert_eq!(dev.last("simple-job-two", "OUTCOME").await["outcome"]["result"], "Complete");

    assert_eq!(dev.interrupt().await, 0, "{}", dev.output());
    dev.until_ports_are_closed().await;
    assert!(std::fs::read_dir(data.path()).unwrap().next().is_none(), "--temporary left files");
}

#[tokio::test(flavor = "multi_thread")]
async fn second_start_on_persistent_streams_publishes_deleted_outcomes_of_missing_jobs() {
    only_on_local!("dispatcher dev starts its own local cluster");
    let data = paths::temp_dir("data").unwrap();
    let dev = Dev::start(data.path(), &["--sleep-seconds=3600"]).await;
    dev.request(r#"{"foo":"long"}"#).await;
    dev.last("simple-job-long", "MODIFIED").await;
    assert_eq!(dev.interrupt().await, 0, "{}", dev.output());

    let dev = Dev::start(data.path(), &["--sleep-seconds=0"]).await;
    assert_eq!(dev.last("simple-job-long", "OUTCOME").await["outcome"]["result"], "Deleted");
    dev.request(r#"{"foo":"short"}"#).await;
    assert_eq!(dev.last("simple-job-short", "OUTCOME").await["outcome"]["result"], "Complete");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_dispatcher_dev_leaves_no_process() {
    only_on_local!("dispatcher dev starts its own local cluster");
    let data = paths::temp_dir("data").unwrap();
    let dev = Dev::start(data.path(), &["--temporary", "--sleep-seconds=3600"]).await;
    dev.request(r#"{"foo":"orphan"}"#).await;
    dev.last("simple-job-orphan", "MODIFIED").await;
    dev.helper.must("kill").await;
    dev.until_ports_are_closed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_user_of_dispatcher_dev_may_call_the_api() {
    only_on_local!("dispatcher dev starts its own local cluster");
    let data = paths::temp_dir("data").unwrap();
    for flags in [&["--temporary"][..], &[]] {
        let dev = Dev::start(data.path(), flags).await;
        let mode = std::fs::metadata(dev.kubeconfig()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{flags:?}");
        assert_eq!(dev.kubeconfig().starts_with(data.path()), flags.is_empty(), "{flags:?}");
        let stranger = dev.client(|config| config.auth_info.token = None).await;
        let error = stranger.apiserver_version().await.unwrap_err();
        assert!(matches!(&error, kube::Error::Api(status) if status.code == 401), "{error:?}");
        assert_eq!(dev.job_names().await, [""; 0]);
        assert_eq!(dev.interrupt().await, 0, "{}", dev.output());
    }
}

/// The commands of docs/templates.md and of the banner, with the printed kubeconfig.
#[tokio::test(flavor = "multi_thread")]
async fn documented_kubectl_commands_work() {
    only_on_local!("dispatcher dev starts its own local cluster");
    let kubectl = or_skip!(kubectl());
    let data = paths::temp_dir("data").unwrap();
    let dev = Dev::start(data.path(), &["--temporary", "--sleep-seconds=0"]).await;
    let run = |arguments: &str| {
        let mut command = Command::new("sh");
        command.arg("-c").arg(arguments).current_dir(paths::workspace());
        command.env("dispatcher", paths::built("dispatcher").unwrap()).env("HOME", data.path());
        command.env("KUBECTL", &kubectl).env("KUBECONFIG", dev.kubeconfig());
        let output = command.output().unwrap();
        let [stdout, stderr] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        assert!(output.status.success(), "{arguments}: {stdout} {stderr}");
        stdout
    };
    let check = r#""$dispatcher" check deploy/templates/simple.yaml --render '{"foo":"x"}'"#;
    let dry_run = format!("{check} | $KUBECTL apply --namespace jobs --dry-run=server -f -");
    assert_eq!(run(&dry_run).trim(), "job.batch/simple-job-x created (server dry run)");
    assert_eq!(dev.job_names().await, [""; 0]);
    dev.request(r#"{"foo":"x"}"#).await;
    dev.last("simple-job-x", "OUTCOME").await;
    assert!(run("$KUBECTL get jobs").contains("simple-job-x"));
    assert!(!run("$KUBECTL logs job/simple-job-x").is_empty());
}

#[test]
fn all_ports_in_use_are_reported_together() {
    let data = paths::temp_dir("data").unwrap();
    let listeners = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    let [nats, api] = listeners.each_ref().map(|listener| listener.local_addr().unwrap().port());
    let output = Command::new(paths::built("dispatcher").unwrap())
        .args(["dev", &format!("--nats-port={nats}"), &format!("--api-port={api}")])
        .env("XDG_DATA_HOME", data.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stderr.lines().count(), 2, "{stderr}");
    for (line, (flag, port)) in stderr.lines().zip([("--nats-port", nats), ("--api-port", api)]) {
        assert!(line.starts_with(&format!("dispatcher: {flag}: ")), "{line}");
        assert!(line.contains(&port.to_string()), "{line}");
    }
    assert_eq!(json!(output.status.code()), 2);
}

/// The command of `kubectl`, as words of a shell.
fn kubectl() -> Result<String, String> {
    match paths::program("kubectl") {
        Ok(path) => Ok(path.display().to_string()),
        Err(_) => Ok(format!("{} kubectl", paths::kubernetes()?.display())),
    }
}
