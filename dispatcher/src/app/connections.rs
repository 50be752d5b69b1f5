//! The connections to NATS. Clients can send messages only to separate connections. A message that
//! the client library cannot decode then ends one of those, and not the publishing connection.

use std::sync::Arc;

use async_nats::{Client, jetstream};
use tokio::sync::watch;

use crate::{
    cli::{Nats, StartError},
    nats::{
        connection::{self, Connection, Keeper},
        receiver_thread::ReceiverThread,
    },
    supervisor::Spawner,
    telemetry::{health::Health, metrics::Metrics},
};

/// How many connections receive the calls of the NATS service.
const SERVICE: usize = 2;
/// The connections of one process.
pub(super) struct Connections {
    /// Publishes status events, dead letters, acks and answers, and calls `JetStream`. Receives
    /// only the answers of the server.
    pub(super) main: Connection,
    /// Receive calls of the NATS service, in one queue group, on a thread of their own.
    pub(super) service: Vec<Connection>,
    /// Receives status events and rejections for waiting callers.
    pub(super) events: Connection,
    /// Reads the messages of the other streams.
    pub(super) scans: Connection,
    main_keeper: Keeper,
    keepers: Vec<(String, Keeper)>,
}

impl Connections {
    /// Opens all connections except those of the intake. `reconnects` counts the reconnects of the
    /// main one.
    ///
    /// # Errors
    /// [`StartError`] with the setting that is wrong.
    pub(super) async fn open(
        settings: &Nats,
        (health, metrics): (&Health, &Metrics),
        reconnects: watch::Sender<u64>,
    ) -> Result<Self, StartError> {
        let mut keepers = Vec::new();
        let (main, main_keeper) =
            connection::open(settings, "dispatcher", health.component("nats"), metrics, reconnects).await?;
        let no_thread = |e: std::io::Error| StartError::new("the thread of the NATS service", e.to_string());
        let thread = Arc::new(ReceiverThread::start().map_err(no_thread)?);
        let mut open = async |role: String, has_thread: bool| {
            let name = format!("nats {role}");
            let (health, changes) = (health.component(name.clone()), watch::Sender::new(0));
            let client = format!("dispatcher {role}");
            let (connection, keeper) = match has_thread {
                true => connection::open_on(&thread, (settings, &client), health, metrics, changes).await?,
                false => connection::open(settings, &client, health, metrics, changes).await?,
            };
            keepers.push((name, keeper));
            Ok::<_, StartError>(connection)
        };
        let events = open("events".to_owned(), false).await?;
        let scans = open("scans".to_owned(), false).await?;
        let mut service = Vec::new();
        for number in 1..=SERVICE {
            service.push(open(format!("service {number}"), true).await?);
        }
        Ok(Self { main, service, events, scans, main_keeper, keepers })
    }

    /// The client of the main connection.
    pub(super) fn client(&self) -> Client {
        self.main.client()
    }

    /// `JetStream` over the main connection.
    pub(super) fn jetstream(&self) -> jetstream::Context {
        self.main.jetstream()
    }

    /// Starts the tasks that keep the connections.
    pub(super) fn spawn_keepers(self, group: &mut Spawner<'_>) {
        group.spawn_until_stop("nats", self.main_keeper.until_ended());
        for (name, keeper) in self.keepers {
            group.spawn_until_stop(name, keeper.run());
        }
    }
}
