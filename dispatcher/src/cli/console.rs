//! The settings of the console, a web page on the admin port.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::cli::start_error::StartError;

const TOKEN_FILE: &str = "DISPATCHER_CONSOLE_TOKEN_FILE";
/// The shortest token, in bytes.
const MIN_TOKEN: usize = 16;

/// What the console can do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ConsoleMode {
    /// There is no console.
    #[default]
    Off,
    /// It shows templates, Jobs and dead letters.
    Read,
    /// With a token, it also submits requests and cancels Jobs.
    Write,
}

impl ConsoleMode {
    /// The value of the setting.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// The settings of the console.
#[derive(Debug, Clone, Default, Args)]
pub struct ConsoleSettings {
    /// Console at `/console/` of the admin address. `read` shows templates, Jobs and dead letters to
    /// everyone who reaches that address; `write` also submits and cancels, with a token.
    #[arg(
        id = "console",
        long = "console",
        env = "DISPATCHER_CONSOLE",
        value_name = "MODE",
        value_enum,
        default_value_t = ConsoleMode::Off
    )]
    pub mode: ConsoleMode,

    /// File with the token of the console, at least 16 bytes; required by `--console write`. It is
    /// read at every action. Default: none.
    #[arg(id = "console_token_file", long = "console-token-file", env = TOKEN_FILE, value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Names of the console's host besides IP addresses and `localhost`, such as that of an Ingress,
    /// separated by commas. Default: none.
    #[arg(
        id = "console_hosts",
        long = "console-hosts",
        env = "DISPATCHER_CONSOLE_HOSTS",
        value_name = "HOSTS",
        value_delimiter = ','
    )]
    pub hosts: Vec<String>,
}

impl ConsoleSettings {
    /// The file with the token, if the console can write.
    ///
    /// # Errors
    /// [`StartError`] if the token is required and cannot be used.
    pub(crate) fn writer(&self) -> Result<Option<PathBuf>, StartError> {
        if self.mode != ConsoleMode::Write {
            return Ok(None);
        }
        let Some(path) = &self.token_file else {
            return Err(StartError::new(TOKEN_FILE, "must be set with DISPATCHER_CONSOLE=write"));
        };
        let bytes = std::fs::read(path).map_err(|e| e.to_string());
        let token = bytes.and_then(|bytes| read_token(&bytes));
        token.map_err(|e| StartError::new(TOKEN_FILE, format!("{}: {e}", path.display())))?;
        Ok(Some(path.clone()))
    }
}

/// Reads the token again: it may have been rotated.
///
/// # Errors
/// The file cannot be read, or contains no token.
pub(crate) async fn current_token(path: &Path) -> Result<Vec<u8>, String> {
    read_token(&tokio::fs::read(path).await.map_err(|e| e.to_string())?)
}

/// The token in a file, without the white space around it.
fn read_token(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let token = bytes.trim_ascii();
    match token.len() {
        MIN_TOKEN.. if token.iter().all(u8::is_ascii_graphic) => Ok(token.to_vec()),
        MIN_TOKEN.. => Err("the token has characters other than visible ASCII".to_owned()),
        found => Err(format!("the token has {found} bytes (expected: at least {MIN_TOKEN})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(mode: ConsoleMode, token_file: Option<PathBuf>) -> ConsoleSettings {
        ConsoleSettings { mode, token_file, hosts: vec![] }
    }

    #[test]
    fn only_a_console_that_writes_needs_a_token() {
        for mode in [ConsoleMode::Off, ConsoleMode::Read] {
            assert_eq!(settings(mode, Some("/nowhere".into())).writer().unwrap(), None);
        }
        let error = settings(ConsoleMode::Write, None).writer().unwrap_err().to_string();
        assert!(error.starts_with("DISPATCHER_CONSOLE_TOKEN_FILE: must be set"), "{error}");
    }

    #[tokio::test]
    async fn token_is_long_visible_and_without_white_space_around_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let settings = settings(ConsoleMode::Write, Some(file.clone()));
        for (content, expected) in [
            (None, "No such file"),
            (Some(""), "0 bytes"),
            (Some("0123456789abcde\n"), "15 bytes"),
            (Some("0123456789 abcdef"), "visible ASCII"),
            (Some("0123456789abcdé"), "visible ASCII"),
        ] {
            if let Some(content) = content {
                std::fs::write(&file, content).unwrap();
            }
            let error = settings.writer().unwrap_err().to_string();
            assert!(
                error.starts_with("DISPATCHER_CONSOLE_TOKEN_FILE: ") && error.contains(expected),
                "{error}"
            );
            assert!(!error.contains("0123456789"), "the error shows the token: {error}");
        }
        std::fs::write(&file, " 0123456789abcdef\n").unwrap();
        assert_eq!(settings.writer().unwrap(), Some(file.clone()));
        assert_eq!(current_token(&file).await.unwrap(), b"0123456789abcdef");
    }
}
