//! The NATS servers: whether they can be reached, accept the login, and are new and large enough.

use std::time::Duration;

use crate::{
    contract::settings::MAX_DEAD_LETTER,
    doctor::{Finding, Section, Severity, links},
    versions,
};

const S: Section = Section::Nats;

/// A round trip beyond this slows down every Job: its events are published one after the other.
const SLOW: Duration = Duration::from_millis(250);

/// One URL of the list, and what a connection to it showed.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// The URL without credentials.
    pub url: String,
    /// The connection, or why there is none.
    pub connection: Result<Connected, Refusal>,
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The setting that most likely caused it.
    pub setting: String,
    /// The error.
    pub message: String,
}

/// What a server says about itself and the connection.
#[derive(Debug, Clone, PartialEq)]
pub struct Connected {
    /// The version of the server.
    pub version: String,
    /// The largest message, in bytes.
    pub max_payload: u64,
    /// Whether the connection uses TLS.
    pub is_encrypted: bool,
    /// Whether a password or token is sent.
    pub sends_secret: bool,
    /// Whether the server requires a login.
    pub requires_login: bool,
    /// Whether the server is on this machine.
    pub is_local: bool,
    /// The time of a message to this client itself; `None` if it did not arrive.
    pub round_trip: Option<Duration>,
}

/// The findings about the servers.
#[must_use]
pub fn findings(servers: &[Server], inbox_prefix: &str) -> Vec<Finding> {
    let is_any_connected = servers.iter().any(|server| server.connection.is_ok());
    let of_server = |server: &Server| match &server.connection {
        Err(refusal) => vec![refused(&server.url, refusal, is_any_connected)],
        Ok(connected) => accepted(&server.url, connected, inbox_prefix),
    };
    servers.iter().flat_map(of_server).collect()
}

fn refused(url: &str, refusal: &Refusal, is_any_connected: bool) -> Finding {
    let Refusal { setting, message } = refusal;
    let (advice, link) = match setting.as_str() {
        "NATS_URL" => {
            let advice = "check NATS_URL: does the host name resolve, does a NATS server listen there, and \
                          does a NetworkPolicy or firewall permit the connection?";
            (advice.to_owned(), links::STARTUP_ERRORS)
        }
        "NATS_CA" => {
            let advice = "set NATS_CA to the file of the authority that signed the server's certificate";
            (advice.to_owned(), links::TLS)
        }
        "NATS_CERT" | "NATS_KEY" => {
            let advice = "set NATS_CERT and NATS_KEY to a certificate that the server accepts, and its key";
            (advice.to_owned(), links::TLS)
        }
        login => {
            let advice = format!(
                "check {login}: its file must be readable, and the server must know this login and give it the \
                 role `dispatcher`"
            );
            (advice, links::NATS_PERMISSIONS)
        }
    };
    // The client tries all servers of the list.
    let severity =
        if is_any_connected && setting == "NATS_URL" { Severity::Warning } else { Severity::Error };
    S.finding(severity, format!("server {url}"), format!("{setting}: {message}")).advise(advice).see(link)
}

fn accepted(url: &str, connected: &Connected, inbox_prefix: &str) -> Vec<Finding> {
    let Connected { version, max_payload, round_trip, .. } = connected;
    let subject = format!("server {url}");
    let login = if connected.requires_login { "login accepted" } else { "no login required" };
    let tls = if connected.is_encrypted { "TLS" } else { "no TLS" };
    let mut found = vec![S.ok(&subject, format!("connected ({login}, {tls})"))];
    if connected.sends_secret && !connected.is_encrypted && !connected.is_local {
        let advice = "enable TLS in the server, and set NATS_CA or a tls:// URL";
        let message = "the password or token is sent without TLS";
        found.push(S.warning(&subject, message).advise(advice).see(links::TLS));
    }
    found.push(version_finding(&subject, version));
    found.extend(payload_finding(&subject, *max_payload));
    found.push(match round_trip {
        None => {
            let advice = format!(
                "allow the user to publish and subscribe to {inbox_prefix}.>, or set NATS_INBOX_PREFIX to \
                 the prefix that it may use"
            );
            let message = "a message to the own inbox does not arrive";
            S.error(&subject, message).advise(advice).see(links::NATS_PERMISSIONS)
        }
        Some(time) if *time > SLOW => {
            let message = format!("round trip {} ms (limit: {} ms)", time.as_millis(), SLOW.as_millis());
            let advice = "run the dispatcher near the NATS servers: each Job needs several round trips";
            S.warning(&subject, message).advise(advice)
        }
        Some(time) => S.ok(&subject, format!("round trip {:.1} ms", time.as_secs_f64() * 1000.0)),
    });
    found
}

fn version_finding(subject: &str, version: &str) -> Finding {
    if versions::is_too_old(version) {
        let (major, minor) = versions::OLDEST_NATS;
        let message = format!("nats-server {version} is not supported ({major}.{minor} or newer is needed)");
        S.error(subject, message).advise("update nats-server to 2.10.26 or newer").see(links::INSTALL)
    } else if versions::skips_messages(version) {
        let message = format!("nats-server {version} can skip requests");
        S.warning(subject, message).advise("update nats-server to 2.10.26 or newer").see(links::INSTALL)
    } else {
        S.ok(subject, format!("nats-server {version}"))
    }
}

/// The largest request that the shipped stream accepts.
const MAX_REQUEST: u64 = 64 * 1024;

fn payload_finding(subject: &str, max_payload: u64) -> Option<Finding> {
    let (severity, least, effect) = if max_payload < MAX_DEAD_LETTER {
        (Severity::Error, MAX_DEAD_LETTER, "a dead letter does not fit")
    } else if max_payload < MAX_REQUEST {
        (Severity::Warning, MAX_REQUEST, "requests and status events must be smaller")
    } else {
        return None;
    };
    let message = format!("max_payload is {max_payload} bytes: {effect}");
    let advice =
        format!("set max_payload of the server and its account to at least {least} bytes (default: 1 MiB)");
    Some(S.finding(severity, subject, message).advise(advice).see(links::STREAMS))
}

/// Whether `JetStream` answers about the streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JetStream {
    /// It does.
    Answers,
    /// Nothing receives calls of its API.
    NoResponders,
    /// It refuses calls.
    Refused(String),
    /// The user may not call it.
    Denied,
    /// No answer within the deadline.
    Silent(String),
}

/// The finding about `JetStream`, whose API has this prefix.
#[must_use]
pub fn jetstream(state: &JetStream, api_prefix: &str) -> Finding {
    let subject = "JetStream";
    let is_default = api_prefix == "$JS.API";
    match state {
        JetStream::Answers => S.ok(subject, format!("answers on {api_prefix}")),
        JetStream::NoResponders if is_default => S
            .error(subject, "is not enabled in this account or server")
            .advise("enable JetStream: `jetstream {}` in the server's configuration, and `jetstream: enabled` in the account")
            .see(links::STREAMS),
        JetStream::NoResponders => S
            .error(subject, format!("nothing answers on {api_prefix}"))
            .advise("check NATS_JS_DOMAIN and NATS_JS_API_PREFIX: the domain must exist, or the account must import the API")
            .see(links::STREAMS),
        JetStream::Refused(error) => S
            .error(subject, format!("refuses calls: {error}"))
            .advise("enable JetStream for the account of the dispatcher: `jetstream: enabled`")
            .see(links::STREAMS),
        JetStream::Denied => S
            .error(subject, format!("the user may not publish to {api_prefix}.STREAM.INFO.*"))
            .advise("give the user the permissions of nats-config/roles/dispatcher.conf")
            .see(links::NATS_PERMISSIONS),
        JetStream::Silent(error) => S
            .error(subject, error)
            .advise("check that the JetStream cluster has a leader: `nats server report jetstream`")
            .see(links::MISSING_STREAMS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connected() -> Connected {
        Connected {
            version: "2.15.1".to_owned(),
            max_payload: 1 << 20,
            is_encrypted: true,
            sends_secret: true,
            requires_login: true,
            is_local: false,
            round_trip: Some(Duration::from_millis(2)),
        }
    }

    fn of(connection: Result<Connected, Refusal>) -> Vec<Finding> {
        findings(&[Server { url: "nats://a:4222".to_owned(), connection }], "_INBOX.dispatcher")
    }

    fn refusal(setting: &str) -> Refusal {
        Refusal { setting: setting.to_owned(), message: "cannot connect".to_owned() }
    }

    /// The finding that is not ok.
    fn problem(connected: Connected) -> Finding {
        let mut found = of(Ok(connected));
        found.retain(|finding| finding.severity != Severity::Ok);
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    #[test]
    fn healthy_server_has_no_problem() {
        assert!(of(Ok(connected())).iter().all(|finding| finding.severity == Severity::Ok));
        let local = Connected { is_encrypted: false, is_local: true, ..connected() };
        assert!(of(Ok(local)).iter().all(|finding| finding.severity == Severity::Ok));
    }

    #[test]
    fn advice_follows_the_setting_that_is_refused() {
        for (setting, advice) in [
            ("NATS_URL", "does the host name resolve"),
            ("NATS_CA", "authority that signed"),
            ("NATS_CERT", "NATS_CERT and NATS_KEY"),
            ("NATS_CREDS", "check NATS_CREDS: its file must be readable"),
        ] {
            let found = of(Err(refusal(setting)));
            assert_eq!(found[0].severity, Severity::Error);
            assert!(found[0].advice.as_ref().unwrap().contains(advice), "{found:?}");
        }
    }

    #[test]
    fn one_of_several_servers_may_be_away() {
        let server = |connection| Server { url: "nats://a:4222".to_owned(), connection };
        let of = |setting| findings(&[server(Ok(connected())), server(Err(refusal(setting)))], "_INBOX");
        assert_eq!(of("NATS_URL").last().unwrap().severity, Severity::Warning);
        assert_eq!(of("NATS_CREDS").last().unwrap().severity, Severity::Error, "it can be refused anywhere");
    }

    #[test]
    fn each_property_of_a_server_has_its_limit() {
        let too_old = problem(Connected { version: "2.9.25".to_owned(), ..connected() });
        assert_eq!(too_old.severity, Severity::Error);
        assert!(too_old.advice.unwrap().contains("update nats-server"));
        let skips = problem(Connected { version: "2.10.20".to_owned(), ..connected() });
        assert_eq!(skips.severity, Severity::Warning);
        let small = problem(Connected { max_payload: 1000, ..connected() });
        assert!(small.severity == Severity::Error && small.advice.unwrap().contains("at least 16384"));
        assert_eq!(problem(Connected { max_payload: 20_000, ..connected() }).severity, Severity::Warning);
        let clear = problem(Connected { is_encrypted: false, ..connected() });
        assert!(clear.severity == Severity::Warning && clear.message.contains("without TLS"));
        let slow = problem(Connected { round_trip: Some(Duration::from_secs(1)), ..connected() });
        assert_eq!(slow.severity, Severity::Warning);
        let inbox = problem(Connected { round_trip: None, ..connected() });
        assert!(inbox.advice.unwrap().contains("_INBOX.dispatcher.>"));
    }

    #[test]
    fn each_failure_of_jetstream_has_its_own_advice() {
        let advice = |state, prefix| jetstream(&state, prefix).advice.unwrap_or_default();
        assert_eq!(advice(JetStream::Answers, "$JS.API"), "");
        assert!(advice(JetStream::NoResponders, "$JS.API").contains("enable JetStream"));
        assert!(advice(JetStream::NoResponders, "$JS.hub.API").contains("NATS_JS_DOMAIN"));
        assert!(advice(JetStream::Refused("x".to_owned()), "$JS.API").contains("jetstream: enabled"));
        assert!(advice(JetStream::Denied, "$JS.API").contains("roles/dispatcher.conf"));
        assert!(advice(JetStream::Silent("no answer".to_owned()), "$JS.API").contains("leader"));
    }
}
