//! The settings of submitters: the key that signs them, and the limit of `cancel`.

use std::path::PathBuf;

use clap::{Args, builder::BoolishValueParser};
use dispatcher_core::contract::submitter::{SubmitterKey, Submitters};

use crate::cli::start_error::StartError;

const KEY: &str = "DISPATCHER_SUBMITTER_KEY";

/// The settings of submitters.
#[derive(Debug, Clone, Default, Args)]
pub struct SubmitterSettings {
    /// File with a secret of at least 32 bytes, the same for all replicas. It signs the submitter
    /// that `submit` stores with a request. Without it, anyone who may publish on
    /// `jobs.<template>.create` can name another submitter. Default: none.
    #[arg(id = "submitter_key", long = "submitter-key", env = KEY, value_name = "FILE")]
    pub key: Option<PathBuf>,

    /// `cancel` accepts only requests of the caller's own NATS account. Requires a submitter key.
    #[arg(
        id = "cancel_own_account_only",
        long = "cancel-own-account-only",
        env = "DISPATCHER_CANCEL_OWN_ACCOUNT_ONLY",
        value_name = "BOOLEAN",
        num_args = 0..=1,
        default_value_t = false,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new()
    )]
    pub cancel_own_account_only: bool,
}

impl SubmitterSettings {
    /// Reads the key.
    ///
    /// # Errors
    /// [`StartError`] if the key cannot be used, or is required and missing.
    pub(crate) fn load(&self) -> Result<Submitters, StartError> {
        let key = match &self.key {
            None if self.cancel_own_account_only => {
                let message = "must be set with DISPATCHER_CANCEL_OWN_ACCOUNT_ONLY: without a key, a client \
                               can name another submitter";
                return Err(StartError::new(KEY, message));
            }
            None => None,
            Some(path) => {
                let error = |e: String| StartError::new(KEY, format!("{}: {e}", path.display()));
                let bytes = std::fs::read(path).map_err(|e| error(e.to_string()))?;
                Some(SubmitterKey::new(&bytes).map_err(error)?)
            }
        };
        Ok(Submitters { key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_to_the_own_account_requires_a_usable_key() {
        let settings = |key: Option<PathBuf>| SubmitterSettings { key, cancel_own_account_only: true };
        let error = settings(None).load().map(|_| ()).unwrap_err().to_string();
        assert!(error.starts_with("DISPATCHER_SUBMITTER_KEY: must be set"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        for (key, expected) in [(None, "No such file"), (Some("short\n"), "5 bytes")] {
            if let Some(key) = key {
                std::fs::write(&file, key).unwrap();
            }
            let error = settings(Some(file.clone())).load().map(|_| ()).unwrap_err().to_string();
            assert!(error.starts_with("DISPATCHER_SUBMITTER_KEY: ") && error.contains(expected), "{error}");
        }
        std::fs::write(&file, "x".repeat(32)).unwrap();
        assert!(settings(Some(file)).load().unwrap().key.is_some());
    }
}
