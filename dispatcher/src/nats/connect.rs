//! The connection to NATS.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::{AuthError, Client, ConnectOptions, Event, ServerAddr, client::FlushErrorKind, jetstream};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::nats::credentials::Credentials;
use crate::{
    cli::{Nats, StartError},
    kube::chain,
    telemetry::{health::Component, metrics::Metrics},
};

/// How long the first connection may take, over all servers of the list.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often it is looked whether the client lives.
const LOOK: Duration = Duration::from_secs(2);

/// Connects with the settings' credentials; reconnects by itself for ever after: `health` tells
/// whether it is connected, `reconnects` counts how often it was not for a while.
///
/// # Errors
/// [`StartError`] with the setting that is wrong.
pub async fn connect(
    settings: &Nats,
    health: Component,
    reconnects: watch::Sender<u64>,
    metrics: Metrics,
) -> Result<Client, StartError> {
    let wrong = |setting, error: &dyn std::error::Error| StartError::new(setting, chain(error));
    let mut servers = Vec::new();
    for url in &settings.url {
        servers.push(url.parse::<ServerAddr>().map_err(|e| wrong("NATS_URL", &e))?);
    }
    let lost = Arc::new(AtomicBool::new(false));
    let mut options = login(settings)
        .await?
        .name("dispatcher")
        .custom_inbox_prefix(&settings.inbox_prefix)
        .connection_timeout(Duration::from_secs(5))
        .ping_interval(Duration::from_secs(10))
        .max_reconnects(None)
        .reconnect_delay_callback(|tries| Duration::from_millis(100).saturating_mul(1 << tries.min(5)))
        .event_callback(move |event| {
            let (health, reconnects, lost) = (health.clone(), reconnects.clone(), lost.clone());
            let metrics = metrics.clone();
            async move {
                match event {
                    Event::Connected => {
                        health.ready();
                        metrics.nats_connected();
                        if lost.swap(false, Ordering::Relaxed) {
                            reconnects.send_modify(|count| *count += 1);
                        }
                    }
                    // At the end, by ourselves.
                    Event::Draining | Event::Closed => tracing::debug!(event = %event, "NATS"),
                    Event::Disconnected => {
                        metrics.nats_disconnected();
                        lost.store(true, Ordering::Relaxed);
                        health.not_ready("not connected");
                    }
                    other => tracing::warn!(event = %other, "NATS"),
                }
            }
        });
    for (setting, file) in
        [("NATS_CA", &settings.ca), ("NATS_CERT", &settings.cert), ("NATS_KEY", &settings.key)]
    {
        let Some(file) = file else { continue };
        let found = tokio::fs::read_to_string(file).await;
        let pem = found.map_err(|e| StartError::new(setting, format!("{}: {e}", file.display())))?;
        if !pem.contains("-----BEGIN ") {
            return Err(StartError::new(
                setting,
                format!("{}: expected PEM (-----BEGIN ...)", file.display()),
            ));
        }
    }
    if let Some(ca) = &settings.ca {
        options = options.add_root_certificates(ca.clone()).require_tls(true);
    }
    if let (Some(cert), Some(key)) = (&settings.cert, &settings.key) {
        options = options.add_client_certificate(cert.clone(), key.clone()).require_tls(true);
    }
    match timeout(DEADLINE, options.connect(servers)).await {
        Ok(Ok(client)) => Ok(client),
        Ok(Err(error)) => {
            let text = chain(&error);
            let setting = to_blame(settings, &text);
            Err(StartError::new(setting, format!("cannot connect to {}: {text}", shown(&settings.url))))
        }
        Err(_) => Err(StartError::new(
            "NATS_URL",
            format!("no connection to {} within {} s", shown(&settings.url), DEADLINE.as_secs()),
        )),
    }
}

/// Who one is: said anew at each connect.
async fn login(settings: &Nats) -> Result<ConnectOptions, StartError> {
    let Some(credentials) = Credentials::of(settings) else { return Ok(ConnectOptions::new()) };
    credentials.check().await?;
    Ok(ConnectOptions::with_auth_callback(move |nonce| {
        let credentials = credentials.clone();
        async move { credentials.answer(&nonce).await.map_err(AuthError::new) }
    }))
}

/// The setting to look at when the server, or what stands between, refuses the first connection so.
fn to_blame(settings: &Nats, refusal: &str) -> &'static str {
    let has = |words: &str| refusal.contains(words);
    if has("authorization") || has("expired") || has("signing") {
        settings.credential()
    } else if has("invalid peer certificate") || has("platform certs") || has("could not load certs") {
        "NATS_CA"
    } else if has("CertificateRequired") || has("received fatal alert") || has("certificate or key") {
        "NATS_CERT"
    } else {
        "NATS_URL"
    }
}

/// Ends when the client is no more: it reconnects for ever, but a message that its reader cannot bear ends it for good.
pub async fn ended(client: Client) {
    loop {
        sleep(LOOK).await;
        // Late is no matter: it waits while the connection is lost.
        if let Ok(Err(error)) = timeout(LOOK, client.flush()).await
            && error.kind() == FlushErrorKind::SendError
        {
            return;
        }
    }
}

/// The servers without what they are logged in with.
fn shown(urls: &[String]) -> String {
    let without = |url: &String| match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        (None, Some((_, host))) => host.to_owned(),
        (_, None) => url.clone(),
    };
    urls.iter().map(without).collect::<Vec<_>>().join(",")
}

/// JetStream over a connection.
pub fn jetstream(client: Client) -> jetstream::Context {
    jetstream::ContextBuilder::new().timeout(Duration::from_secs(5)).build(client)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_url_is_not_shown() {
        let urls = ["nats://user:secret@a:4222", "b:4222", "me:secret@c"].map(str::to_owned);
        assert_eq!(shown(&urls), "nats://a:4222,b:4222,c");
    }
}
