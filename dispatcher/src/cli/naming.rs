//! The prefix of the names in NATS.

use clap::Args;
use dispatcher_core::contract::nats_names::NatsNames;

/// The names of the subjects and streams.
#[derive(Debug, Clone, Args)]
pub struct Naming {
    /// Prefix of the subjects, the streams and the NATS service, such as `blue`: several
    /// installations can share an account. Default: none.
    #[arg(
        id = "prefix",
        long = "prefix",
        env = "DISPATCHER_PREFIX",
        value_name = "PREFIX",
        default_value = "",
        hide_default_value = true,
        value_parser = prefixed
    )]
    pub names: NatsNames,
}

/// The names with a prefix. An empty text is no prefix.
fn prefixed(text: &str) -> Result<NatsNames, String> {
    if text.is_empty() {
        return Ok(NatsNames::default());
    }
    NatsNames::with_prefix(text).map_err(|e| e.to_string())
}
