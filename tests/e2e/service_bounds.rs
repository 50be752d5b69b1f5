//! What one caller of the NATS service can cost the others: memory, look-ups, discovery.

use std::time::Duration;

use async_nats::jetstream::account::Account;
use async_nats::{Client, HeaderMap, Request};
use dispatcher_tests::job_controller::managed_template;
use dispatcher_tests::nats::Setup;
use dispatcher_tests::test_env::TestEnv;
use dispatcher_tests::wait::{TIMEOUT, until};
use dispatcher_tests::{Dispatcher, Kubernetes, Nats, dispatcher, or_skip, paths, ports};
use futures::StreamExt;
use futures::future::join_all;
use futures::stream;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::cancellation::pause_queue;
use crate::service_client::{call_service, code_and_error, try_call_service};

/// Copies of the template `simple` with other names.
fn copies(count: usize) -> tempfile::TempDir {
    let folder = paths::temp_dir("templates").unwrap();
    let simple = std::fs::read_to_string(paths::workspace().join("deploy/templates/simple.yaml")).unwrap();
    for n in 0..count {
        let copy = simple.replace("name: simple\n", &format!("name: simple-{n}\n"));
        assert_ne!(copy, simple);
        std::fs::write(folder.path().join(format!("simple-{n}.yaml")), copy).unwrap();
    }
    folder
}

async fn ask(client: &Client, subject: &str) -> Value {
    let answer = tokio::time::timeout(TIMEOUT, client.request(subject.to_owned(), "".into())).await;
    serde_json::from_slice(&answer.expect(subject).expect(subject).payload).expect("JSON")
}

async fn assert_discovery_answers(client: &Client, endpoints: usize) {
    // An answer that cannot be sent must not end the later ones.
    for _ in 0..2 {
        assert_eq!(ask(client, "$SRV.PING").await["name"], "dispatcher");
        for subject in ["$SRV.INFO.dispatcher", "$SRV.STATS", "$SRV.INFO", "$SRV.STATS.dispatcher"] {
            let answer = ask(client, subject).await;
            assert_eq!(answer["endpoints"].as_array().unwrap().len(), endpoints, "{subject}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_answers_with_120_templates() {
    let env = or_skip!(TestEnv::start().await);
    let folder = copies(120);
    let _dispatcher = env.dispatcher().templates(folder.path()).start().await;
    assert_discovery_answers(&env.client, 360).await;
    let id = ask(&env.client, "$SRV.PING").await["id"].as_str().unwrap().to_owned();
    assert_eq!(ask(&env.client, &format!("$SRV.INFO.dispatcher.{id}")).await["id"], id);
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_answers_with_a_small_max_payload() {
    let nats = Nats::process_configured("max_payload: 18432\n").await;
    let kubernetes = or_skip!(Kubernetes::shared().await);
    let env = TestEnv::new(nats, kubernetes.namespace().await).await;
    let folder = copies(120);
    let _dispatcher = env.dispatcher().templates(folder.path()).start().await;
    assert_discovery_answers(&env.client, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn call_larger_than_a_request_is_refused_on_arrival() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    let long = "x".repeat(70_000);
    for endpoint in ["submit", "get", "cancel"] {
        let answer = call_service(&env.client, endpoint, &[("Unused", &long)], r#"{"foo":"a"}"#).await;
        assert_eq!(code_and_error(answer), (413, "TooLarge".to_owned()), "{endpoint}");
        let answer = call_service(&env.client, endpoint, &[], &format!(r#"{{"foo":"{long}"}}"#)).await;
        assert_eq!(code_and_error(answer), (413, "TooLarge".to_owned()), "{endpoint}");
    }
    call_service(&env.client, "submit", &[], r#"{"foo":"a"}"#).await.expect("a small call");
}

/// The peak of the resident memory in MiB (proc(5)).
async fn peak_memory(dispatcher: &Dispatcher) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", dispatcher.pid().await)).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}

/// 200 callers with 990 kB of headers cost 200 MiB when each waiting call kept its message.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_callers_and_floods_of_large_calls_cost_little_memory() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let dispatcher = env.dispatcher().templates(templates).start().await;
    let before = peak_memory(&dispatcher).await;
    let (mut one_large, mut many_small) = (HeaderMap::new(), HeaderMap::new());
    one_large.insert("Unused", "x".repeat(990_000));
    (0..60_000).for_each(|_| many_small.append("Unused-Name", "x"));
    let call = |n: usize| {
        let headers = if n.is_multiple_of(2) { &one_large } else { &many_small };
        let payload = json!({ "foo": format!("large-{n}") }).to_string();
        let request = Request::new().headers(headers.clone()).payload(payload.into());
        env.client.send_request("jobs.simple.submit", request.timeout(Some(Duration::from_secs(10))))
    };
    // Few at a time: the server disconnects a client that reads slowly.
    let answers: Vec<_> = stream::iter(0..200).map(call).buffer_unordered(8).collect().await;
    let is_too_large = |answer: &async_nats::Message| {
        let error = answer.headers.as_ref().and_then(|headers| headers.get("Job-Error"));
        error.is_some_and(|error| error.as_str() == "TooLarge")
    };
    let refused = answers.iter().flatten().filter(|answer| is_too_large(answer)).count();
    assert!(refused > 0, "no large call was answered");

    // Waiting callers with the largest allowed call.
    let long = "x".repeat(60_000);
    let waiting = (0..200).map(|n| {
        let payload = json!({ "foo": format!("waits-{n}") }).to_string();
        let (client, long) = (env.client.clone(), long.clone());
        tokio::spawn(async move {
            let _ = call_service(&client, "submit", &[("Job-Wait", "outcome"), ("Unused", &long)], &payload)
                .await;
        })
    });
    let waiting: Vec<_> = waiting.collect();
    for n in [0, 199] {
        env.until_last(&format!("simple-job-waits-{n}"), "ADDED").await;
    }
    let after = peak_memory(&dispatcher).await;
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    assert!(after < before + 100, "peak memory: {before} MiB before, {after} MiB after");
}

/// The ids of the connections that receive no messages of strangers, or only stored ones.
async fn protected_connections(monitor: &str) -> Vec<u64> {
    let (_, body) = dispatcher::get(monitor, "/connz").await.unwrap();
    let body: Value = serde_json::from_str(&body).unwrap();
    let protected = ["dispatcher", "dispatcher intake simple", "dispatcher scans"];
    let connections = body["connections"].as_array().unwrap().iter();
    let found = connections.filter(|c| protected.iter().any(|name| c["name"] == *name));
    found.map(|c| c["cid"].as_u64().unwrap()).collect()
}

/// The image may use 512 MiB. The server disconnects a connection that reads too slowly.
#[tokio::test(flavor = "multi_thread")]
async fn flood_of_the_largest_messages_costs_bounded_memory_and_no_other_connection() {
    const CLIENTS: usize = 4;
    const FLOOD: usize = 500;
    let port = ports::free();
    let args = vec!["-m".to_owned(), port.to_string()];
    let nats = Nats::process_of(Setup { args, ..Setup::default() }).await;
    let env = TestEnv::new(nats, or_skip!(Kubernetes::shared().await).namespace().await).await;
    let (_folder, templates) = managed_template();
    let dispatcher = env.dispatcher().templates(templates).start().await;
    let monitor = format!("127.0.0.1:{port}");
    let (before, connections) = (peak_memory(&dispatcher).await, protected_connections(&monitor).await);
    assert_eq!(connections.len(), 3);
    let large = bytes::Bytes::from(vec![b'x'; 1_000_000]);
    let clients = join_all((0..CLIENTS).map(|_| env.nats.client())).await;
    for subject in ["jobs.simple.submit", "jobs.simple.status.a", "$SRV.PING"] {
        let floods = clients.iter().map(async |client| {
            for _ in 0..FLOOD {
                client.publish(subject, large.clone()).await.unwrap();
            }
            client.flush().await.unwrap();
        });
        join_all(floods).await;
    }
    // A request, a status event and an acknowledgement do not wait for the flood to be read.
    env.request(r#"{"foo":"a"}"#).await;
    env.until_last("simple-job-a", "ADDED").await;
    env.until_queue_is_empty().await;
    let after = peak_memory(&dispatcher).await;
    assert!(after < before + 300, "peak memory: {before} MiB before, {after} MiB after");
    assert_eq!(protected_connections(&monitor).await, connections);
    until("the service to answer again", TIMEOUT, || async {
        let wait = [("Job-Wait", "created")];
        let limit = Duration::from_secs(5);
        let call = try_call_service(&env.client, "jobs.simple.submit", &wait, r#"{"foo":"b"}"#, limit).await;
        call.map_err(|e| e.to_string())?.map(drop).map_err(|e| e.message)
    })
    .await;
}

async fn jetstream_calls(env: &TestEnv) -> usize {
    let account: Account = env.jetstream.query_account().await.unwrap();
    account.requests.total.try_into().unwrap()
}

/// Each call for an unknown name read the whole queue.
#[tokio::test(flavor = "multi_thread")]
async fn look_ups_of_unknown_jobs_read_the_queue_once_for_all_callers() {
    const QUEUED: usize = 1000;
    const CALLS: usize = 200;
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    pause_queue(&env).await;
    for n in 0..QUEUED {
        env.request_with_id(&format!("queued-{n}"), &format!(r#"{{"foo":"queued-{n}"}}"#)).await;
    }
    let before = jetstream_calls(&env).await;
    let calls = (0..CALLS).map(|n| {
        let (endpoint, query) = match n % 3 {
            0 => ("get", json!({ "name": format!("unknown-{n}") })),
            1 => ("cancel", json!({ "name": format!("unknown-{n}") })),
            _ => ("cancel", json!({ "requestId": format!("unknown-{n}") })),
        };
        let client = &env.client;
        async move { call_service(client, endpoint, &[], &query.to_string()).await }
    });
    for answer in join_all(calls).await {
        let (code, error) = code_and_error(answer);
        assert!(matches!((code, error.as_str()), (404, "NotFound") | (503, "Overloaded")), "{code} {error}");
    }
    let calls = jetstream_calls(&env).await - before;
    assert!(calls < QUEUED + 20 * CALLS, "{calls} calls to JetStream");
    // The index answers for known names and ids.
    let last = format!("simple-job-queued-{}", QUEUED - 1);
    let queued = call_service(&env.client, "get", &[], &json!({ "name": last }).to_string()).await;
    assert_eq!(code_and_error(queued), (404, "Queued".to_owned()));
    let cancelled = call_service(&env.client, "cancel", &[], r#"{"requestId":"queued-500"}"#).await.unwrap();
    assert_eq!(
        (&cancelled["result"], &cancelled["name"]),
        (&json!("pending"), &json!("simple-job-queued-500"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn array_in_place_of_an_object_is_a_bad_request() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    call_service(&env.client, "submit", &[("Job-Wait", "created")], r#"{"foo":"x"}"#).await.unwrap();
    for (endpoint, payload) in [
        ("get", r#"["simple-job-x"]"#),
        ("get", r#"[["name","simple-job-x"]]"#),
        ("get", r#"{"name":"simple-job-x","name":"simple-job-x"}"#),
        ("cancel", r#"["simple-job-x",null]"#),
        ("cancel", "[]"),
        ("cancel", "null"),
    ] {
        let error = call_service(&env.client, endpoint, &[], payload).await.unwrap_err();
        assert_eq!((error.code, error.error.as_str()), (400, "BadRequest"), "{endpoint} {payload}");
        assert!(error.message.contains("expected: {\"name\""), "{payload}: {}", error.message);
        assert!(!error.message.contains("struct"), "{payload}: {}", error.message);
    }
    assert_eq!(env.last_event("simple-job-x").await.unwrap()["type"], "ADDED", "the Job was cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_answers_deleting_while_a_finalizer_holds_the_job() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    env.request(r#"{"foo":"held"}"#).await;
    env.until_last("simple-job-held", "ADDED").await;
    let finalizers = async |list: Value| {
        let patch = Patch::Merge(json!({"metadata": {"finalizers": list}}));
        env.namespace.jobs.patch("simple-job-held", &PatchParams::default(), &patch).await.unwrap();
    };
    finalizers(json!(["example.org/audit"])).await;
    for query in [json!({"name": "simple-job-held"}), json!({"name": "simple-job-held"})] {
        let answer = call_service(&env.client, "cancel", &[], &query.to_string()).await.unwrap();
        assert_eq!(answer["result"], "deleting");
    }
    assert_ne!(env.last_event("simple-job-held").await.unwrap()["type"], "OUTCOME");
    finalizers(json!(null)).await;
    assert_eq!(env.outcome("simple-job-held").await["result"], "Cancelled");
}

/// A caller of another template is served while one template's callers take their share.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_callers_of_one_template_refuse_no_other_template() {
    let env = or_skip!(TestEnv::start().await);
    let (folder, templates) = managed_template();
    let simple = std::fs::read_to_string(folder.path().join("simple.yaml")).unwrap();
    let other = simple.replace("name: simple\n", "name: other\n").replace("simple-job-", "other-job-");
    std::fs::write(folder.path().join("other.yaml"), other).unwrap();
    let dispatcher = env.dispatcher().templates(templates).env("DISPATCHER_MAX_WAITERS", "8");
    let _dispatcher = dispatcher.start().await;
    let wait = [("Job-Wait", "outcome"), ("Job-Wait-Timeout", "60")];
    let loud = (0..20).map(|n| {
        let client = env.client.clone();
        tokio::spawn(async move {
            call_service(&client, "submit", &wait, &json!({ "foo": format!("loud-{n}") }).to_string()).await
        })
    });
    let (mut loud, mut refused): (Vec<_>, usize) = (loud.collect(), 0);
    while refused < 16 {
        let (answer, _, rest) = futures::future::select_all(loud).await;
        assert_eq!(code_and_error(answer.unwrap()), (503, "Overloaded".to_owned()));
        (loud, refused) = (rest, refused + 1);
    }
    let created = try_call_service(
        &env.client,
        "jobs.other.submit",
        &[("Job-Wait", "created")],
        r#"{"foo":"a"}"#,
        Duration::from_secs(30),
    );
    assert_eq!(created.await.unwrap().unwrap()["type"], "ADDED");
    loud.iter().for_each(tokio::task::JoinHandle::abort);
}
