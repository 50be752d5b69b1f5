//! What a test starts with: a NATS of its own, a namespace of its own in the shared Kubernetes, and a dispatcher; and
//! the eyes of a client. Everything is seen from outside: by a NATS client and the Kubernetes API.

use std::path::PathBuf;
use std::sync::Arc;

use async_nats::jetstream::{self, message::StreamMessage, stream};
use async_nats::{Client, HeaderMap};
use dispatcher_tests::proxy::{ApiProxy, NatsProxy};
use dispatcher_tests::{Dispatcher, Kubernetes, Namespace, Nats, dispatcher::Builder, paths, until};
use k8s_openapi::api::batch::v1::Job;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

pub(crate) use dispatcher_tests::wait::PATIENCE;

/// See the module.
pub(crate) struct World {
    pub(crate) nats: Nats,
    pub(crate) namespace: Arc<Namespace>,
    pub(crate) client: Client,
    pub(crate) jetstream: jetstream::Context,
    /// Further settings of the dispatcher: how it logs in to NATS, for one.
    pub(crate) settings: Vec<(String, String)>,
    /// What stands between the dispatcher and the two.
    pub(crate) proxies: Option<Proxies>,
}

/// A proxy before each of the dispatcher's two systems.
pub(crate) struct Proxies {
    pub(crate) api: ApiProxy,
    pub(crate) nats: NatsProxy,
}

impl World {
    /// A NATS in a container, and a namespace in the shared Kubernetes.
    pub(crate) async fn start() -> Result<Self, String> {
        Ok(Self::of(Nats::start().await, Kubernetes::shared().await?.namespace().await).await)
    }

    pub(crate) async fn of(nats: Nats, namespace: impl Into<Arc<Namespace>>) -> Self {
        let client = nats.client().await;
        let jetstream = jetstream::new(client.clone());
        Self { nats, namespace: namespace.into(), client, jetstream, settings: vec![], proxies: None }
    }

    /// How the dispatcher of this world is started.
    pub(crate) fn dispatcher(&self) -> Builder {
        match &self.proxies {
            None => self.dispatcher_without_proxies(),
            Some(Proxies { api, nats }) => self
                .dispatcher_without_proxies()
                .env("NATS_URL", &nats.url)
                .env("KUBECONFIG", &api.kubeconfig.display().to_string()),
        }
    }

    /// How one is started that nothing goes wrong for.
    pub(crate) fn dispatcher_without_proxies(&self) -> Builder {
        let builder = Dispatcher::builder(&self.nats, &self.namespace);
        self.settings.iter().fold(builder, |builder, (name, value)| builder.env(name, value))
    }

    /// Publishes a request and waits for the stream's word; the request's sequence.
    pub(crate) async fn request(&self, payload: impl Into<String>) -> u64 {
        self.publish(payload.into().into_bytes(), None).await
    }

    /// The same with an identity.
    pub(crate) async fn request_as(&self, id: &str, payload: &str) -> u64 {
        self.publish(payload.as_bytes().to_vec(), Some(id)).await
    }

    pub(crate) async fn publish(&self, payload: Vec<u8>, id: Option<&str>) -> u64 {
        let mut headers = HeaderMap::new();
        if let Some(id) = id {
            headers.insert("Nats-Msg-Id", id);
        }
        let sent = self.jetstream.publish_with_headers("jobs.simple.create", headers, payload.into()).await;
        sent.unwrap().await.expect("the request is stored").sequence
    }

    /// All that is stored of a Job, in order.
    pub(crate) async fn history(&self, name: &str) -> Vec<StreamMessage> {
        let stream = self.jetstream.get_stream_no_info("JOB_STATUS").await.unwrap();
        let subject = format!("jobs.simple.status.{name}");
        let mut messages: Vec<StreamMessage> = vec![];
        loop {
            let from = messages.last().map_or(1, |last| last.sequence + 1);
            match stream.direct_get_next_for_subject(subject.as_str(), Some(from)).await {
                Ok(message) => messages.push(message),
                Err(_) => return messages,
            }
        }
    }

    /// The types of all that is stored of a Job.
    pub(crate) async fn types(&self, name: &str) -> Vec<String> {
        self.history(name).await.iter().map(|message| text(&event(message)["type"])).collect()
    }

    /// The last event of a Job.
    pub(crate) async fn last(&self, name: &str) -> Option<Value> {
        let stream = self.jetstream.get_stream_no_info("JOB_STATUS").await.ok()?;
        let subject = format!("jobs.simple.status.{name}");
        stream.get_last_raw_message_by_subject(&subject).await.ok().map(|message| event(&message))
    }

    /// The event of type `type_` as a Job's last one, waited for.
    pub(crate) async fn until_last(&self, name: &str, type_: &str) -> Value {
        until(&format!("{type_} as the last event of {name}"), PATIENCE, || async {
            let last = self.last(name).await;
            if last.as_ref().is_some_and(|last| last["type"] == type_) {
                Ok(last.unwrap())
            } else {
                Err(last)
            }
        })
        .await
    }

    /// The outcome of a Job, waited for.
    pub(crate) async fn outcome(&self, name: &str) -> Value {
        self.until_last(name, "OUTCOME").await["outcome"].clone()
    }

    /// The dead letter of the request `sequence`, waited for.
    pub(crate) async fn rejection(&self, sequence: u64) -> StreamMessage {
        until(&format!("the rejection of request {sequence}"), PATIENCE, || async {
            self.rejections()
                .await
                .into_iter()
                .find(|letter| header(letter, "Job-Request-Seq") == sequence.to_string())
        })
        .await
    }

    /// All dead letters.
    pub(crate) async fn rejections(&self) -> Vec<StreamMessage> {
        let stream = self.jetstream.get_stream_no_info("JOB_REJECTED").await.unwrap();
        let mut letters: Vec<StreamMessage> = vec![];
        loop {
            let from = letters.last().map_or(1, |last| last.sequence + 1);
            match stream.direct_get_next_for_subject("jobs.simple.rejected", Some(from)).await {
                Ok(letter) => letters.push(letter),
                Err(_) => return letters,
            }
        }
    }

    /// Waits until no request is left.
    pub(crate) async fn until_queue_is_empty(&self) {
        until("the queue to be empty", PATIENCE, || async {
            let mut stream = self.jetstream.get_stream("JOBS").await.map_err(|e| e.to_string())?;
            match stream.info().await.map_err(|e| e.to_string())?.state.messages {
                0 => Ok(()),
                left => Err(format!("{left} requests are left")),
            }
        })
        .await;
    }

    /// The Job, waited for.
    pub(crate) async fn job(&self, name: &str) -> Job {
        until(&format!("the Job {name}"), PATIENCE, || self.namespace.jobs.get(name)).await
    }

    /// Makes a stream before the dispatcher does.
    pub(crate) async fn make_stream(&self, config: &Value) {
        let name = text(&config["name"]);
        let made: Value = self.jetstream.request(format!("STREAM.CREATE.{name}"), config).await.unwrap();
        assert!(made["error"].is_null(), "{made}");
    }

    /// What the server has of a stream, or of a consumer on `JOBS`.
    pub(crate) async fn config(&self, name: &str) -> Value {
        let subject = match name.strip_prefix("dispatcher-") {
            None => format!("STREAM.INFO.{name}"),
            Some(_) => format!("CONSUMER.INFO.JOBS.{name}"),
        };
        let info: Value = self.jetstream.request(subject, &json!({})).await.unwrap();
        info["config"].clone()
    }

    /// In what a stream or consumer is not as `nats-config/` has it.
    pub(crate) async fn unlike_shipped(&self, name: &str) -> Vec<String> {
        let config = self.config(name).await;
        let differing = |(field, wanted): (&String, &Value)| {
            let found = &config[field];
            let absent = found.is_null() && (wanted == &json!(0) || wanted == &json!(false));
            let same = found == wanted || absent || without_false(found) == without_false(wanted);
            (!same).then(|| format!("{field}: found {found}, shipped {wanted}"))
        };
        shipped(name).as_object().unwrap().iter().filter_map(differing).collect()
    }

    /// Makes the streams with the shortest deduplication window that there is, so that nothing can lean on it; on a cluster with
    /// three replicas.
    pub(crate) async fn make_streams_without_deduplication(&self) {
        for stream in ["JOBS", "JOB_STATUS", "JOB_REJECTED", "KV_JOB_CANCELS"] {
            let mut config = shipped(stream);
            config["duplicate_window"] = 100_000_000.into();
            if self.nats.is_cluster() {
                config["num_replicas"] = 3.into();
            }
            self.make_stream(&config).await;
        }
    }

    /// Lets `JOB_STATUS` take nothing more than the one message that it has; the configuration that opens it again.
    pub(crate) async fn fill_status_stream(&self) -> stream::Config {
        let open = self.jetstream.get_stream("JOB_STATUS").await.unwrap().cached_info().config.clone();
        let discard = stream::DiscardPolicy::New;
        let full = stream::Config { max_messages: 1, discard, ..open.clone() };
        self.jetstream.update_stream(full).await.unwrap();
        open
    }

    /// Plays the controller of a Job that has another one ([`managed_template`]): sets its status.
    pub(crate) async fn set_status(&self, name: &str, status: Value) {
        let patch = json!({"status": status});
        let params = PatchParams::default();
        self.namespace.jobs.patch_status(name, &params, &Patch::Merge(&patch)).await.unwrap();
    }
}

/// The shipped template, but for Jobs that Kubernetes' own Job controller leaves alone (`spec.managedBy`): the test
/// says what becomes of them.
pub(crate) fn managed_template() -> (tempfile::TempDir, PathBuf) {
    let folder = paths::temp_dir("templates").unwrap();
    let simple = std::fs::read_to_string(paths::workspace().join("deploy/templates/simple.yaml")).unwrap();
    let spec = "      backoffLimit: 3\n";
    assert!(simple.contains(spec));
    let managed =
        simple.replace(spec, "      backoffLimit: 3\n      managedBy: tests.example.org/controller\n");
    std::fs::write(folder.path().join("simple.yaml"), managed).unwrap();
    let path = folder.path().to_owned();
    (folder, path)
}

/// A shipped stream or consumer, as `nats-config/` has it.
pub(crate) fn shipped(name: &str) -> Value {
    let path = paths::workspace().join(format!("nats-config/{name}.json"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The server leaves out what is false.
fn without_false(value: &Value) -> Value {
    let mut value = value.clone();
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, field| field != &Value::from(false));
    }
    value
}

/// A final status, as the Job controller writes it. It ends now: a TTL runs from there.
pub(crate) fn finished(condition: &str, failed: u32, reason: &str, message: &str) -> Value {
    let time = now();
    let interim = if condition == "Complete" { "SuccessCriteriaMet" } else { "FailureTarget" };
    let condition = |type_: &str| {
        json!({"type": type_, "status": "True", "reason": reason, "message": message,
               "lastProbeTime": time, "lastTransitionTime": time})
    };
    let mut status = json!({
        "startTime": START, "failed": failed, "active": 0, "ready": 0, "terminating": 0,
        "conditions": [condition(interim), condition(if interim == "FailureTarget" { "Failed" } else { "Complete" })],
    });
    if interim == "SuccessCriteriaMet" {
        status["completionTime"] = now().into();
        status["succeeded"] = 1.into();
    }
    status
}

/// When every Job of a test started: Kubernetes does not let that change.
pub(crate) const START: &str = "2026-01-01T00:00:00Z";

/// Now, to the second, as Kubernetes writes times.
pub(crate) fn now() -> String {
    k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

pub(crate) fn event(message: &StreamMessage) -> Value {
    serde_json::from_slice(&message.payload).expect("a status event is JSON")
}

pub(crate) fn header(message: &StreamMessage, name: &str) -> String {
    message.headers.get(name).map(|value| value.as_str().to_owned()).unwrap_or_default()
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
