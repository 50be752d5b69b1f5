//! NATS or the API server is away when the dispatcher starts: it waits for them, and is not ready.

use dispatcher_tests::job_controller::managed_template;
use dispatcher_tests::proxy::ApiProxy;
use dispatcher_tests::test_env::TestEnv;
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{Dispatcher, Kubernetes, Nats, or_skip, until};
use local_cluster::faults::{Calls, Failure};

use crate::settings::assert_refused;

/// Waits until `/readyz` names this reason, and checks that the process is alive.
async fn until_not_ready(dispatcher: &Dispatcher, reason: &str) {
    until(&format!("{reason:?} in /readyz"), TIMEOUT, || async {
        let (status, body) = dispatcher.get("/readyz").await?;
        if status == 503 && body.contains(reason) { Ok(()) } else { Err(body) }
    })
    .await;
    let (status, body) = dispatcher.get("/livez").await.unwrap();
    assert_eq!(status, 200, "{body}");
}

async fn assert_works(env: &TestEnv, dispatcher: &Dispatcher) {
    dispatcher.until_ready().await.unwrap();
    env.request(r#"{"foo":"a"}"#).await;
    env.until_last("simple-job-a", "ADDED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_that_starts_after_the_dispatcher_is_waited_for() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    env.nats.kill().await;
    let dispatcher = env.dispatcher().templates(templates).without_waiting().start().await;
    until_not_ready(&dispatcher, "start: NATS_URL: cannot connect").await;
    env.nats.restart().await;
    assert_works(&env, &dispatcher).await;
}

/// The connection is accepted, but nothing answers.
#[tokio::test(flavor = "multi_thread")]
async fn frozen_nats_is_waited_for() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    env.nats.pause().await;
    let dispatcher = env.dispatcher().templates(templates).without_waiting().start().await;
    until_not_ready(&dispatcher, "start: NATS_URL: ").await;
    env.nats.unpause().await;
    assert_works(&env, &dispatcher).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn server_name_that_does_not_resolve_is_tried_again() {
    let env = or_skip!(TestEnv::start().await);
    let url = "nats://nats.example.invalid:4222";
    let dispatcher = env.dispatcher().env("NATS_URL", url).without_waiting().start().await;
    until_not_ready(&dispatcher, "nats.example.invalid").await;
    assert_eq!(dispatcher.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn api_server_that_starts_after_the_dispatcher_is_waited_for() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let proxy = ApiProxy::start(&env.namespace.dispatcher_kubeconfig).await;
    proxy.faults.refuse_connections(true);
    let kubeconfig = proxy.kubeconfig.display().to_string();
    let builder = env.dispatcher().templates(templates).env("KUBECONFIG", &kubeconfig);
    let dispatcher = builder.without_waiting().start().await;
    until_not_ready(&dispatcher, "start: KUBECONFIG: the API server cannot be reached").await;
    // It starts, and is not ready to serve at first.
    proxy.faults.fail(Calls::of("get", "namespaces"), 2, Failure::Code(503));
    proxy.faults.refuse_connections(false);
    assert_works(&env, &dispatcher).await;
    assert_eq!(proxy.faults.remaining(), 0);
}

/// The servers accept connections, but no stream can be created without a majority.
#[tokio::test(flavor = "multi_thread")]
async fn cluster_without_a_majority_is_waited_for() {
    let namespace = or_skip!(Kubernetes::shared().await).namespace().await;
    let env = TestEnv::new(Nats::cluster().await, namespace).await;
    let (_folder, templates) = managed_template();
    let (first, others) = env.nats.nodes.split_first().unwrap();
    for node in others {
        node.kill().await;
    }
    let builder = env.dispatcher().templates(templates).env("NATS_URL", &first.url);
    let dispatcher = builder.without_waiting().start().await;
    until_not_ready(&dispatcher, "start: stream JOBS: ").await;
    for node in others {
        node.start().await;
    }
    assert_works(&env, &dispatcher).await;
}

/// A wrong certificate or password does not become right by waiting.
#[tokio::test(flavor = "multi_thread")]
async fn api_server_that_rejects_the_credentials_ends_the_start() {
    let env = or_skip!(TestEnv::start().await);
    let proxy = ApiProxy::start(&env.namespace.dispatcher_kubeconfig).await;
    proxy.faults.fail(Calls::of("get", "namespaces"), u32::MAX, Failure::Code(401));
    let kubeconfig = proxy.kubeconfig.display().to_string();
    let builder = env.dispatcher().env("KUBECONFIG", &kubeconfig);
    assert_refused(builder, "KUBECONFIG", "rejects the credentials").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_dispatcher_stops_without_aborting_a_task() {
    let env = or_skip!(TestEnv::start().await);
    let dispatcher = env.dispatcher().start().await;
    assert_eq!(dispatcher.terminate().await, Some(0));
    let log = dispatcher.log();
    assert!(log.contains("\"stopped\"") && !log.contains("aborted"), "{log}");
}
