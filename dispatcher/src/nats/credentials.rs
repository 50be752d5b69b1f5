//! As whom the service logs in to NATS. What stands in a file is read at every connect, so that a rotated secret is in
//! use from the next connection on, without a restart.

use std::path::{Path, PathBuf};

use async_nats::Auth;
use nkeys::KeyPair;

use crate::cli::{Nats, StartError};

/// A secret that was given itself, or the file that holds it.
#[derive(Clone)]
enum Secret {
    Value(String),
    File(PathBuf),
}

impl Secret {
    fn of(value: Option<&String>, file: Option<&PathBuf>) -> Option<Self> {
        let file = || file.map(|path| Self::File(path.clone()));
        value.map(|value| Self::Value(value.clone())).or_else(file)
    }

    async fn read(&self) -> Result<String, String> {
        match self {
            Self::Value(value) => Ok(value.clone()),
            // Editors and `echo` end a file with a line end, which is no part of the secret.
            Self::File(path) => read(path).await.map(|text| text.trim_end_matches(['\r', '\n']).to_owned()),
        }
    }
}

#[derive(Clone)]
enum Way {
    Creds(PathBuf),
    Nkey(PathBuf),
    Password(String, Option<Secret>),
    Token(Secret),
}

/// A way of logging in.
#[derive(Clone)]
pub struct Credentials {
    way: Way,
    setting: &'static str,
}

impl Credentials {
    /// What the settings say; `None` where they say nothing.
    pub fn of(settings: &Nats) -> Option<Self> {
        let Nats { creds, nkey, user, password, password_file, token, token_file, .. } = settings;
        let nkey = || nkey.clone().map(Way::Nkey);
        let token = || Secret::of(token.as_ref(), token_file.as_ref()).map(Way::Token);
        let password = || Secret::of(password.as_ref(), password_file.as_ref());
        let user = || user.clone().map(|user| Way::Password(user, password()));
        let way = creds.clone().map(Way::Creds).or_else(nkey).or_else(token).or_else(user)?;
        Some(Self { way, setting: settings.credential() })
    }

    /// The setting, and whether what it says can be used at all.
    ///
    /// # Errors
    /// [`StartError`] with the setting, where a file cannot be read or holds no such secret.
    pub async fn check(&self) -> Result<(), StartError> {
        self.answer(b"").await.map(drop).map_err(|message| StartError::new(self.setting, message))
    }

    /// What is told to the server: of a key only that one has it, by a signature of the server's `nonce`.
    ///
    /// # Errors
    /// Where a file cannot be read or holds no such secret.
    pub async fn answer(&self, nonce: &[u8]) -> Result<Auth, String> {
        let mut auth = Auth::new();
        match &self.way {
            Way::Creds(path) => {
                let text = read(path).await?;
                let (jwt, seed) = parts(&text).ok_or_else(|| {
                    let expected = "expected a user's JWT and an nkey's seed, each between lines of dashes";
                    format!("{}: {expected}", path.display())
                })?;
                auth.signature = Some(key(seed)?.sign(nonce).map_err(|e| e.to_string())?);
                auth.jwt = Some(jwt.to_owned());
            }
            // The error of a missing file names its path, which must not be the seed itself.
            Way::Nkey(path) if looks_like_seed(path) => {
                return Err("expected the path of a file with the seed, found a seed".to_owned());
            }
            Way::Nkey(path) => {
                let key = key(read(path).await?.trim())?;
                auth.signature = Some(key.sign(nonce).map_err(|e| e.to_string())?);
                auth.nkey = Some(key.public_key());
            }
            Way::Password(user, password) => {
                auth.username = Some(user.clone());
                auth.password = Some(match password {
                    Some(password) => password.read().await?,
                    None => String::new(),
                });
            }
            Way::Token(token) => auth.token = Some(token.read().await?),
        }
        Ok(auth)
    }
}

/// Whether a path has the form of an encoded nkey seed: `S`, the type of the key, and base32.
fn looks_like_seed(path: &Path) -> bool {
    let text = path.to_string_lossy();
    let base32 = |c: char| c.is_ascii_uppercase() || ('2'..='7').contains(&c);
    text.len() == 58 && text.starts_with('S') && text.chars().all(base32)
}

fn key(seed: &str) -> Result<KeyPair, String> {
    KeyPair::from_seed(seed).map_err(|error| format!("expected the seed of an nkey (SU...): {error}"))
}

/// The JWT and the seed of a credentials file, as `nsc` writes it: each a line after one of dashes.
fn parts(text: &str) -> Option<(&str, &str)> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let begins = |line: &str| line.starts_with("---") && line.contains("BEGIN");
    let mut secrets =
        lines.clone().zip(lines.skip(1)).filter(|(line, _)| begins(line)).map(|(_, secret)| secret);
    Some((secrets.next()?, secrets.next()?))
}

async fn read(path: &Path) -> Result<String, String> {
    tokio::fs::read_to_string(path).await.map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CREDS: &str = "-----BEGIN NATS USER JWT-----\neyJ0.eyJq.sig\n------END NATS USER JWT------\n\n\
        ************************* IMPORTANT *************************\nNKEY Seed printed below can be used to \
        sign and prove identity.\n\n-----BEGIN USER NKEY SEED-----\nSUABC\n------END USER NKEY SEED------\n";

    #[test]
    fn a_credentials_file_holds_a_jwt_and_a_seed() {
        assert_eq!(parts(CREDS), Some(("eyJ0.eyJq.sig", "SUABC")));
        assert_eq!(parts(&CREDS.replace('\n', "\r\n")), Some(("eyJ0.eyJq.sig", "SUABC")));
        let (half, _) = CREDS.split_once("****").unwrap();
        assert_eq!(parts(half), None, "a file that is not written to its end yet");
    }

    #[tokio::test]
    async fn a_file_is_read_at_each_connect() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let way = Way::Token(Secret::File(file.clone()));
        let credentials = Credentials { way, setting: "NATS_TOKEN_FILE" };
        assert!(credentials.check().await.unwrap_err().to_string().starts_with("NATS_TOKEN_FILE: "));
        for token in ["one", " two "] {
            std::fs::write(&file, format!("{token}\n")).unwrap();
            assert_eq!(credentials.answer(b"").await.unwrap().token.as_deref(), Some(token));
        }
    }

    #[tokio::test]
    async fn an_invalid_seed_is_an_error_that_does_not_contain_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("seed");
        std::fs::write(&file, "SUNOSEED\n").unwrap();
        let credentials = Credentials { way: Way::Nkey(file), setting: "NATS_NKEY" };
        let error = credentials.check().await.unwrap_err().to_string();
        assert!(error.starts_with("NATS_NKEY: expected the seed of an nkey"), "{error}");
        assert!(!error.contains("NOSEED"), "{error}");
    }

    #[tokio::test]
    async fn a_seed_in_place_of_a_path_is_an_error_that_does_not_contain_it() {
        let seed = KeyPair::new_user().seed().unwrap();
        let credentials = Credentials { way: Way::Nkey(seed.clone().into()), setting: "NATS_NKEY" };
        let error = credentials.check().await.unwrap_err().to_string();
        assert!(error.starts_with("NATS_NKEY: expected the path of a file"), "{error}");
        assert!(!error.contains(&seed), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in ".*") {
            let _ = parts(&text);
        }
    }
}
