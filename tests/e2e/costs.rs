//! What one Job costs: the calls to the API server, and the messages to NATS.
//!
//! The dispatcher connects through counting proxies. Each test handles two requests, so that a
//! call that follows the end of the first one is counted too.

use std::collections::BTreeMap;
use std::path::PathBuf;

use dispatcher_tests::job_controller::{finished_status, managed_template};
use dispatcher_tests::proxy::{ApiProxy, NatsProxy, Traffic};
use dispatcher_tests::test_env::{Proxies, TestEnv};
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{Dispatcher, or_skip, until};

use crate::attempts::modified_template;

/// A dispatcher behind proxies that is synced and idle.
struct Counted {
    env: TestEnv,
    traffic_before: Traffic,
    messages_before: BTreeMap<String, u64>,
    _dispatcher: Dispatcher,
}

impl Counted {
    /// Starts the dispatcher. The counts begin when it is synced.
    async fn start(templates: PathBuf) -> Result<Self, String> {
        let mut env = TestEnv::start().await?;
        let api = ApiProxy::start(&env.namespace.dispatcher_kubeconfig).await;
        env.proxies = Some(Proxies { api, nats: NatsProxy::start(&env.nats.url).await });
        let dispatcher = env.dispatcher().templates(templates).start().await;
        let (traffic_before, messages_before) = Default::default();
        let mut this = Self { env, traffic_before, messages_before, _dispatcher: dispatcher };
        // After the Jobs it lists the pods, and then the Kubernetes Events.
        until("the watches of the leader", TIMEOUT, || async {
            let calls = this.proxies().api.traffic().calls;
            if calls.contains_key("watch events") { Ok(()) } else { Err(calls) }
        })
        .await;
        this.traffic_before = this.proxies().api.traffic();
        this.messages_before = this.proxies().nats.messages.total();
        Ok(this)
    }

    fn proxies(&self) -> &Proxies {
        self.env.proxies.as_ref().expect("the dispatcher runs behind proxies")
    }

    /// Waits until a Job with an outcome is retired: the last step of its life.
    async fn until_retired(&self, name: &str) {
        self.env.outcome(name).await;
        until(&format!("the Job {name} to be retired"), TIMEOUT, || async {
            let job = self.env.namespace.jobs.get(name).await.map_err(|error| error.to_string())?;
            let labels = job.metadata.labels.unwrap_or_default();
            if labels.contains_key("natsjobs.dev/outcome") { Ok(()) } else { Err(format!("{labels:?}")) }
        })
        .await;
        self.env.until_queue_is_empty().await;
    }

    /// The calls since the start, without the watches, which live for 20 s and serve all Jobs, and
    /// without the Lease.
    fn calls(&self) -> Vec<(String, u64)> {
        let calls = self.proxies().api.traffic().since(&self.traffic_before).calls;
        let is_of_all = |call: &str| call.starts_with("watch ") || call.ends_with(" leases");
        calls.into_iter().filter(|(call, _)| !is_of_all(call)).collect()
    }

    /// The requests received and the messages sent since the start, without calls of the `JetStream`
    /// API: pulls and scans also depend on time.
    fn messages(&self) -> Vec<(String, u64)> {
        let messages = self.proxies().nats.messages.since(&self.messages_before);
        let is_of_jobs = |kind: &str| {
            let sent = kind.strip_prefix("sent ").is_some_and(|kind| !kind.starts_with("$JS.API."));
            sent || kind == "received jobs.simple.create"
        };
        messages.into_iter().filter(|(kind, _)| is_of_jobs(kind)).collect()
    }
}

fn list(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    expected.iter().map(|(name, times)| ((*name).to_owned(), *times)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn successful_job_costs_one_create_and_one_patch() {
    let (_folder, templates) = modified_template(|_| {});
    let counted = or_skip!(Counted::start(templates).await);
    for name in ["a", "b"] {
        counted.env.request(format!(r#"{{"foo":"{name}"}}"#)).await;
        counted.until_retired(&format!("simple-job-{name}")).await;
    }
    assert_eq!(counted.calls(), list(&[("create jobs", 2), ("patch jobs", 2)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_job_costs_one_more_call_for_the_log_of_each_pod() {
    let (_folder, templates) = modified_template(|_| {});
    let counted = or_skip!(Counted::start(templates).await);
    for name in ["a", "b"] {
        counted.env.request(format!(r#"{{"foo":"{name}","fail":true}}"#)).await;
        counted.until_retired(&format!("simple-job-{name}")).await;
    }
    // `get pods` stands for the log of a pod, too.
    assert_eq!(counted.calls(), list(&[("create jobs", 2), ("get pods", 2), ("patch jobs", 2)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_request_costs_a_lookup_if_it_names_a_job_and_no_call_otherwise() {
    let (_folder, templates) = modified_template(|_| {});
    let counted = or_skip!(Counted::start(templates).await);
    counted.env.dead_letter(counted.env.request("no JSON").await).await;
    counted.env.dead_letter(counted.env.request(r#"{"unknown":1}"#).await).await;
    counted.env.until_queue_is_empty().await;
    assert_eq!(counted.calls(), []);
    counted.env.dead_letter(counted.env.request(r#"{"foo":"a","unknown":1}"#).await).await;
    counted.env.dead_letter(counted.env.request(r#"{"foo":7,"name":"b"}"#).await).await;
    counted.env.until_queue_is_empty().await;
    assert_eq!(counted.calls(), list(&[("get jobs", 2)]));
    let messages = [
        ("received jobs.simple.create", 4),
        ("sent $JS.ACK", 4),
        // The dead letter, and the notice to the client.
        ("sent jobs.simple.rejected", 4),
        ("sent jobs.simple.status", 4),
    ];
    assert_eq!(counted.messages(), list(&messages));
}

#[tokio::test(flavor = "multi_thread")]
async fn request_with_an_id_of_its_client_costs_a_lookup_before_the_create() {
    let (_folder, templates) = modified_template(|_| {});
    let counted = or_skip!(Counted::start(templates).await);
    counted.env.request_with_id("id-a", r#"{"foo":"a"}"#).await;
    counted.until_retired("simple-job-a").await;
    assert_eq!(counted.calls(), list(&[("create jobs", 1), ("get jobs", 1), ("patch jobs", 1)]));
}

/// The test sets the status, so that the number of events is known: `ADDED`, `MODIFIED`, `OUTCOME`.
#[tokio::test(flavor = "multi_thread")]
async fn job_costs_one_message_for_each_event_and_one_ack() {
    let (_folder, templates) = managed_template();
    let counted = or_skip!(Counted::start(templates).await);
    for name in ["simple-job-a", "simple-job-b"] {
        counted.env.request(format!(r#"{{"foo":"x","name":"{name}"}}"#)).await;
        counted.env.until_last(name, "ADDED").await;
        counted.env.set_status(name, finished_status("Complete", 0, "CompletionsReached", "done")).await;
        counted.until_retired(name).await;
    }
    assert_eq!(counted.env.event_types("simple-job-a").await, ["ADDED", "MODIFIED", "OUTCOME"]);
    assert_eq!(counted.calls(), list(&[("create jobs", 2), ("patch jobs", 2)]));
    let messages =
        [("received jobs.simple.create", 2), ("sent $JS.ACK", 2), ("sent dispatcher.event.simple", 6)];
    assert_eq!(counted.messages(), list(&messages));
}
