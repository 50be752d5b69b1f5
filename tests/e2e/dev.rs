//! `dispatcher dev`, as a process with its children: NATS, the local cluster and the dispatcher.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use async_nats::jetstream;
use dispatcher_tests::helper::{Helper, Program};
use dispatcher_tests::only_on_local;
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{paths, ports, until};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A running `dispatcher dev`. Dropping it ends the process and its children.
struct Dev {
    helper: Helper,
    ports: [u16; 3],
    folder: TempDir,
}

impl Dev {
    /// Starts on free ports, with `data` as the folder for persistent streams.
    async fn start(data: &Path, flags: &[&str]) -> Self {
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

    fn output(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("dev.log")).unwrap()
    }

    /// Waits for an output line that contains all `parts`.
    async fn until_line_contains(&self, parts: &[&str]) {
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

    async fn jetstream(&self) -> jetstream::Context {
        jetstream::new(async_nats::connect(format!("nats://127.0.0.1:{}", self.ports[0])).await.unwrap())
    }

    async fn request(&self, payload: &'static str) {
        // The connection must outlive the acknowledgement.
        let jetstream = self.jetstream().await;
        let sent = jetstream.publish("jobs.simple.create", payload.into()).await.unwrap();
        sent.await.expect("the request is not stored");
    }

    /// Waits until the last event of a Job has this type.
    async fn last(&self, job: &str, wanted: &str) -> Value {
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
