//! The settings of the connection to NATS.

use std::{fmt, path::PathBuf};

use clap::Args;

/// How to reach NATS. Who one is may be said in one way only; files are read at every connect.
#[derive(Clone, Args)]
pub struct Nats {
    /// Servers, separated by commas.
    #[arg(
        id = "nats_url",
        long = "nats-url",
        env = "NATS_URL",
        value_delimiter = ',',
        default_value = "nats://127.0.0.1:4222"
    )]
    pub url: Vec<String>,

    /// Credentials file (JWT and seed).
    #[arg(
        id = "nats_creds",
        long = "nats-creds",
        env = "NATS_CREDS",
        conflicts_with_all = ["nats_nkey", "nats_user", "nats_token", "nats_token_file"]
    )]
    pub creds: Option<PathBuf>,

    /// File with the seed of an nkey.
    #[arg(
        id = "nats_nkey",
        long = "nats-nkey",
        env = "NATS_NKEY",
        hide_env_values = true,
        conflicts_with_all = ["nats_user", "nats_token", "nats_token_file"]
    )]
    pub nkey: Option<PathBuf>,

    /// User.
    #[arg(
        id = "nats_user",
        long = "nats-user",
        env = "NATS_USER",
        conflicts_with_all = ["nats_token", "nats_token_file"]
    )]
    pub user: Option<String>,

    /// Password of the user.
    #[arg(
        id = "nats_password",
        long = "nats-password",
        env = "NATS_PASSWORD",
        hide_env_values = true,
        requires = "nats_user",
        conflicts_with = "nats_password_file"
    )]
    pub password: Option<String>,

    /// File with the password of the user.
    #[arg(
        id = "nats_password_file",
        long = "nats-password-file",
        env = "NATS_PASSWORD_FILE",
        requires = "nats_user"
    )]
    pub password_file: Option<PathBuf>,

    /// Token.
    #[arg(
        id = "nats_token",
        long = "nats-token",
        env = "NATS_TOKEN",
        hide_env_values = true,
        conflicts_with = "nats_token_file"
    )]
    pub token: Option<String>,

    /// File with the token.
    #[arg(id = "nats_token_file", long = "nats-token-file", env = "NATS_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,

    /// Certificate authority of the servers, PEM; implies TLS.
    #[arg(id = "nats_ca", long = "nats-ca", env = "NATS_CA")]
    pub ca: Option<PathBuf>,

    /// Client certificate, PEM; implies TLS.
    #[arg(id = "nats_cert", long = "nats-cert", env = "NATS_CERT", requires = "nats_key")]
    pub cert: Option<PathBuf>,

    /// Key of the client certificate, PEM.
    #[arg(id = "nats_key", long = "nats-key", env = "NATS_KEY", requires = "nats_cert")]
    pub key: Option<PathBuf>,

    /// What the subjects of answers begin with, so that the right to hear them can be given to the dispatcher alone.
    #[arg(
        id = "nats_inbox_prefix",
        long = "nats-inbox-prefix",
        env = "NATS_INBOX_PREFIX",
        value_name = "SUBJECT",
        default_value = "_INBOX.dispatcher",
        value_parser = literal_subject
    )]
    pub inbox_prefix: String,
}

/// Secrets stay out of logs.
impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats").finish_non_exhaustive()
    }
}

impl Nats {
    /// The setting with which the service says who it is: the one that is to be looked at when the server does not
    /// know it.
    pub fn credential(&self) -> &'static str {
        let given = [
            (self.creds.is_some(), "NATS_CREDS"),
            (self.nkey.is_some(), "NATS_NKEY"),
            (self.token.is_some(), "NATS_TOKEN"),
            (self.token_file.is_some(), "NATS_TOKEN_FILE"),
            (self.password_file.is_some(), "NATS_PASSWORD_FILE"),
        ];
        given.iter().find(|(given, _)| *given).map_or("NATS_USER", |(_, setting)| setting)
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
    fn a_list_of_servers_is_split() {
        assert_eq!(
            parse(&["--nats-url", "nats://a:1,nats://b:2"]).unwrap().url,
            ["nats://a:1", "nats://b:2"]
        );
    }

    #[test]
    fn two_ways_to_say_who_one_is_are_refused() {
        let ways = [
            ("NATS_CREDS", vec!["--nats-creds", "f"]),
            ("NATS_NKEY", vec!["--nats-nkey", "f"]),
            ("NATS_USER", vec!["--nats-user", "u", "--nats-password", "p"]),
            ("NATS_PASSWORD_FILE", vec!["--nats-user", "u", "--nats-password-file", "f"]),
            ("NATS_TOKEN", vec!["--nats-token", "t"]),
            ("NATS_TOKEN_FILE", vec!["--nats-token-file", "f"]),
        ];
        for (setting, way) in &ways {
            assert_eq!(parse(way).unwrap().credential(), *setting);
            for (_, other) in ways.iter().filter(|(other, _)| other != setting) {
                assert!(parse(&[&way[..], other].concat()).is_err(), "{way:?} {other:?}");
            }
        }
        assert!(parse(&["--nats-cert", "c"]).is_err(), "without its key");
        assert!(parse(&["--nats-password-file", "f"]).is_err(), "without its user");
    }

    #[test]
    fn the_prefix_of_inboxes_is_a_literal_subject() {
        assert_eq!(parse(&[]).unwrap().inbox_prefix, "_INBOX.dispatcher");
        for bad in ["", "_INBOX.", "_INBOX.*", "_INBOX.>", "a b"] {
            assert!(parse(&["--nats-inbox-prefix", bad]).is_err(), "{bad:?}");
        }
    }
}
