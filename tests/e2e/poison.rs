//! Poison messages: messages that NATS stores or passes on and that the client library cannot
//! decode. Only the sender of such a message loses a request.

use std::time::Duration;

use dispatcher_tests::Kubernetes;
use dispatcher_tests::dispatcher::{self, Dispatcher};
use dispatcher_tests::job_controller::{finished_status, managed_template};
use dispatcher_tests::nats::{Nats, RawClient, Setup};
use dispatcher_tests::or_skip;
use dispatcher_tests::paths::{self, NATS_VERSIONS, OLDEST_NATS_VERSION};
use dispatcher_tests::ports;
use dispatcher_tests::test_env::{TestEnv, header};
use dispatcher_tests::wait::{TIMEOUT, until};
use serde_json::{Value, json};

use crate::service_client::try_call_service;

/// Headers that the client library cannot decode, and a part of the reason that names the problem.
const UNDECODABLE: [(&[u8], &str); 7] = [
    (b"NATS/1.0\r\nA: b\rc\r\n\r\n", "carriage return"),
    (b"NATS/1.0\r\nA: b\r\r\n c\r\n\r\n", "carriage return"),
    (b"NATS/1.0\r\nno colon\r\n\r\n", "no colon"),
    (b"NATS/1.0\r\nA: \xff\r\n\r\n", "UTF-8"),
    (b"NATS/1.0\r\nA b: c\r\n\r\n", "white space"),
    (b"NATS/1.1\r\nA: b\r\n\r\n", "does not begin with NATS/1.0"),
    (b"xx", "does not begin with NATS/1.0"),
];

/// Headers with a status line. Old servers deliver it, and newer ones remove it.
const STATUS: [&[u8]; 5] = [
    b"NATS/1.0 503\r\n\r\n",
    b"NATS/1.0 404 No Messages\r\n\r\n",
    b"NATS/1.0 408\r\nA: b\r\n\r\n",
    b"NATS/1.0 100 Idle Heartbeat\r\n\r\n",
    b"NATS/1.0 none\r\n\r\n",
];

/// Reply subjects that the client library cannot decode.
const REPLIES: [&[u8]; 3] = ["_INBOX.a\u{a0}b".as_bytes(), "_INBOX.a\u{2028}b".as_bytes(), b"_INBOX.\xff"];

/// A dispatcher with the templates `simple` and `other`, and the connections that it has.
struct Scene {
    env: TestEnv,
    dispatcher: Dispatcher,
    pid: u32,
    monitor: String,
    connections: usize,
    /// The connection that receives the requests of `other`.
    other: Vec<u64>,
    _templates: tempfile::TempDir,
}

impl Scene {
    async fn start(version: &'static str) -> Result<Self, String> {
        let port = ports::free();
        let args = vec!["-m".to_owned(), port.to_string()];
        let nats = Nats::process_of(Setup { args, version: Some(version), ..Setup::default() }).await;
        let env = TestEnv::new(nats, Kubernetes::shared().await?.namespace().await).await;
        let (templates, path) = managed_template();
        let simple = std::fs::read_to_string(path.join("simple.yaml")).unwrap();
        let other =
            simple.replace("  name: simple\n", "  name: other\n").replace("simple-job-$", "other-job-$");
        std::fs::write(path.join("other.yaml"), other).unwrap();
        let dispatcher = env.dispatcher().templates(path).start().await;
        let (pid, monitor) = (dispatcher.pid().await, format!("127.0.0.1:{port}"));
        let other = connections(&monitor, "dispatcher intake other").await;
        let connections = connections(&monitor, "dispatcher").await.len();
        assert_eq!(other.len(), 1);
        Ok(Self { env, dispatcher, pid, monitor, connections, other, _templates: templates })
    }

    async fn raw(&self) -> RawClient {
        RawClient::connect(&self.env.nats.url).await
    }

    /// Publishes a request of each template.
    async fn publish_good(&self, name: &str) {
        for template in ["simple", "other"] {
            let payload = json!({"foo": "x", "name": format!("{template}-{name}")}).to_string();
            let subject = format!("jobs.{template}.create");
            let ack = self.env.jetstream.publish(subject, payload.into()).await.unwrap();
            ack.await.expect("JOBS stores the request");
        }
    }

    async fn until_good(&self, name: &str) {
        self.env.until_last(&format!("simple-{name}"), "ADDED").await;
        let subject = format!("jobs.other.status.other-{name}");
        let status = self.env.jetstream.get_stream_no_info("JOB_STATUS").await.unwrap();
        until(&format!("ADDED of other-{name}"), TIMEOUT, || async {
            status.get_last_raw_message_by_subject(&subject).await.map(drop).map_err(|e| e.to_string())
        })
        .await;
    }

    /// The dispatcher is the same process, was ready all the time, and leaks no connection. Poison
    /// messages of `simple` cost the template `other` no connection.
    async fn assert_unharmed(&self) {
        assert_eq!(self.dispatcher.get("/livez").await.unwrap().0, 200);
        assert_eq!(self.dispatcher.get("/readyz").await.unwrap().0, 200);
        assert_eq!(self.dispatcher.pid().await, self.pid, "the process was restarted");
        let log = self.dispatcher.log();
        assert!(!log.contains("not ready"), "{log}");
        until("as many connections as before", TIMEOUT, || async {
            let now = connections(&self.monitor, "dispatcher").await.len();
            if now == self.connections { Ok(()) } else { Err((now, self.connections)) }
        })
        .await;
        let other = connections(&self.monitor, "dispatcher intake other").await;
        assert_eq!(other, self.other, "the connection of another template was replaced");
    }
}

/// The ids of the connections whose name has this prefix.
async fn connections(monitor: &str, prefix: &str) -> Vec<u64> {
    let (_, body) = dispatcher::get(monitor, "/connz").await.unwrap();
    let body: Value = serde_json::from_str(&body).unwrap();
    let connections = body["connections"].as_array().unwrap().iter();
    let found = connections.filter(|c| c["name"].as_str().is_some_and(|name| name.starts_with(prefix)));
    found.map(|c| c["cid"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn request_with_undecodable_headers_becomes_a_dead_letter_and_harms_no_other() {
    for version in NATS_VERSIONS {
        let scene = or_skip!(Scene::start(version).await);
        let mut raw = scene.raw().await;
        for (number, (headers, problem)) in UNDECODABLE.into_iter().enumerate() {
            scene.publish_good(&format!("before-{number}")).await;
            let ack = raw.publish("jobs.simple.create", headers, br#"{"foo":"bad"}"#).await;
            scene.publish_good(&format!("after-{number}")).await;
            let dead_letter = scene.env.dead_letter(ack["seq"].as_u64().unwrap()).await;
            assert_eq!(header(&dead_letter, "Job-Error"), "InvalidHeaders", "{version}");
            let message = header(&dead_letter, "Job-Error-Message");
            assert!(message.contains(problem), "{version}: {message}");
            assert_eq!(&dead_letter.payload[..], br#"{"foo":"bad"}"#);
        }
        for number in 0..UNDECODABLE.len() {
            scene.until_good(&format!("before-{number}")).await;
            scene.until_good(&format!("after-{number}")).await;
        }
        scene.env.until_queue_is_empty().await;
        assert_eq!(scene.env.dead_letters().await.len(), UNDECODABLE.len());
        scene.assert_unharmed().await;
        assert_eq!(scene.dispatcher.terminate().await, Some(0));
    }
}

/// Servers from 2.12.8 on remove the status line before they store the request.
#[tokio::test(flavor = "multi_thread")]
async fn request_with_a_status_line_ends_and_good_ones_do_not_wait() {
    for version in NATS_VERSIONS {
        let scene = or_skip!(Scene::start(version).await);
        let mut raw = scene.raw().await;
        for (number, headers) in STATUS.into_iter().enumerate() {
            scene.publish_good(&format!("before-{number}")).await;
            let payload = json!({"foo": "bad", "name": format!("status-{number}")}).to_string();
            let ack = raw.publish("jobs.simple.create", headers, payload.as_bytes()).await;
            scene.publish_good(&format!("after-{number}")).await;
            if version == OLDEST_NATS_VERSION {
                let dead_letter = scene.env.dead_letter(ack["seq"].as_u64().unwrap()).await;
                assert_eq!(header(&dead_letter, "Job-Error"), "InvalidHeaders");
                assert!(header(&dead_letter, "Job-Error-Message").contains("status"));
            } else {
                scene.env.until_last(&format!("status-{number}"), "ADDED").await;
            }
            scene.until_good(&format!("before-{number}")).await;
            scene.until_good(&format!("after-{number}")).await;
        }
        scene.env.until_queue_is_empty().await;
        scene.assert_unharmed().await;
    }
}

/// The messages that a poison message takes with it return immediately, and not after `ack_wait`.
#[tokio::test(flavor = "multi_thread")]
async fn flood_of_poison_messages_delays_no_good_request() {
    for version in NATS_VERSIONS {
        let scene = or_skip!(Scene::start(version).await);
        let mut raw = scene.raw().await;
        let flood = async {
            let mut ticks = tokio::time::interval(Duration::from_millis(50));
            for number in 0..100 {
                ticks.tick().await;
                let (headers, _) = UNDECODABLE[number % UNDECODABLE.len()];
                raw.publish("jobs.simple.create", headers, b"{}").await;
            }
        };
        let good = async {
            for number in 0..100 {
                scene.publish_good(&format!("flood-{number}")).await;
                scene.until_good(&format!("flood-{number}")).await;
            }
        };
        tokio::join!(flood, good);
        until("a dead letter for each poison message", TIMEOUT, || async {
            let count = scene.env.dead_letters().await.len();
            if count == 100 { Ok(()) } else { Err(count) }
        })
        .await;
        scene.env.until_queue_is_empty().await;
        scene.assert_unharmed().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_messages_that_are_queued_at_start_become_dead_letters() {
    let scene = or_skip!(Scene::start(paths::NATS_VERSION).await);
    assert_eq!(scene.dispatcher.terminate().await, Some(0));
    let mut raw = scene.raw().await;
    for (number, (headers, _)) in UNDECODABLE.into_iter().enumerate() {
        raw.publish("jobs.simple.create", headers, b"{}").await;
        scene.publish_good(&format!("queued-{number}")).await;
    }
    scene.dispatcher.restart().await;
    for number in 0..UNDECODABLE.len() {
        scene.until_good(&format!("queued-{number}")).await;
    }
    scene.env.until_queue_is_empty().await;
    assert_eq!(scene.env.dead_letters().await.len(), UNDECODABLE.len());
}

/// Calls of the NATS service and messages on the status subjects reach the dispatcher directly.
#[tokio::test(flavor = "multi_thread")]
async fn poison_message_to_the_service_or_its_waiters_harms_no_other_caller() {
    for version in NATS_VERSIONS {
        let scene = or_skip!(Scene::start(version).await);
        let mut raw = scene.raw().await;
        let submit = json!({"foo": "x", "name": "waiting"}).to_string();
        let client = scene.env.client.clone();
        let waiting = tokio::spawn(async move {
            let wait = [("Job-Wait", "outcome")];
            try_call_service(&client, "jobs.simple.submit", &wait, &submit, TIMEOUT).await
        });
        scene.env.until_last("waiting", "ADDED").await;
        let subjects = ["jobs.simple.submit", "jobs.simple.get", "jobs.simple.status.waiting", "$SRV.PING"];
        for (headers, _) in UNDECODABLE {
            for subject in subjects {
                raw.send(subject, b"_INBOX.raw", headers, b"{}").await;
            }
        }
        for reply in REPLIES {
            for subject in ["jobs.simple.create", "jobs.simple.submit", "jobs.simple.cancel"] {
                let payload = json!({"foo": "reply"}).to_string();
                raw.send(subject, reply, b"NATS/1.0\r\nA: b\r\n\r\n", payload.as_bytes()).await;
            }
        }
        until("the service to answer again", TIMEOUT, || async {
            let call = json!({"foo": "x", "name": "later"}).to_string();
            let wait = [("Job-Wait", "created"), ("Nats-Msg-Id", "later")];
            let limit = Duration::from_secs(2);
            let answer = try_call_service(&scene.env.client, "jobs.simple.submit", &wait, &call, limit).await;
            answer.map_err(|e| e.to_string())?.map(drop).map_err(|e| e.message)
        })
        .await;
        let status = finished_status("Complete", 0, "CompletionsReached", "Reached the completions");
        scene.env.set_status("waiting", status).await;
        let answer = waiting.await.unwrap().unwrap().unwrap();
        assert_eq!(answer["outcome"]["result"], "Complete", "{version}");
        scene.publish_good("last").await;
        scene.until_good("last").await;
        scene.assert_unharmed().await;
    }
}

/// Each file of `headers/` ends as one Job, one dead letter with a reason, or the stream refuses
/// it.
#[tokio::test(flavor = "multi_thread")]
async fn request_with_unusual_headers_has_exactly_one_end() {
    for version in NATS_VERSIONS {
        let scene = or_skip!(Scene::start(version).await);
        let mut raw = scene.raw().await;
        let mut jobs = vec![];
        let mut rejected = vec![];
        let mut files: Vec<_> =
            std::fs::read_dir(paths::workspace().join("tests/e2e/headers")).unwrap().flatten().collect();
        files.sort_by_key(std::fs::DirEntry::path);
        for file in files {
            let (name, headers) =
                (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap());
            let payload = json!({"foo": "h", "name": format!("h-{name}")}).to_string();
            if name == "trace-dest" {
                // The server only traces the message.
                raw.send("jobs.simple.create", b"_INBOX.other", &headers, payload.as_bytes()).await;
                continue;
            }
            let answer = raw.publish("jobs.simple.create", &headers, payload.as_bytes()).await;
            match answer["seq"].as_u64().filter(|_| answer["error"].is_null()) {
                Some(sequence) => jobs.push((name, sequence)),
                None => assert!(answer["error"]["description"].is_string(), "{version}: {name}: {answer}"),
            }
        }
        for (name, sequence) in jobs {
            let is_job = until(&format!("the end of {name} on {version}"), TIMEOUT, || async {
                let sequence = sequence.to_string();
                let letters = scene.env.dead_letters().await;
                let letter = letters.iter().find(|letter| header(letter, "Job-Request-Seq") == sequence);
                match (scene.env.last_event(&format!("h-{name}")).await, letter) {
                    (Some(_), None) => Some(true),
                    (None, Some(letter)) => Some(header(letter, "Job-Error").is_empty()),
                    _ => None,
                }
            })
            .await;
            if !is_job {
                rejected.push(name);
            }
        }
        scene.env.until_queue_is_empty().await;
        let status = if version == OLDEST_NATS_VERSION { vec!["status-404", "status-503"] } else { vec![] };
        let invalid_ids = ["id-empty", "id-empty2", "id-long", "id-tab"];
        let expected: Vec<_> = invalid_ids.into_iter().chain(status).collect();
        assert_eq!(rejected, expected, "{version}");
        scene.assert_unharmed().await;
    }
}
