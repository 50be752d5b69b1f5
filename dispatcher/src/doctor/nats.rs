//! Facts about NATS: a connection to each server, and what `JetStream` says about the account.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::{
    Client, Event, ServerError,
    jetstream::{self, context::RequestErrorKind, response::Response},
};
use dispatcher_core::doctor::{
    account::{Account, Limits},
    nats::{Connected, JetStream, Refusal, Server},
    permissions::{Direction, parse_violation},
};
use futures::{StreamExt, future::join_all};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{cli::Nats, nats::connect, retry::with_deadline};

/// The deadline of one call.
pub(super) const DEADLINE: Duration = Duration::from_secs(4);
/// The name that the server lists.
const NAME: &str = "dispatcher doctor";
/// The most denied subjects that are kept: more than the doctor uses.
const MAX_DENIED: usize = 256;

/// The subjects that the server has denied on one connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Denied(Arc<Mutex<BTreeSet<(Direction, String)>>>);

impl Denied {
    fn add(&self, event: &Event) {
        let Event::ServerError(ServerError::Other(error)) = event else { return };
        let Some(violation) = parse_violation(error) else { return };
        let mut denied = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if denied.len() < MAX_DENIED {
            denied.insert(violation);
        }
    }

    /// The subjects so far.
    pub(super) fn subjects(&self) -> BTreeSet<(Direction, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn contains(&self, subject: &str) -> bool {
        self.subjects().contains(&(Direction::Publish, subject.to_owned()))
    }
}

/// A connection.
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) jetstream: jetstream::Context,
    pub(super) denied: Denied,
    /// Whether the servers form a cluster.
    pub(super) is_clustered: bool,
    api_prefix: String,
    /// The stream of requests.
    jobs: String,
}

/// Connects to each server of the list. Returns what that showed, and the first connection.
pub(super) async fn connect_to_each(settings: &Nats) -> (Vec<Server>, Option<Connection>) {
    let found = join_all(settings.url.iter().map(|url| connect_to(settings, url))).await;
    let (servers, connections): (Vec<_>, Vec<_>) = found.into_iter().unzip();
    (servers, connections.into_iter().flatten().next())
}

async fn connect_to(settings: &Nats, url: &str) -> (Server, Option<Connection>) {
    let one = Nats { url: vec![url.to_owned()], ..settings.clone() };
    let shown = connect::without_credentials(&one.url);
    let denied = Denied::default();
    let seen = denied.clone();
    let connected = match connect::connect(&one, NAME, move |event| seen.add(event)).await {
        Ok(connected) => connected.client,
        Err(error) => {
            let (setting, message) = (error.setting().to_owned(), error.message().to_owned());
            return (Server { url: shown, connection: Err(Refusal { setting, message }) }, None);
        }
    };
    let info = connected.server_info();
    let has_certificates = settings.ca.is_some() || settings.cert.is_some();
    let scheme = url.split_once("://").map(|(scheme, _)| scheme);
    let facts = Connected {
        version: info.version,
        max_payload: u64::try_from(info.max_payload).unwrap_or(u64::MAX),
        is_encrypted: info.tls_required || has_certificates || matches!(scheme, Some("tls" | "wss")),
        sends_secret: settings.user.is_some()
            || settings.token.is_some()
            || settings.token_file.is_some()
            || url.contains('@'),
        requires_login: info.auth_required,
        is_local: is_local(&shown),
        round_trip: round_trip(&connected).await,
    };
    let jetstream = connect::jetstream(connected.clone(), settings);
    let connection = Connection {
        client: connected,
        jetstream,
        denied,
        is_clustered: info.cluster.is_some(),
        api_prefix: settings.api_prefix(),
        jobs: settings.naming.names.jobs().to_owned(),
    };
    (Server { url: shown, connection: Ok(facts) }, Some(connection))
}

/// Whether a URL names this machine.
fn is_local(url: &str) -> bool {
    let host = url.split_once("://").map_or(url, |(_, rest)| rest);
    ["localhost", "127.", "[::1]"].iter().any(|local| host.starts_with(local))
}

/// The time of a message to the own inbox. When it has arrived, so has every error of the server
/// about an earlier operation.
pub(super) async fn round_trip(client: &Client) -> Option<Duration> {
    let inbox = client.new_inbox();
    let trip = async {
        let mut messages = client.subscribe(inbox.clone()).await.ok()?;
        let began = Instant::now();
        client.publish(inbox, "".into()).await.ok()?;
        messages.next().await?;
        Some(began.elapsed())
    };
    with_deadline(DEADLINE, trip).await.ok()?
}

impl Connection {
    /// Whether `JetStream` answers about the streams.
    pub(super) async fn jetstream_state(&self) -> JetStream {
        let call = format!("STREAM.INFO.{}", self.jobs);
        let answer = with_deadline(DEADLINE, self.jetstream.request(call.clone(), &json!({}))).await;
        let is_denied = || self.denied.contains(&format!("{}.{call}", self.api_prefix));
        match answer {
            Ok(Ok(Response::<Value>::Ok(_))) => JetStream::Answers,
            Ok(Ok(Response::Err { error })) => {
                use jetstream::ErrorCode;
                match error.error_code() {
                    ErrorCode::STREAM_NOT_FOUND => JetStream::Answers,
                    _ => JetStream::Refused(error.to_string()),
                }
            }
            Ok(Err(error)) if error.kind() == RequestErrorKind::NoResponders => JetStream::NoResponders,
            _ if is_denied() => JetStream::Denied,
            Ok(Err(error)) => JetStream::Silent(error.to_string()),
            Err(error) => JetStream::Silent(error.to_string()),
        }
    }

    /// The limits of the account, for streams with this number of replicas.
    pub(super) async fn account(&self, replicas: u64) -> Account {
        let subject = format!("{}.INFO", self.api_prefix);
        let query = json!({});
        let ask = self.jetstream.request("INFO".to_owned(), &query);
        // A denied call has no answer. The server's error about it comes before the own message.
        let denied = async {
            let _ = round_trip(&self.client).await;
            while !self.denied.contains(&subject) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            answer = with_deadline(DEADLINE, ask) => match answer {
                Ok(Ok(Response::<Value>::Ok(info))) => Account::Known(Limits::of(&info, replicas)),
                Ok(Ok(Response::Err { error })) => Account::Unknown(error.to_string()),
                Ok(Err(error)) => Account::Unknown(error.to_string()),
                Err(error) => Account::Unknown(error.to_string()),
            },
            () = denied => Account::Denied,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_of_this_machine_are_local() {
        for local in ["nats://localhost:4222", "127.0.0.1:4222", "tls://[::1]:4222"] {
            assert!(is_local(local), "{local}");
        }
        assert!(!is_local("nats://nats.nats.svc:4222") && !is_local("nats://10.127.0.1:4222"));
    }

    #[test]
    fn only_permission_violations_are_kept() {
        let denied = Denied::default();
        let error = |text: &str| Event::ServerError(ServerError::Other(text.to_owned()));
        denied.add(&error("Permissions Violation for Publish to \"a\""));
        denied.add(&error("Maximum Connections Exceeded"));
        denied.add(&Event::Disconnected);
        assert!(denied.contains("a") && denied.subjects().len() == 1);
    }
}
