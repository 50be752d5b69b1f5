//! What the hostile tenant sends. Everything stays within subjects that it may publish on: those of
//! its own templates.
//!
//! Its clients get only idle processors, because in reality they run on other machines.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use async_nats::{Client, HeaderMap, jetstream};
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::idle_group::IdleGroup;
use crate::nats::RawClient;
use crate::wait::TIMEOUT;

/// The template of the hostile tenant.
pub const HOSTILE: &str = "hostile";
/// Another template of the hostile tenant: its Jobs never end.
pub const WAITING: &str = "waiting";

/// The request id of the innocent tenant's request of this number. A hostile client can guess it.
#[must_use]
pub fn innocent_request_id(number: usize) -> String {
    format!("innocent-{number}")
}

/// How many messages of each kind were sent.
pub type Sent = BTreeMap<Attack, usize>;

/// A kind of hostile message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attack {
    /// Requests and service calls that async-nats cannot decode, at 20 per second.
    Poison,
    /// Callers of `submit` that wait for Jobs that never end.
    Waiting,
    /// Requests with the request ids of the innocent tenant's later requests.
    ForeignIds,
    /// Requests that are not JSON, with 32 KiB of payload: each becomes a dead letter.
    BadRequests,
    /// Requests that a policy refuses with a message that quotes `exceeded quota`.
    Refused,
    /// Callers of `submit` with 900 KiB of headers.
    LargeHeaders,
    /// `get` of unknown names, and `cancel` of unknown request ids.
    LookUps,
    /// Good requests.
    GoodRequests,
}

impl Attack {
    /// The attacks that are floods: one per hostile phase.
    pub const FLOODS: [Self; 5] =
        [Self::BadRequests, Self::Refused, Self::LargeHeaders, Self::LookUps, Self::GoodRequests];
}

/// The attacks of one phase.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attacks {
    /// The URL of NATS.
    pub nats: String,
    /// The flood, its number of messages, and the pause between two of them.
    pub flood: (Attack, usize, Duration),
    /// The number of the first innocent request whose id is taken, and the pause between two.
    pub foreign_ids: (usize, Duration),
}

impl Attacks {
    /// Starts them in a process of its own.
    ///
    /// # Panics
    /// If it cannot start.
    #[must_use]
    pub fn start(&self, program: &str) -> Running {
        let mut command = Command::new(program);
        command.arg(serde_json::to_string(self).unwrap()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let process = command.kill_on_drop(true).spawn().unwrap();
        let group = process.id().and_then(|pid| {
            IdleGroup::with(pid).inspect_err(|error| eprintln!("hostile clients: {error}")).ok()
        });
        Running { process, _group: group }
    }
}

/// Attacks until `stop`.
///
/// # Panics
/// If it cannot connect.
pub async fn run(attacks: Attacks, stop: CancellationToken) -> Sent {
    let Attacks { nats, flood, foreign_ids } = attacks;
    let client = async_nats::connect(&nats).await.unwrap();
    let hostile = Hostile { nats, jetstream: jetstream::new(client.clone()), client, stop };
    let (poison, waiting, foreign, flooded) = tokio::join!(
        hostile.poison(),
        hostile.wait_for_events(),
        hostile.publish_foreign_ids(foreign_ids),
        hostile.flood(flood),
    );
    BTreeMap::from([
        (Attack::Poison, poison),
        (Attack::Waiting, waiting),
        (Attack::ForeignIds, foreign),
        (flood.0, flooded),
    ])
}

/// A process of hostile clients.
#[derive(Debug)]
pub struct Running {
    process: Child,
    /// Removed after the process.
    _group: Option<IdleGroup>,
}

impl Running {
    /// Stops it.
    ///
    /// # Panics
    /// If it failed.
    pub async fn stop(mut self) -> Sent {
        drop(self.process.stdin.take());
        let output = timeout(TIMEOUT, self.process.wait_with_output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

struct Hostile {
    nats: String,
    client: Client,
    jetstream: jetstream::Context,
    stop: CancellationToken,
}

impl Hostile {
    /// Every kind of poison message, in turn.
    async fn poison(&self) -> usize {
        let (create, submit) = (format!("jobs.{HOSTILE}.create"), format!("jobs.{HOSTILE}.submit"));
        let mut raw = RawClient::connect(&self.nats).await;
        let mut pace = interval(Duration::from_millis(50));
        let headers: [&[u8]; 6] = [
            b"NATS/1.0\r\nA: b\rc\r\n\r\n",
            b"NATS/1.0\r\nno colon\r\n\r\n",
            b"NATS/1.0\r\nA: \xff\r\n\r\n",
            b"NATS/1.0 503\r\n\r\n",
            b"NATS/1.0 404 No Messages\r\n\r\n",
            b"NATS/1.0\r\nA\x01: b\r\n\r\n",
        ];
        let mut sent = 0;
        while self.stop.run_until_cancelled(pace.tick()).await.is_some() {
            let headers = headers[sent / 2 % headers.len()];
            let subject = if sent.is_multiple_of(2) { &create } else { &submit };
            let reply = if sent.is_multiple_of(5) { "hostile.\u{a0}reply" } else { "" };
            let payload = json!({"id": format!("poison-{}", fastrand::u64(..))}).to_string();
            raw.send(subject, reply.as_bytes(), headers, payload.as_bytes()).await;
            sent += 1;
        }
        sent
    }

    /// Callers that wait for an outcome that never comes. Each has its own reply subject.
    async fn wait_for_events(&self) -> usize {
        let callers = (0..200).map(|_| {
            let mut headers = HeaderMap::new();
            headers.insert("Job-Wait", "outcome");
            headers.insert("X-Padding", "x".repeat(32 * 1024).as_str());
            let payload = json!({"id": format!("wait-{}", fastrand::u64(..))}).to_string();
            let subject = format!("jobs.{WAITING}.submit");
            let reply = self.client.new_inbox();
            self.client.publish_with_reply_and_headers(subject, reply, headers, payload.into())
        });
        join_all(callers).await.len()
    }

    /// Takes ids of a later phase, so that the deduplication window is over when they are used.
    async fn publish_foreign_ids(&self, (first, pause): (usize, Duration)) -> usize {
        let mut pace = interval(pause);
        let mut sent = 0;
        while self.stop.run_until_cancelled(pace.tick()).await.is_some() {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Msg-Id", innocent_request_id(first + sent).as_str());
            let payload = json!({"id": format!("foreign-{}", fastrand::u64(..))}).to_string();
            let subject = format!("jobs.{HOSTILE}.create");
            drop(self.jetstream.publish_with_headers(subject, headers, payload.into()).await);
            sent += 1;
        }
        sent
    }

    async fn flood(&self, (flood, count, pause): (Attack, usize, Duration)) -> usize {
        let mut pace = interval(pause);
        let mut calls = JoinSet::new();
        let mut sent = 0;
        while sent < count && self.stop.run_until_cancelled(pace.tick()).await.is_some() {
            let (subject, headers, payload) = message(flood, sent);
            let (client, stop) = (self.client.clone(), self.stop.clone());
            calls.spawn(async move {
                let call = client.request_with_headers(subject, headers, payload.into());
                drop(stop.run_until_cancelled(call).await);
            });
            while calls.try_join_next().is_some() {}
            sent += 1;
        }
        while calls.join_next().await.is_some() {}
        sent
    }
}

/// The subject, headers and payload of a message of a flood.
fn message(flood: Attack, number: usize) -> (String, HeaderMap, String) {
    let subject = |action: &str| format!("jobs.{HOSTILE}.{action}");
    let id = format!("{}-{}", number, fastrand::u32(..));
    let mut headers = HeaderMap::new();
    match flood {
        Attack::BadRequests => (subject("create"), headers, "{".repeat(32 * 1024)),
        Attack::Refused => {
            let payload = json!({"id": format!("refused-{id}"), "tier": "exceeded quota: jobs"});
            (subject("create"), headers, payload.to_string())
        }
        Attack::LargeHeaders => {
            headers.insert("X-Padding", "x".repeat(900 * 1024).as_str());
            (subject("submit"), headers, json!({"id": format!("large-{id}")}).to_string())
        }
        Attack::LookUps if number.is_multiple_of(2) => {
            (subject("get"), headers, json!({"name": format!("unknown-{id}")}).to_string())
        }
        Attack::LookUps => {
            (subject("cancel"), headers, json!({"requestId": format!("unknown-{id}")}).to_string())
        }
        _ => (subject("create"), headers, json!({"id": format!("good-{id}")}).to_string()),
    }
}
