//! Connects to NATS: options, login, certificates.

use std::time::Duration;

use async_nats::{AuthError, Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr, jetstream};
use tokio_util::sync::CancellationToken;

use crate::{
    cli::{Nats, StartError},
    kube::chain,
    nats::credentials::Credentials,
    retry::with_deadline,
};

/// The deadline of one try to connect, over all servers of the list.
const DEADLINE: Duration = Duration::from_secs(10);
/// The deadline of one call to `JetStream`.
const CALL_DEADLINE: Duration = Duration::from_secs(5);

/// How many messages of one subscription wait for their reader; the client drops further ones. More
/// than the requests of the largest pull, and so few that a flood of large messages stays small.
const SUBSCRIPTION_CAPACITY: usize = 1200;

/// A connected client, and a token that is cancelled when it has ended.
pub(crate) struct Connected {
    pub(crate) client: Client,
    pub(crate) ended: CancellationToken,
}

/// Connects with the credentials of the settings. The client then reconnects by itself forever, and
/// reports its events to `on_event`.
///
/// Some messages that the client library cannot decode end its connection task. The client does not
/// report that, but it drops its callback, and with it the guard that cancels the token.
///
/// # Errors
/// [`StartError`] with the setting that is wrong.
pub(crate) async fn connect(
    settings: &Nats,
    name: &str,
    on_event: impl Fn(&Event) + Send + Sync + 'static,
) -> Result<Connected, StartError> {
    let mut servers = Vec::new();
    for url in &settings.url {
        let server = url.parse::<ServerAddr>();
        servers.push(server.map_err(|e| StartError::new("NATS_URL", chain(&e)))?);
    }
    let ended = CancellationToken::new();
    let guard = ended.clone().drop_guard();
    let options = login(settings)
        .await?
        .name(name)
        .custom_inbox_prefix(settings.inbox_prefix())
        .connection_timeout(Duration::from_secs(5))
        .ping_interval(Duration::from_secs(10))
        .max_reconnects(None)
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        .reconnect_delay_callback(reconnect_delay)
        .event_callback(move |event| {
            // Moves the guard into the callback.
            let _ = &guard;
            on_event(&event);
            std::future::ready(())
        });
    let options = with_tls(options, settings).await?;
    let (setting, reason, away) = match with_deadline(DEADLINE, options.connect(servers)).await {
        Ok(Ok(client)) => return Ok(Connected { client, ended }),
        Ok(Err(error)) => {
            let reason = chain(&error);
            let setting = setting_at_fault(settings, &reason);
            (setting, reason, setting == "NATS_URL" && is_away(error.kind()))
        }
        Err(error) => ("NATS_URL", error.to_string(), true),
    };
    let servers = without_credentials(&settings.url);
    let message = format!("cannot connect to {servers}: {reason}");
    Err(StartError::new(setting, message).transient_if(away))
}

/// The delay before the given try to connect. The first is short: after an undecodable message, the
/// server is there.
fn reconnect_delay(tries: usize) -> Duration {
    if tries <= 1 {
        Duration::from_millis(25)
    } else {
        Duration::from_millis(100).saturating_mul(1 << tries.min(5))
    }
}

/// Options with the login of the settings. Credentials are read again at each connect.
async fn login(settings: &Nats) -> Result<ConnectOptions, StartError> {
    let Some(credentials) = Credentials::of(settings) else { return Ok(ConnectOptions::new()) };
    credentials.check().await?;
    Ok(ConnectOptions::with_auth_callback(move |nonce| {
        let credentials = credentials.clone();
        async move { credentials.authenticate(&nonce).await.map_err(AuthError::new) }
    }))
}

/// Adds the certificates of the settings, after a check that each file is PEM.
async fn with_tls(mut options: ConnectOptions, settings: &Nats) -> Result<ConnectOptions, StartError> {
    for (setting, file) in
        [("NATS_CA", &settings.ca), ("NATS_CERT", &settings.cert), ("NATS_KEY", &settings.key)]
    {
        let Some(file) = file else { continue };
        let failed = |reason: String| StartError::new(setting, format!("{}: {reason}", file.display()));
        let pem = tokio::fs::read_to_string(file).await.map_err(|e| failed(e.to_string()))?;
        if !pem.contains("-----BEGIN ") {
            return Err(failed("expected PEM (-----BEGIN ...)".to_owned()));
        }
    }
    if let Some(ca) = &settings.ca {
        options = options.add_root_certificates(ca.clone()).require_tls(true);
    }
    if let (Some(cert), Some(key)) = (&settings.cert, &settings.key) {
        options = options.add_client_certificate(cert.clone(), key.clone()).require_tls(true);
    }
    Ok(options)
}

/// Whether the server may come back without a change by an operator. A name that does not resolve may
/// be that of a Service that is created later.
fn is_away(kind: ConnectErrorKind) -> bool {
    matches!(kind, ConnectErrorKind::Io | ConnectErrorKind::Dns | ConnectErrorKind::TimedOut)
}

/// The setting that most likely caused this error of the first connection.
fn setting_at_fault(settings: &Nats, error: &str) -> &'static str {
    let has = |text: &str| error.contains(text);
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

/// The server list without user names, passwords and tokens.
pub(crate) fn without_credentials(urls: &[String]) -> String {
    let host = |url: &String| match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        (None, Some((_, host))) => host.to_owned(),
        (_, None) => url.clone(),
    };
    urls.iter().map(host).collect::<Vec<_>>().join(",")
}

/// `JetStream` over a connection, with the API prefix of the settings.
pub(crate) fn jetstream(client: Client, settings: &Nats) -> jetstream::Context {
    let builder = jetstream::ContextBuilder::new().timeout(CALL_DEADLINE);
    builder.api_prefix(settings.api_prefix()).build(client)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_in_a_url_are_hidden() {
        let urls = ["nats://user:secret@a:4222", "b:4222", "me:secret@c"].map(str::to_owned);
        assert_eq!(without_credentials(&urls), "nats://a:4222,b:4222,c");
    }
}
