//! The submitter of a request: NATS account and user, as the server reports them across accounts.

use async_nats::{Client, HeaderMap};
use dispatcher_tests::job_controller::managed_template;
use dispatcher_tests::or_skip;
use dispatcher_tests::test_env::{TestEnv, header};
use dispatcher_tests::wait::TIMEOUT;
use serde_json::{Value, json};

use super::config_folder::{ConfigFolder, client, password_env};
use crate::cancellation::pause_queue;
use crate::service_client::{ServiceError, code_and_error, try_call_service};

const KEY: &str = "a secret of at least thirty-two bytes";

async fn call(
    client: &Client,
    subject: &str,
    headers: &[(&str, &str)],
    payload: &str,
) -> Result<Value, ServiceError> {
    try_call_service(client, subject, headers, payload, TIMEOUT).await.expect(subject)
}

/// Two tenants on the shipped `tenants.conf`. GLOBEX may also call `jobs.simple.{submit,cancel}`.
async fn tenants(folder: &ConfigFolder) -> Result<TestEnv, String> {
    for verb in ["submit", "cancel"] {
        let threshold = if verb == "submit" { ", threshold: \"15m\"" } else { "" };
        let export = format!("{{service: \"jobs.simple.{verb}\"{threshold}, accounts: [ACME");
        folder.edit("tenants.conf", &format!("{export}]}}"), &format!("{export}, GLOBEX]}}"));
        let first = "{service: {account: DISPATCHER, subject: \"jobs.memory.create\"}";
        let import =
            format!("{{service: {{account: DISPATCHER, subject: \"jobs.simple.{verb}\"}}, share: true}}\n");
        folder.edit("tenants.conf", first, &format!("{import}            {first}"));
    }
    password_env(folder.by_password("tenants.conf").await).await
}

/// The submitter that the Job, its stored events and its dead letter name.
fn of(account: &str, user: &str) -> Value {
    json!({"account": account, "user": user})
}

#[tokio::test(flavor = "multi_thread")]
async fn submitter_stands_on_the_job_its_events_and_dead_letters() {
    let folder = ConfigFolder::new();
    let env = or_skip!(tenants(&folder).await);
    let (_templates_folder, templates) = managed_template();
    let dispatcher = env.dispatcher().templates(templates).start().await;
    let acme = client(&env.nats, "acme").await;
    // The server replaces what a client writes.
    let forged = [
        ("Nats-Request-Info", r#"{"acc":"GLOBEX","user":"mallory"}"#),
        ("Job-Submitter", r#"{"account":"GLOBEX","user":"mallory"}"#),
        ("Job-Wait", "created"),
    ];
    let added = call(&acme, "jobs.simple.submit", &forged, r#"{"foo":"a"}"#).await.unwrap();
    assert_eq!(added["submitter"], of("ACME", "acme"));
    let annotations = env.job("simple-job-a").await.metadata.annotations.unwrap();
    let annotation: Value = serde_json::from_str(&annotations["natsjobs.dev/submitter"]).unwrap();
    assert_eq!(annotation, of("ACME", "acme"));
    let cancelled = call(&acme, "jobs.simple.cancel", &[], r#"{"name":"simple-job-a"}"#).await.unwrap();
    assert_eq!(cancelled["result"], "deleted");
    let outcome = env.until_last("simple-job-a", "OUTCOME").await;
    assert_eq!(outcome["submitter"], of("ACME", "acme"), "of a deleted Job");

    call(&acme, "jobs.simple.submit", &[("Job-Wait", "created")], r#"{"foo":"b"}"#).await.unwrap();
    let taken = call(&acme, "jobs.simple.submit", &[], r#"{"foo":"b"}"#).await.unwrap();
    let dead_letter = env.dead_letter(taken["requestSeq"].as_u64().unwrap()).await;
    let submitter: Value = serde_json::from_str(&header(&dead_letter, "Job-Submitter")).unwrap();
    assert_eq!(submitter, of("ACME", "acme"));
    assert_eq!(dispatcher.terminate().await, Some(0));
    let log = dispatcher.log();
    for action in ["submitted", "cancelled"] {
        let is_audit = |line: &str| line.contains(action) && line.contains("ACME") && line.contains("acme");
        assert!(log.lines().any(is_audit), "no audit line {action}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn submitter_without_a_signature_does_not_count_if_there_is_a_key() {
    let folder = ConfigFolder::new();
    let env = or_skip!(tenants(&folder).await);
    let (_templates_folder, templates) = managed_template();
    let key = folder.write("submitter.key", KEY);
    let dispatcher = env.dispatcher().templates(templates).env("DISPATCHER_SUBMITTER_KEY", &key);
    let _dispatcher = dispatcher.start().await;
    let acme = client(&env.nats, "acme").await;
    let created = [("Job-Wait", "created")];
    let added = call(&acme, "jobs.simple.submit", &created, r#"{"foo":"signed"}"#).await.unwrap();
    assert_eq!(added["submitter"], of("ACME", "acme"));
    // A client that publishes on `create` can write any header.
    let mut headers = HeaderMap::new();
    headers.insert("Job-Submitter", r#"{"account":"GLOBEX","user":"globex"}"#);
    headers.insert("Job-Submitter-Signature", "00");
    headers.insert("Nats-Request-Info", r#"{"acc":"GLOBEX","user":"globex"}"#);
    acme.request_with_headers("jobs.simple.create", headers, r#"{"foo":"forged"}"#.into()).await.unwrap();
    let added = env.until_last("simple-job-forged", "ADDED").await;
    assert!(added["submitter"].is_null(), "{added}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_can_be_limited_to_requests_of_the_own_account() {
    let folder = ConfigFolder::new();
    let env = or_skip!(tenants(&folder).await);
    let (_templates_folder, templates) = managed_template();
    let key = folder.write("submitter.key", KEY);
    let dispatcher = env
        .dispatcher()
        .templates(templates)
        .env("DISPATCHER_SUBMITTER_KEY", &key)
        .env("DISPATCHER_CANCEL_OWN_ACCOUNT_ONLY", "true");
    let _dispatcher = dispatcher.start().await;
    let (acme, globex) = (client(&env.nats, "acme").await, client(&env.nats, "globex").await);
    let submit = "jobs.simple.submit";
    let running = [("Job-Wait", "created"), ("Nats-Msg-Id", "running")];
    call(&acme, submit, &running, r#"{"foo":"running"}"#).await.unwrap();
    acme.request("jobs.simple.create", r#"{"foo":"anonymous"}"#.into()).await.unwrap();
    env.until_last("simple-job-anonymous", "ADDED").await;
    pause_queue(&env).await;
    call(&acme, submit, &[("Nats-Msg-Id", "queued")], r#"{"foo":"queued"}"#).await.unwrap();

    let cancel = async |client: &Client, query: Value| {
        call(client, "jobs.simple.cancel", &[], &query.to_string()).await
    };
    for query in [
        json!({"name": "simple-job-running"}),
        json!({"requestId": "running"}),
        json!({"name": "simple-job-anonymous"}),
        json!({"name": "simple-job-queued"}),
        json!({"requestId": "queued"}),
    ] {
        let answer = cancel(&globex, query.clone()).await;
        assert_eq!(code_and_error(answer), (403, "Forbidden".to_owned()), "{query}");
    }
    for (query, result) in [
        (json!({"name": "simple-job-running"}), "deleted"),
        (json!({"name": "simple-job-queued"}), "pending"),
        (json!({"requestId": "queued"}), "pending"),
    ] {
        assert_eq!(cancel(&acme, query.clone()).await.unwrap()["result"], result, "{query}");
    }
}
