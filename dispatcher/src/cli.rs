//! Settings, by flag and environment, in the field's own names.

mod nats;

use std::{collections::BTreeSet, net::SocketAddr, num::NonZeroU32, path::PathBuf};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

pub use crate::cli::nats::Nats;
use dispatcher_core::template::ImagePattern;

/// Turns NATS messages into Kubernetes Jobs, and tells on NATS what became of each.
#[derive(Debug, Parser)]
#[command(name = "dispatcher", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the service until SIGTERM or SIGINT.
    Run(Box<Config>),
    /// Check template files without a cluster: all problems of all files; exit code 2 where there are any.
    Check(Check),
    /// Run NATS, a local cluster and the service on this machine, to try it and to develop clients against it.
    #[cfg(feature = "dev")]
    Dev(Box<crate::dev::Settings>),
    /// Print the JSON Schemas of events, rejection notices and template files.
    Schemas {
        /// Write one file for each into this folder instead.
        #[arg(long)]
        output: Option<PathBuf>,
    },
    /// Print the streams and consumers of the loaded templates, as `nats stream add --config` takes them.
    NatsConfig {
        /// The folder of the templates.
        #[command(flatten)]
        templates: Templates,
        /// As resources of NACK, the controller that keeps JetStream as Kubernetes objects say: YAML for `kubectl apply`.
        #[arg(long)]
        nack: bool,
        /// Write one file for each into this folder instead; with --nack all into `nack.yaml`.
        #[arg(long)]
        output: Option<PathBuf>,
    },
}

/// What to check.
#[derive(Debug, Clone, Args)]
pub struct Check {
    /// Template files, or folders of them.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,

    /// Print the Job that this request would make of the one template, for `kubectl apply --dry-run=server -f -`.
    #[arg(long, value_name = "REQUEST")]
    pub render: Option<String>,

    /// What Jobs may be.
    #[command(flatten)]
    pub limits: Limits,
}

/// What the Jobs of all templates may be, beside what is refused in any case.
#[derive(Debug, Clone, Default, Args)]
pub struct Limits {
    /// Images that containers may have, separated by commas; `registry.example.org/team/*` for all that begin so.
    /// Without it any.
    #[arg(
        id = "allowed_images",
        long = "allowed-images",
        env = "DISPATCHER_ALLOWED_IMAGES",
        value_name = "IMAGES",
        value_delimiter = ','
    )]
    pub images: Option<Vec<ImagePattern>>,

    /// ServiceAccounts that Jobs may run under, separated by commas. Without it any of the namespace.
    #[arg(
        id = "allowed_service_accounts",
        long = "allowed-service-accounts",
        env = "DISPATCHER_ALLOWED_SERVICE_ACCOUNTS",
        value_name = "NAMES",
        value_delimiter = ','
    )]
    pub service_accounts: Option<Vec<String>>,

    /// `activeDeadlineSeconds` of Jobs whose template sets none, so that one whose pods never start ends too.
    #[arg(
        id = "default_active_deadline_seconds",
        long = "default-active-deadline-seconds",
        env = "DISPATCHER_DEFAULT_ACTIVE_DEADLINE_SECONDS",
        value_name = "SECONDS"
    )]
    pub active_deadline_seconds: Option<NonZeroU32>,
}

/// Where the templates are.
#[derive(Debug, Clone, Args)]
pub struct Templates {
    /// Folder with the templates, one YAML file for each template.
    #[arg(long = "templates", env = "DISPATCHER_TEMPLATES", default_value = "deploy/templates")]
    pub folder: PathBuf,
}

/// The settings of the service.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// NATS.
    #[command(flatten)]
    pub nats: Nats,

    /// Kubeconfig file; without it the usual one, or the one of the pod it runs in.
    #[arg(long, env = "KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,

    /// Namespace of the Jobs.
    #[arg(long, env = "DISPATCHER_NAMESPACE", default_value = "jobs")]
    pub namespace: String,

    /// The Lease.
    #[command(flatten)]
    pub lease: Lease,

    /// The templates.
    #[command(flatten)]
    pub templates: Templates,

    /// What Jobs may be.
    #[command(flatten)]
    pub limits: Limits,

    /// Requests of each template that are worked on at once.
    #[arg(long, env = "DISPATCHER_CONCURRENCY", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: u16,

    /// Callers of `submit` that wait for an event at once; further ones are refused.
    #[arg(long, env = "DISPATCHER_MAX_WAITERS", default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..))]
    pub max_waiters: u16,

    /// How long a caller of `submit` waits for an event at most, in seconds.
    #[arg(long, env = "DISPATCHER_MAX_WAIT", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub max_wait: u32,

    /// Address of `/livez`, `/readyz`, `/leader` and `/metrics`.
    #[arg(long, env = "DISPATCHER_ADMIN_ADDR", default_value = "0.0.0.0:8080")]
    pub admin_addr: SocketAddr,

    /// Form of the log lines; RUST_LOG sets how much is logged.
    #[arg(long, env = "DISPATCHER_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// Verify the streams and consumers, and create or change none.
    #[arg(long)]
    pub no_provision: bool,

    /// EventHandler over a JOB_STATUS that tells of another namespace or cluster: its open Jobs are taken for deleted.
    #[arg(long)]
    pub adopt: bool,
}

/// The Lease by which one of several replicas is elected to report.
#[derive(Debug, Clone, Args)]
pub struct Lease {
    /// Name of the Lease (coordination.k8s.io/v1) by which one of several replicas is elected to report.
    #[arg(
        id = "lease_name",
        long = "lease-name",
        env = "DISPATCHER_LEASE_NAME",
        default_value = "dispatcher"
    )]
    pub name: String,

    /// Its namespace; without it that of the Jobs.
    #[arg(id = "lease_namespace", long = "lease-namespace", env = "DISPATCHER_LEASE_NAMESPACE")]
    pub namespace: Option<String>,

    /// Name of this replica, which no other has; without it the host's and something random.
    #[arg(long, env = "POD_NAME")]
    pub identity: Option<String>,
}

impl Lease {
    /// Who this replica is. A name that stays over a restart takes its own Lease again at once.
    pub fn identity(&self) -> String {
        let named = self.identity.clone().filter(|name| !name.is_empty());
        named.unwrap_or_else(|| {
            let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            let host = Some(host.trim()).filter(|host| !host.is_empty()).unwrap_or("dispatcher");
            format!("{host}-{}", uuid::Uuid::new_v4().simple())
        })
    }
}

/// The form of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The service cannot start: one line that names the setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {message}")]
pub struct StartError {
    setting: String,
    message: String,
}

impl StartError {
    /// The setting that is wrong, and how.
    pub fn new(setting: impl Into<String>, message: impl Into<String>) -> Self {
        let message: String = message.into();
        Self { setting: setting.into(), message: message.replace('\n', " ") }
    }
}

/// The prefix of the environment variables that set flags.
const PREFIX: &str = "DISPATCHER_";

/// Refuses environment variables that look like settings but set no flag: a misspelled setting
/// would otherwise keep its default without notice.
///
/// # Errors
/// [`StartError`] names the first unknown variable and the known ones.
pub fn check_environment(names: impl IntoIterator<Item = String>) -> Result<(), StartError> {
    let known = settings();
    let unknown = names
        .into_iter()
        .find(|name| name.starts_with(PREFIX) && !known.contains(name) && !is_injected_by_kubernetes(name));
    match unknown {
        None => Ok(()),
        Some(name) => {
            let known: Vec<_> = known.into_iter().filter(|name| name.starts_with(PREFIX)).collect();
            Err(StartError::new(name, format!("unknown setting (known: {})", known.join(", "))))
        }
    }
}

/// The environment variables of every flag of every subcommand.
fn settings() -> BTreeSet<String> {
    let command = Cli::command();
    let arguments = command.get_subcommands().flat_map(clap::Command::get_arguments);
    arguments.filter_map(|a| a.get_env()).map(|name| name.to_string_lossy().into_owned()).collect()
}

/// Whether Kubernetes injects the variable into pods for a Service named `dispatcher` or
/// `dispatcher-*` (Kubernetes: "Connecting Applications with Services", environment variables).
fn is_injected_by_kubernetes(name: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.split_once("_PORT").is_some_and(|(_, rest)| {
            rest.is_empty() || rest.starts_with('_') && rest.contains(|c: char| c.is_ascii_digit())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_list_that_is_absent_allows_everything() {
        let limits = |args: &[&str]| match Cli::parse_from([&["dispatcher", "run"], args].concat()).command {
            Command::Run(config) => config.limits,
            other => panic!("{other:?}"),
        };
        assert_eq!(limits(&[]).images, None);
        let images = limits(&["--allowed-images", "a:*,b/c:1"]).images.unwrap();
        assert_eq!(images.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a:*", "b/c:1"]);
        assert!(Cli::try_parse_from(["dispatcher", "run", "--allowed-images", ""]).is_err());
        assert!(
            Cli::try_parse_from(["dispatcher", "run", "--default-active-deadline-seconds", "0"]).is_err()
        );
    }

    #[test]
    fn a_misspelled_setting_is_refused_with_the_known_ones() {
        let check = |name: &str| check_environment([name.to_owned()]);
        let error = check("DISPATCHER_NAMESPASE").unwrap_err().to_string();
        assert!(error.starts_with("DISPATCHER_NAMESPASE: unknown setting"), "{error}");
        assert!(error.contains("DISPATCHER_NAMESPACE"), "{error}");
        for accepted in [
            "DISPATCHER_NAMESPACE",
            "DISPATCHER_MAX_WAIT",
            "NAMESPACE",
            "DISPATCHER_SERVICE_HOST",
            "DISPATCHER_SERVICE_PORT_HTTP",
            "DISPATCHER_PORT",
            "DISPATCHER_PORT_8080_TCP_ADDR",
            "DISPATCHER_METRICS_SERVICE_HOST",
        ] {
            assert_eq!(check(accepted), Ok(()), "{accepted}");
        }
    }
}
