//! A connection to NATS that survives every message it receives.
//!
//! async-nats reconnects by itself after network failures. On some messages that it cannot decode,
//! its connection task panics and the client ends. Then the keeper connects a new client.
//! Such a message interrupts the connection for some milliseconds, and does not end the process.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::{Client, Event, jetstream};
use dispatcher_core::contract::nats_names::NatsNames;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    cli::{Nats, StartError},
    nats::{
        connect::{self, Connected},
        receiver_thread::ReceiverThread,
    },
    retry::{retry_forever, with_deadline},
    telemetry::{health::Component, metrics::Metrics},
};

/// How long a connection may be lost before its component is not ready. A poison message costs
/// less.
const TOLERANCE: Duration = Duration::from_secs(1);
/// The pause before a client is replaced. It doubles while clients live shorter than `SHORT_LIFE`.
const MIN_PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE: Duration = Duration::from_millis(200);
const SHORT_LIFE: Duration = Duration::from_millis(50);

/// A connection to NATS. Clones share it.
#[derive(Clone)]
pub(crate) struct Connection {
    names: NatsNames,
    current: watch::Receiver<Current>,
    changes: watch::Receiver<u64>,
    /// Keeps the thread that the client runs on, if it has its own.
    thread: Option<Arc<ReceiverThread>>,
}

#[derive(Clone)]
struct Current {
    client: Client,
    jetstream: jetstream::Context,
}

impl Connection {
    /// The names of the installation.
    pub(crate) fn names(&self) -> &NatsNames {
        &self.names
    }

    /// The current client.
    pub(crate) fn client(&self) -> Client {
        self.current.borrow().client.clone()
    }

    /// `JetStream` over the current client.
    pub(crate) fn jetstream(&self) -> jetstream::Context {
        self.current.borrow().jetstream.clone()
    }

    /// Changes after each reconnect and each replacement of the client: messages may be lost.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }
}

/// Replaces the client of a connection when it ends.
pub(crate) struct Keeper {
    settings: Nats,
    name: String,
    health: Component,
    metrics: Metrics,
    current: watch::Sender<Current>,
    changes: watch::Sender<u64>,
    connected: watch::Sender<bool>,
    ended: tokio_util::sync::CancellationToken,
    /// The thread that the client runs on, if it has its own.
    thread: Option<Arc<ReceiverThread>>,
}

/// Connects, under this name, which the server lists. `changes` counts the reconnects. Run the
/// keeper as long as the connection is used.
///
/// # Errors
/// [`StartError`] with the setting that is wrong.
pub(crate) async fn open(
    settings: &Nats,
    name: &str,
    health: Component,
    metrics: &Metrics,
    changes: watch::Sender<u64>,
) -> Result<(Connection, Keeper), StartError> {
    let connected = watch::Sender::new(true);
    let new = connect(settings, name, metrics, &changes, &connected).await?;
    health.ready();
    metrics.nats_opened(name);
    let jetstream = connect::jetstream(new.client.clone(), settings);
    let current = watch::Sender::new(Current { client: new.client, jetstream });
    let names = settings.naming.names.clone();
    let connection =
        Connection { names, current: current.subscribe(), changes: changes.subscribe(), thread: None };
    let keeper = Keeper {
        settings: settings.clone(),
        name: name.to_owned(),
        health,
        metrics: metrics.clone(),
        current,
        changes,
        connected,
        ended: new.ended,
        thread: None,
    };
    Ok((connection, keeper))
}

/// Like [`open`], on this thread.
///
/// # Errors
/// As [`open`].
pub(crate) async fn open_on(
    thread: &Arc<ReceiverThread>,
    (settings, name): (&Nats, &str),
    health: Component,
    metrics: &Metrics,
    changes: watch::Sender<u64>,
) -> Result<(Connection, Keeper), StartError> {
    let (settings, name, metrics) = (settings.clone(), name.to_owned(), metrics.clone());
    let opened = thread.run(async move { open(&settings, &name, health, &metrics, changes).await }).await;
    let (mut connection, mut keeper) =
        opened.map_err(|error| StartError::new("NATS_URL", error.to_string()))??;
    connection.thread = Some(thread.clone());
    keeper.thread = Some(thread.clone());
    Ok((connection, keeper))
}

async fn connect(
    settings: &Nats,
    name: &str,
    metrics: &Metrics,
    changes: &watch::Sender<u64>,
    connected: &watch::Sender<bool>,
) -> Result<Connected, StartError> {
    let (metrics, changes, connected) = (metrics.clone(), changes.clone(), connected.clone());
    let lost = Arc::new(AtomicBool::new(false));
    let dropped = AtomicU64::new(0);
    let label = name.to_owned();
    connect::connect(settings, name, move |event| match event {
        Event::Connected => {
            metrics.nats_connected(&label);
            connected.send_replace(true);
            if lost.swap(false, Ordering::Relaxed) {
                changes.send_modify(|count| *count += 1);
            }
        }
        Event::Disconnected => {
            metrics.nats_disconnected(&label);
            lost.store(true, Ordering::Relaxed);
            connected.send_replace(false);
        }
        // One line for 1, 2, 4, … messages: a client can send many.
        Event::SlowConsumer(_) => {
            let count = dropped.fetch_add(1, Ordering::Relaxed).saturating_add(1);
            if count.is_power_of_two() {
                tracing::warn!(connection = label, count, "messages dropped: they arrive too fast");
            }
        }
        // The dispatcher itself closes the connection when it stops.
        Event::Draining | Event::Closed => {
            tracing::debug!(connection = label, %event, "NATS connection event");
        }
        other => tracing::warn!(connection = label, event = %other, "NATS connection event"),
    })
    .await
}

impl Keeper {
    /// Keeps the connection until the caller drops the future, on the connection's thread if it has
    /// its own.
    pub(crate) async fn run(mut self) {
        match self.thread.take() {
            None => self.keep().await,
            Some(thread) => {
                if let Err(error) = thread.run(self.keep()).await {
                    tracing::error!(%error, "the task of a NATS connection panicked");
                }
            }
        }
    }

    async fn keep(mut self) {
        let mut pause = MIN_PAUSE;
        loop {
            let began = Instant::now();
            self.watch().await;
            pause = if began.elapsed() < SHORT_LIFE { (pause * 2).min(MAX_PAUSE) } else { MIN_PAUSE };
            sleep(pause).await;
            self.replace().await;
        }
    }

    /// Returns once the client has ended.
    pub(crate) async fn until_ended(self) {
        self.watch().await;
    }

    /// Reports whether the client is connected, until it ends.
    async fn watch(&self) {
        let mut connected = self.connected.subscribe();
        let report = async {
            loop {
                if connected.wait_for(|connected| !connected).await.is_err() {
                    return;
                }
                if with_deadline(TOLERANCE, connected.wait_for(|connected| *connected)).await.is_err() {
                    self.health.not_ready("not connected");
                    let _ = connected.wait_for(|connected| *connected).await;
                    self.health.ready();
                }
            }
        };
        self.ended.run_until_cancelled(report).await;
    }

    async fn replace(&mut self) {
        tracing::debug!(connection = self.name, "the NATS client ended; it is replaced");
        self.metrics.nats_client_replaced(&self.name);
        self.connected.send_replace(true);
        let Self { settings, name, metrics, changes, connected, health, .. } = &*self;
        let new = retry_forever(health, || connect(settings, name, metrics, changes, connected)).await;
        let jetstream = connect::jetstream(new.client.clone(), settings);
        self.current.send_replace(Current { client: new.client, jetstream });
        self.changes.send_modify(|count| *count += 1);
        self.ended = new.ended;
    }
}
