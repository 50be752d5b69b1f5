//! The shipped `prefixes.conf` and `clusters.conf`: two dispatchers on one server, in one account by
//! prefixes and in two accounts, whose clients use the same subjects.

use async_nats::{Client, HeaderMap, jetstream};
use dispatcher_tests::dispatcher::Dispatcher;
use dispatcher_tests::job_controller::{finished_status, managed_template};
use dispatcher_tests::kubernetes::Namespace;
use dispatcher_tests::nats::Nats;
use dispatcher_tests::test_env::TestEnv;
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{Kubernetes, or_skip, paths, until};
use futures::StreamExt;
use serde_json::Value;

use super::config_folder::{ConfigFolder, client, options, password, publish, send_operation};

const INSTALLATIONS: [&str; 2] = ["blue", "green"];

/// Calls `<installation>.jobs.simple.<verb>`.
async fn call(client: &Client, installation: &str, verb: &str, payload: &str, wait: &str) -> Value {
    let mut headers = HeaderMap::new();
    if !wait.is_empty() {
        headers.insert("Job-Wait", wait);
    }
    let subject = format!("{installation}.jobs.simple.{verb}");
    let request = async_nats::Request::new().headers(headers).payload(payload.to_owned().into());
    let answer = client.send_request(subject, request.timeout(Some(TIMEOUT))).await.unwrap();
    let error = answer.headers.and_then(|headers| headers.get("Nats-Service-Error").cloned());
    assert!(error.is_none(), "{installation} {verb}: {error:?}");
    serde_json::from_slice(&answer.payload).unwrap()
}

async fn start(nats: &Nats, namespace: &Namespace, user: &str, prefix: &str) -> Dispatcher {
    let builder = Dispatcher::builder(nats, namespace);
    let builder = builder.env("NATS_USER", user).env("NATS_PASSWORD", &password(user));
    builder.env("DISPATCHER_PREFIX", prefix).start().await
}

/// Runs the same requests at both dispatchers: each creates its own Job, and publishes on its own
/// subjects.
async fn both_run_the_same_requests(nats: &Nats, namespaces: &[Namespace; 2]) {
    let client = client(nats, "client").await;
    let mut all = client.subscribe("*.jobs.>").await.unwrap();
    client.flush().await.unwrap();
    for (installation, namespace) in INSTALLATIONS.iter().zip(namespaces) {
        let outcome = call(&client, installation, "submit", r#"{"foo":"a"}"#, "outcome").await;
        assert_eq!(outcome["outcome"]["result"], "Complete", "{installation}: {outcome}");
        assert_eq!(outcome["namespace"], namespace.name.as_str(), "{installation}");
        let last = call(&client, installation, "get", r#"{"name":"simple-job-a"}"#, "").await;
        assert_eq!(last["uid"], outcome["uid"], "{installation}");
        let stored = client.request(format!("{installation}.jobs.simple.create"), "{}".into()).await.unwrap();
        let stored: Value = serde_json::from_slice(&stored.payload).unwrap();
        assert!(stored["error"].is_null(), "{installation}: {stored}");
    }
    let expected: Vec<String> = INSTALLATIONS
        .iter()
        .flat_map(|name| {
            [format!("{name}.jobs.simple.status.simple-job-a"), format!("{name}.jobs.simple.rejected.2")]
        })
        .collect();
    let mut seen = std::collections::BTreeSet::new();
    let everything = async {
        while !expected.iter().all(|subject| seen.contains(subject)) {
            seen.insert(all.next().await.expect("the subscription ended").subject.to_string());
        }
    };
    assert!(tokio::time::timeout(TIMEOUT, everything).await.is_ok(), "seen: {seen:?}");
}

async fn namespaces() -> Result<[Namespace; 2], String> {
    let cluster = Kubernetes::shared().await?;
    Ok([cluster.namespace().await, cluster.namespace().await])
}

#[tokio::test(flavor = "multi_thread")]
async fn two_dispatchers_share_an_account_by_prefixes() {
    let namespaces = or_skip!(namespaces().await);
    let nats = ConfigFolder::new().by_password("prefixes.conf").await;
    let dispatchers = [
        start(&nats, &namespaces[0], "blue", "blue").await,
        start(&nats, &namespaces[1], "green", "green").await,
    ];

    both_run_the_same_requests(&nats, &namespaces).await;

    let administrator = options("administrator").connect(&nats.url).await.unwrap();
    let mut streams: Vec<String> =
        jetstream::new(administrator.clone()).stream_names().map(|name| name.unwrap()).collect().await;
    streams.sort();
    let mut expected: Vec<String> = INSTALLATIONS
        .iter()
        .flat_map(|name| {
            ["JOBS", "JOB_STATUS", "JOB_REJECTED"]
                .map(|stream| format!("{name}_{stream}"))
                .into_iter()
                .chain([format!("KV_{name}_JOB_CANCELS")])
        })
        .collect();
    expected.sort();
    assert_eq!(streams, expected);
    for name in INSTALLATIONS {
        let info = administrator.request(format!("$SRV.INFO.{name}_dispatcher"), "".into()).await.unwrap();
        let info: Value = serde_json::from_slice(&info.payload).unwrap();
        let endpoint = info["endpoints"][0]["subject"].as_str().unwrap().to_owned();
        assert!(endpoint.starts_with(&format!("{name}.jobs.")), "{endpoint}");
    }

    // Neither may use a subject or a stream of the other one.
    for (own, other) in [("blue", "green"), ("green", "blue")] {
        for subject in [
            "{}.jobs.simple.create",
            "{}.dispatcher.event.simple.a",
            "$JS.API.STREAM.INFO.{}_JOBS",
            "$JS.API.CONSUMER.MSG.NEXT.{}_JOBS.dispatcher-simple",
            "$JS.ACK.{}_JOBS.dispatcher-simple.1.1.1.1.0",
            "$KV.{}_JOB_CANCELS.x",
        ] {
            let [allowed, refused] = [own, other].map(|name| subject.replace("{}", name));
            let sent = send_operation(&nats, own, &publish(&refused, "", "")).await;
            assert!(sent.is_err_and(|error| error.contains("Permissions Violation")), "{own}: {refused}");
            send_operation(&nats, own, &publish(&allowed, "", "")).await.unwrap();
        }
    }
    for dispatcher in dispatchers {
        assert_eq!(dispatcher.terminate().await, Some(0), "{}", dispatcher.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_dispatchers_in_two_accounts_have_the_same_streams() {
    let namespaces = or_skip!(namespaces().await);
    let nats = ConfigFolder::new().by_password("clusters.conf").await;
    let _dispatchers =
        [start(&nats, &namespaces[0], "blue", "").await, start(&nats, &namespaces[1], "green", "").await];

    both_run_the_same_requests(&nats, &namespaces).await;

    for user in ["administrator", "green-administrator"] {
        let administrator = jetstream::new(options(user).connect(&nats.url).await.unwrap());
        let mut jobs = administrator.get_stream("JOBS").await.unwrap();
        let state = jobs.info().await.unwrap().state.clone();
        assert_eq!(state.last_sequence, 2, "{user}: each stream has its own two requests");
    }
}

#[test]
fn permissions_with_a_prefix_are_those_of_the_program() {
    for name in INSTALLATIONS {
        let folder = paths::temp_dir("roles").unwrap();
        let mut command = std::process::Command::new(paths::built("dispatcher").unwrap());
        command.args(["nats-config", "--roles", "--prefix", name, "--output"]).arg(folder.path());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let shipped = paths::workspace().join("nats-config/prefixes").join(name).join("dispatcher.conf");
        let [generated, shipped] = [folder.path().join("dispatcher.conf"), shipped]
            .map(|file| std::fs::read_to_string(file).unwrap());
        assert_eq!(generated, shipped, "nats-config/prefixes is stale: run `make nats-config`");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_from_before_a_new_prefix_have_their_outcome_under_it() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let before = env.dispatcher().templates(&templates).start().await;
    env.request(r#"{"foo":"a"}"#).await;
    env.until_last("simple-job-a", "ADDED").await;
    env.until_queue_is_empty().await;
    assert_eq!(before.terminate().await, Some(0));

    let _after = env.dispatcher().templates(&templates).env("DISPATCHER_PREFIX", "blue").start().await;
    env.set_status("simple-job-a", finished_status("Complete", 0, "CompletionsReached", "message")).await;

    until("the outcome under the prefix", TIMEOUT, || async {
        let stream = env.jetstream.get_stream("blue_JOB_STATUS").await.map_err(|e| e.to_string())?;
        let last = stream.get_last_raw_message_by_subject("blue.jobs.simple.status.simple-job-a").await;
        let last = last.map_err(|e| e.to_string())?;
        let event = last.headers.get("Job-Event").map(ToString::to_string);
        if event.as_deref() == Some("OUTCOME") { Ok(()) } else { Err(format!("{event:?}")) }
    })
    .await;
}
