//! The settings of the connection to NATS.
//!
//! At most one kind of credentials is allowed. Files are read at every connect, so that rotated
//! credentials take effect without a restart.

use std::{fmt, path::PathBuf};

use clap::Args;

use crate::cli::naming::Naming;

/// The settings of the connection to NATS.
#[derive(Clone, Args)]
pub struct Nats {
    /// URLs of the NATS servers, separated by commas.
    #[arg(
        id = "nats_url",
        long = "nats-url",
        env = "NATS_URL",
        value_name = "URLS",
        value_delimiter = ',',
        default_value = "nats://127.0.0.1:4222"
    )]
    pub url: Vec<String>,

    /// Credentials file (JWT and seed). Default: none.
    #[arg(
        id = "nats_creds",
        long = "nats-creds",
        env = "NATS_CREDS",
        value_name = "FILE",
        conflicts_with_all = ["nats_nkey", "nats_user", "nats_token", "nats_token_file"]
    )]
    pub creds: Option<PathBuf>,

    /// File with the seed of an nkey. Default: none.
    #[arg(
        id = "nats_nkey",
        long = "nats-nkey",
        env = "NATS_NKEY",
        value_name = "FILE",
        hide_env_values = true,
        conflicts_with_all = ["nats_user", "nats_token", "nats_token_file"]
    )]
    pub nkey: Option<PathBuf>,

    /// User name. Default: none.
    #[arg(
        id = "nats_user",
        long = "nats-user",
        env = "NATS_USER",
        value_name = "USER",
        conflicts_with_all = ["nats_token", "nats_token_file"]
    )]
    pub user: Option<String>,

    /// Password of the user. Default: none.
    #[arg(
        id = "nats_password",
        long = "nats-password",
        env = "NATS_PASSWORD",
        value_name = "PASSWORD",
        hide_env_values = true,
        requires = "nats_user",
        conflicts_with = "nats_password_file"
    )]
    pub password: Option<String>,

    /// File with the password of the user. Default: none.
    #[arg(
        id = "nats_password_file",
        long = "nats-password-file",
        env = "NATS_PASSWORD_FILE",
        value_name = "FILE",
        requires = "nats_user"
    )]
    pub password_file: Option<PathBuf>,

    /// Token. Default: none.
    #[arg(
        id = "nats_token",
        long = "nats-token",
        env = "NATS_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true,
        conflicts_with = "nats_token_file"
    )]
    pub token: Option<String>,

    /// File with the token. Default: none.
    #[arg(id = "nats_token_file", long = "nats-token-file", env = "NATS_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// File with the certificate authority of the servers (PEM); requires TLS. Default: the
    /// system's authorities.
    #[arg(id = "nats_ca", long = "nats-ca", env = "NATS_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,

    /// File with the client certificate (PEM); requires TLS. Default: none.
    #[arg(
        id = "nats_cert",
        long = "nats-cert",
        env = "NATS_CERT",
        value_name = "FILE",
        requires = "nats_key"
    )]
    pub cert: Option<PathBuf>,

    /// File with the key of the client certificate (PEM). Default: none.
    #[arg(id = "nats_key", long = "nats-key", env = "NATS_KEY", value_name = "FILE", requires = "nats_cert")]
    pub key: Option<PathBuf>,

    /// Prefix of the dispatcher's inbox subjects, which only the dispatcher should be allowed to
    /// subscribe to. Default: `_INBOX.dispatcher`, with a prefix `_INBOX.<prefix>_dispatcher`.
    #[arg(
        id = "nats_inbox_prefix",
        long = "nats-inbox-prefix",
        env = "NATS_INBOX_PREFIX",
        value_name = "SUBJECT",
        value_parser = literal_subject
    )]
    pub inbox_prefix: Option<String>,

    /// `JetStream` domain of the streams, if they are behind a leaf node. Default: the server's own.
    #[arg(
        id = "nats_js_domain",
        long = "nats-js-domain",
        env = "NATS_JS_DOMAIN",
        value_name = "DOMAIN",
        value_parser = domain,
        conflicts_with = "nats_js_api_prefix"
    )]
    pub js_domain: Option<String>,

    /// Prefix of the `JetStream` API's subjects, if they are imported from another account.
    #[arg(
        id = "nats_js_api_prefix",
        long = "nats-js-api-prefix",
        env = "NATS_JS_API_PREFIX",
        value_name = "SUBJECT",
        default_value = "$JS.API",
        value_parser = literal_subject
    )]
    pub js_api_prefix: String,

    /// The names of the subjects and streams.
    #[command(flatten)]
    pub naming: Naming,
}

// Keeps secrets out of logs.
impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats").finish_non_exhaustive()
    }
}

impl Nats {
    /// The prefix of the `JetStream` API's subjects.
    #[must_use]
    pub fn api_prefix(&self) -> String {
        match &self.js_domain {
            Some(domain) => format!("$JS.{domain}.API"),
            None => self.js_api_prefix.clone(),
        }
    }

    /// The prefix of the dispatcher's inbox subjects.
    #[must_use]
    pub fn inbox_prefix(&self) -> String {
        self.inbox_prefix.clone().unwrap_or_else(|| format!("_INBOX.{}", self.naming.names.service()))
    }

    /// The setting of the credentials, for the error of a server that refuses them.
    #[must_use]
    pub fn credential(&self) -> &'static str {
        let settings = [
            (self.creds.is_some(), "NATS_CREDS"),
            (self.nkey.is_some(), "NATS_NKEY"),
            (self.token.is_some(), "NATS_TOKEN"),
            (self.token_file.is_some(), "NATS_TOKEN_FILE"),
            (self.password_file.is_some(), "NATS_PASSWORD_FILE"),
        ];
        settings.iter().find(|(is_set, _)| *is_set).map_or("NATS_USER", |(_, setting)| setting)
    }
}

fn domain(text: &str) -> Result<String, String> {
    if !text.contains('.') && literal_subject(text).is_ok() {
        Ok(text.to_owned())
    } else {
        Err("expected one token of a subject, such as hub".to_owned())
    }
}

fn literal_subject(text: &str) -> Result<String, String> {
    let token =
        |token: &str| !token.is_empty() && !token.contains(|c: char| c.is_whitespace() || "*>".contains(c));
    if text.split('.').all(token) {
        Ok(text.to_owned())
    } else {
        Err("expected a subject without wildcards, such as _INBOX.dispatcher".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parse(args: &[&str]) -> Result<Nats, clap::Error> {
        match Cli::try_parse_from([&["dispatcher", "run"], args].concat())?.command {
            Command::Run(config) => Ok(config.nats),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn comma_separated_servers_are_split() {
        assert_eq!(
            parse(&["--nats-url", "nats://a:1,nats://b:2"]).unwrap().url,
            ["nats://a:1", "nats://b:2"]
        );
    }

    #[test]
    fn two_kinds_of_credentials_are_refused() {
        let kinds = [
            ("NATS_CREDS", vec!["--nats-creds", "f"]),
            ("NATS_NKEY", vec!["--nats-nkey", "f"]),
            ("NATS_USER", vec!["--nats-user", "u", "--nats-password", "p"]),
            ("NATS_PASSWORD_FILE", vec!["--nats-user", "u", "--nats-password-file", "f"]),
            ("NATS_TOKEN", vec!["--nats-token", "t"]),
            ("NATS_TOKEN_FILE", vec!["--nats-token-file", "f"]),
        ];
        for (setting, args) in &kinds {
            assert_eq!(parse(args).unwrap().credential(), *setting);
            for (_, other) in kinds.iter().filter(|(other, _)| other != setting) {
                assert!(parse(&[&args[..], other].concat()).is_err(), "{args:?} {other:?}");
            }
        }
        assert!(parse(&["--nats-cert", "c"]).is_err(), "without its key");
        assert!(parse(&["--nats-password-file", "f"]).is_err(), "without its user");
    }

    #[test]
    fn inbox_prefix_is_a_subject_without_wildcards() {
        assert_eq!(parse(&[]).unwrap().inbox_prefix(), "_INBOX.dispatcher");
        assert_eq!(parse(&["--prefix", "blue"]).unwrap().inbox_prefix(), "_INBOX.blue_dispatcher");
        assert_eq!(parse(&["--nats-inbox-prefix", "_INBOX.x"]).unwrap().inbox_prefix(), "_INBOX.x");
        for bad in ["", "_INBOX.", "_INBOX.*", "_INBOX.>", "a b"] {
            assert!(parse(&["--nats-inbox-prefix", bad]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn prefix_is_one_token_or_empty() {
        assert_eq!(parse(&["--prefix", "blue"]).unwrap().naming.names.jobs(), "blue_JOBS");
        assert_eq!(parse(&["--prefix", ""]).unwrap().naming.names.jobs(), "JOBS");
        for bad in ["a.b", "jobs", "A", "*"] {
            assert!(parse(&["--prefix", bad]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn domain_or_prefix_selects_the_jetstream_api() {
        assert_eq!(parse(&[]).unwrap().api_prefix(), "$JS.API");
        assert_eq!(parse(&["--nats-js-domain", "hub"]).unwrap().api_prefix(), "$JS.hub.API");
        assert_eq!(parse(&["--nats-js-api-prefix", "JS.acme"]).unwrap().api_prefix(), "JS.acme");
        assert!(parse(&["--nats-js-domain", "hub", "--nats-js-api-prefix", "JS.acme"]).is_err());
        for bad in ["", "a.b", "*", "a b"] {
            assert!(parse(&["--nats-js-domain", bad]).is_err(), "{bad:?}");
        }
    }
}
