//! The login to NATS.
//!
//! Files are read at every connect, so that a rotated secret is used without a restart.

use std::path::{Path, PathBuf};

use async_nats::Auth;
use nkeys::KeyPair;

use crate::cli::{Nats, StartError};

/// A secret, or the file that contains it.
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
            // Editors and `echo` end a file with a line break. It is not part of the secret.
            Self::File(path) => read(path).await.map(|text| text.trim_end_matches(['\r', '\n']).to_owned()),
        }
    }
}

#[derive(Clone)]
enum Method {
    Creds(PathBuf),
    Nkey(PathBuf),
    Password(String, Option<Secret>),
    Token(Secret),
}

/// A login method, and the setting that selects it.
#[derive(Clone)]
pub(crate) struct Credentials {
    method: Method,
    setting: &'static str,
}

impl Credentials {
    /// The login of the settings, if they contain one.
    pub(crate) fn of(settings: &Nats) -> Option<Self> {
        let Nats { creds, nkey, user, password, password_file, token, token_file, .. } = settings;
        let nkey = || nkey.clone().map(Method::Nkey);
        let token = || Secret::of(token.as_ref(), token_file.as_ref()).map(Method::Token);
        let password = || Secret::of(password.as_ref(), password_file.as_ref());
        let user = || user.clone().map(|user| Method::Password(user, password()));
        let method = creds.clone().map(Method::Creds).or_else(nkey).or_else(token).or_else(user)?;
        Some(Self { method, setting: settings.credential() })
    }

    /// Checks that the credentials are readable and valid.
    ///
    /// # Errors
    /// [`StartError`] with the setting, if a file is unreadable or contains no such secret.
    pub(crate) async fn check(&self) -> Result<(), StartError> {
        self.authenticate(b"").await.map(drop).map_err(|message| StartError::new(self.setting, message))
    }

    /// The login for the server. A key signs the server's `nonce` and is never sent.
    ///
    /// # Errors
    /// If a file is unreadable or contains no such secret.
    pub(crate) async fn authenticate(&self, nonce: &[u8]) -> Result<Auth, String> {
        let mut auth = Auth::new();
        match &self.method {
            Method::Creds(path) => {
                let text = read(path).await?;
                let (jwt, seed) = jwt_and_seed(&text).ok_or_else(|| {
                    let expected = "expected the JWT and the nkey seed of a user, as `nsc` writes them";
                    format!("{}: {expected}", path.display())
                })?;
                auth.signature = Some(key(seed)?.sign(nonce).map_err(|e| e.to_string())?);
                auth.jwt = Some(jwt.to_owned());
            }
            // The error of a missing file contains the path, so the path must not be a seed.
            Method::Nkey(path) if looks_like_seed(path) => {
                return Err("expected the path of a file with the seed, found a seed".to_owned());
            }
            Method::Nkey(path) => {
                let key = key(read(path).await?.trim())?;
                auth.signature = Some(key.sign(nonce).map_err(|e| e.to_string())?);
                auth.nkey = Some(key.public_key());
            }
            Method::Password(user, password) => {
                auth.username = Some(user.clone());
                auth.password = Some(match password {
                    Some(password) => password.read().await?,
                    None => String::new(),
                });
            }
            Method::Token(token) => auth.token = Some(token.read().await?),
        }
        Ok(auth)
    }
}

/// Whether a path looks like an encoded nkey seed: `S`, the type of the key, and base32.
fn looks_like_seed(path: &Path) -> bool {
    let text = path.to_string_lossy();
    let base32 = |c: char| c.is_ascii_uppercase() || ('2'..='7').contains(&c);
    text.len() == 58 && text.starts_with('S') && text.chars().all(base32)
}

fn key(seed: &str) -> Result<KeyPair, String> {
    KeyPair::from_seed(seed).map_err(|error| format!("expected the seed of an nkey (SU...): {error}"))
}

/// The JWT and the seed of a credentials file, as `nsc` writes it: each follows a line of dashes.
fn jwt_and_seed(text: &str) -> Option<(&str, &str)> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let is_begin = |line: &str| line.starts_with("---") && line.contains("BEGIN");
    let mut secrets =
        lines.clone().zip(lines.skip(1)).filter(|(line, _)| is_begin(line)).map(|(_, secret)| secret);
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
    fn a_credentials_file_contains_a_jwt_and_a_seed() {
        assert_eq!(jwt_and_seed(CREDS), Some(("eyJ0.eyJq.sig", "SUABC")));
        assert_eq!(jwt_and_seed(&CREDS.replace('\n', "\r\n")), Some(("eyJ0.eyJq.sig", "SUABC")));
        let (half, _) = CREDS.split_once("****").unwrap();
        assert_eq!(jwt_and_seed(half), None, "an incomplete file");
    }

    #[tokio::test]
    async fn a_file_is_read_at_each_connect() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let method = Method::Token(Secret::File(file.clone()));
        let credentials = Credentials { method, setting: "NATS_TOKEN_FILE" };
        assert!(credentials.check().await.unwrap_err().to_string().starts_with("NATS_TOKEN_FILE: "));
        for token in ["one", " two "] {
            std::fs::write(&file, format!("{token}\n")).unwrap();
            assert_eq!(credentials.authenticate(b"").await.unwrap().token.as_deref(), Some(token));
        }
    }

    #[tokio::test]
    async fn the_error_of_an_invalid_seed_does_not_contain_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("seed");
        std::fs::write(&file, "SUNOSEED\n").unwrap();
        let credentials = Credentials { method: Method::Nkey(file), setting: "NATS_NKEY" };
        let error = credentials.check().await.unwrap_err().to_string();
        assert!(error.starts_with("NATS_NKEY: expected the seed of an nkey"), "{error}");
        assert!(!error.contains("NOSEED"), "{error}");
    }

    #[tokio::test]
    async fn the_error_of_a_seed_in_place_of_a_path_does_not_contain_it() {
        let seed = KeyPair::new_user().seed().unwrap();
        let credentials = Credentials { method: Method::Nkey(seed.clone().into()), setting: "NATS_NKEY" };
        let error = credentials.check().await.unwrap_err().to_string();
        assert!(error.starts_with("NATS_NKEY: expected the path of a file"), "{error}");
        assert!(!error.contains(&seed), "{error}");
    }

    proptest! {
        #[test]
        fn any_text_can_be_parsed(text in ".*") {
            let _ = jwt_and_seed(&text);
        }
    }
}
