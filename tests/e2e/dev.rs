//! `dispatcher dev`, the real program, with what it starts: NATS, the local cluster, the dispatcher.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use async_nats::jetstream;
use dispatcher_tests::helper::{Helper, Program};
use dispatcher_tests::only_on_local;
use dispatcher_tests::{paths, ports, until};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::world::PATIENCE;

/// A running `dispatcher dev`; it ends with this, and what it has started with it.
struct Dev {
    helper: Helper,
    ports: [u16; 3],
    folder: TempDir,
}

impl Dev {
    /// On free ports; it keeps its streams in `data`, if anywhere.
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
        let (helper, _) = Helper::start(&["run", &program], &[], PATIENCE).await.unwrap();
        let dev = Self { helper, ports, folder };
        dev.until_it_says("Ready after").await;
        dev
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("dev.log")).unwrap()
    }

    async fn until_it_says(&self, text: &str) {
        let look = || async { self.said().contains(text).then_some(()).ok_or_else(|| self.said()) };
        until(text, PATIENCE, look).await;
    }

    async fn jetstream(&self) -> jetstream::Context {
        jetstream::new(async_nats::connect(format!("nats://127.0.0.1:{}", self.ports[0])).await.unwrap())
    }

    async fn request(&self, payload: &'static str) {
        // Kept until the answer has come.
        let jetstream = self.jetstream().await;
        let sent = jetstream.publish("jobs.simple.create", payload.into()).await.unwrap();
        sent.await.expect("the request is stored");
    }

    /// The last event of a Job, once it is of this type.
    async fn last(&self, job: &str, wanted: &str) -> Value {
        let jetstream = self.jetstream().await;
        let stream = jetstream.get_stream("JOB_STATUS").await.unwrap();
        let subject = format!("jobs.simple.status.{job}");
        until(&format!("{wanted} of {job}"), PATIENCE, || async {
            let message =
                stream.get_last_raw_message_by_subject(&subject).await.map_err(|e| e.to_string())?;
            let event: Value = serde_json::from_slice(&message.payload).map_err(|e| e.to_string())?;
            if event["type"] == wanted { Ok(event) } else { Err(event.to_string()) }
        })
        .await
    }

    /// A Ctrl-C; its exit code.
    async fn interrupt(&self) -> Value {
        self.helper.must("int").await;
        self.helper.must("wait").await["code"].clone()
    }

    async fn until_nothing_listens(&self) {
        let gone = || async {
            let open = |port: &&u16| TcpStream::connect((Ipv4Addr::LOCALHOST, **port)).is_ok();
            self.ports.iter().find(open).map_or(Ok(()), Err)
        };
        until("nothing to listen", PATIENCE, gone).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_command_runs_all_that_a_job_needs_and_ctrl_c_stops_it() {
    only_on_local!("dispatcher dev brings a local cluster of its own");
    let nowhere = paths::temp_dir("data").unwrap();
    let dev = Dev::start(nowhere.path(), &["--temporary", "--sleep-seconds=0"]).await;
    dev.request(r#"{"foo":"one"}"#).await;
    assert_eq!(dev.last("simple-job-one", "OUTCOME").await["outcome"]["result"], "Complete");
    dev.until_it_says("simple/simple-job-one  Complete CompletionsReached").await;

    // The dispatcher is killed, as by whoever types what was shown.
    let said = dev.said();
    let (_, pid) = said.split_once("kill -9 ").unwrap();
    let pid = pid.split_whitespace().next().unwrap();
    assert!(Command::new("kill").args(["-9", pid]).status().unwrap().success());
    // Not before: what is delivered to one that has just died comes again only after the consumer's `ack_wait`.
    dev.until_it_says("the dispatcher was killed by signal 9").await;
    dev.request(r#"{"foo":"two"}"#).await;
    dev.until_it_says("restarted the dispatcher").await;
    assert_eq!(dev.last("simple-job-two", "OUTCOME").await["outcome"]["result"], "Complete");

    assert_eq!(dev.interrupt().await, 0, "{}", dev.said());
    dev.until_nothing_listens().await;
    assert!(std::fs::read_dir(nowhere.path()).unwrap().next().is_none(), "it keeps nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_on_the_kept_streams_tells_of_jobs_that_are_gone() {
    only_on_local!("dispatcher dev brings a local cluster of its own");
    let data = paths::temp_dir("data").unwrap();
    let dev = Dev::start(data.path(), &["--sleep-seconds=3600"]).await;
    dev.request(r#"{"foo":"long"}"#).await;
    dev.last("simple-job-long", "MODIFIED").await;
    assert_eq!(dev.interrupt().await, 0, "{}", dev.said());

    let dev = Dev::start(data.path(), &["--sleep-seconds=0"]).await;
    assert_eq!(dev.last("simple-job-long", "OUTCOME").await["outcome"]["result"], "Deleted");
    dev.request(r#"{"foo":"short"}"#).await;
    assert_eq!(dev.last("simple-job-short", "OUTCOME").await["outcome"]["result"], "Complete");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_it_stays_where_it_is_killed() {
    only_on_local!("dispatcher dev brings a local cluster of its own");
    let data = paths::temp_dir("data").unwrap();
    let dev = Dev::start(data.path(), &["--temporary", "--sleep-seconds=3600"]).await;
    dev.request(r#"{"foo":"orphan"}"#).await;
    dev.last("simple-job-orphan", "MODIFIED").await;
    dev.helper.must("kill").await;
    dev.until_nothing_listens().await;
}

#[test]
fn everything_that_is_taken_is_told_at_once() {
    let data = paths::temp_dir("data").unwrap();
    let taken = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    let [nats, api] = taken.each_ref().map(|listener| listener.local_addr().unwrap().port());
    let output = Command::new(paths::built("dispatcher").unwrap())
        .args(["dev", &format!("--nats-port={nats}"), &format!("--api-port={api}")])
        .env("XDG_DATA_HOME", data.path())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let line = |flag, port| {
        format!("dispatcher: {flag}: port {port} is in use; choose another one, or 0 for any free port\n")
    };
    assert_eq!(said, line("--nats-port", nats) + &line("--api-port", api));
    assert_eq!(json!(output.status.code()), 2);
}
