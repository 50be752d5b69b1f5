//! The command line: every setting by flag or environment variable.

pub(crate) mod console;
#[cfg(feature = "dev")]
mod dev;
mod errors;
mod manual;
mod naming;
mod nats;
mod start_error;
mod submitters;
mod templates;
mod values;

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum, builder::BoolishValueParser};
use clap_complete::Shell;

#[cfg(feature = "dev")]
pub use self::dev::{DevSettings, Image};
use self::values::{address, label, number};
pub use self::{
    console::{ConsoleMode, ConsoleSettings},
    errors::{describe, variables},
    manual::{completions, man_pages},
    naming::Naming,
    nats::Nats,
    start_error::StartError,
    submitters::SubmitterSettings,
    templates::{Limits, TemplateObjects, Templates},
};

/// Turns NATS messages into Kubernetes Jobs, and publishes their status events to NATS.
#[derive(Debug, Parser)]
#[command(name = "dispatcher", version)]
pub struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the service until SIGTERM or SIGINT.
    Run(Box<Config>),
    /// Check template files without a cluster. Prints every problem; exits with 2 if there is one.
    Check(Check),
    /// Check NATS, streams, permissions, templates and clocks with the settings of `dispatcher run`.
    /// Changes nothing. Prints what to do; exits with 1 if there is an error.
    Doctor(Box<DoctorSettings>),
    /// Run NATS, a local cluster and the service on this machine, for trials and development.
    #[cfg(feature = "dev")]
    Dev(Box<DevSettings>),
    /// Print the JSON Schemas of status events, rejection notices and template files.
    Schemas {
        /// Write one file per schema into this directory. Default: print to stdout.
        #[arg(long, value_name = "DIRECTORY")]
        output: Option<PathBuf>,
    },
    /// Print the streams and consumers of the templates, for `nats stream add --config`.
    NatsConfig {
        /// The templates.
        #[command(flatten)]
        templates: Templates,
        /// The names of the subjects and streams.
        #[command(flatten)]
        naming: Naming,
        /// Print them as resources of NACK (the `JetStream` controller), for `kubectl apply`.
        /// Default: off.
        #[arg(long)]
        nack: bool,
        /// Print the permissions of the roles instead, for the configuration of a NATS server.
        /// Default: off.
        #[arg(long, conflicts_with = "nack")]
        roles: bool,
        /// Write one file per object into this directory, or `nack.yaml` with --nack. Default:
        /// print to stdout.
        #[arg(long, value_name = "DIRECTORY")]
        output: Option<PathBuf>,
    },
    /// Print the completions of a shell: `source <(dispatcher completions bash)`.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write the man pages into a directory: one for the program and one for each subcommand.
    Man {
        /// The directory, which must exist.
        directory: PathBuf,
    },
}

/// The settings of `dispatcher check`.
#[derive(Debug, Clone, Args)]
pub struct Check {
    /// Template files, or directories of them.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,

    /// Print the Job of this request (JSON) and the only template, for
    /// `kubectl apply --dry-run=server -f -`. Default: none.
    #[arg(long, value_name = "REQUEST")]
    pub render: Option<String>,

    /// Report a field of a Job that this version does not know as an error. Default: as a warning,
    /// since the cluster may be newer.
    #[arg(long)]
    pub strict: bool,

    /// The limits on Jobs.
    #[command(flatten)]
    pub limits: Limits,
}

/// The settings of `dispatcher doctor`: those of `dispatcher run`.
#[derive(Debug, Clone, Args)]
pub struct DoctorSettings {
    /// The settings of the service.
    #[command(flatten)]
    pub config: Config,

    /// Format of the report on stdout.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = OutputFormat::Text)]
    pub output: OutputFormat,

    /// The variables that were ignored, because their values are wrong.
    #[arg(skip)]
    pub problems: Vec<StartError>,
}

/// The format of the report of `dispatcher doctor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// Readable text.
    Text,
    /// One JSON object.
    Json,
}

/// The settings of `dispatcher run`.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// The connection to NATS.
    #[command(flatten)]
    pub nats: Nats,

    /// Kubeconfig file. Default: `~/.kube/config`, or the `ServiceAccount` of the dispatcher's pod.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Namespace of the Jobs.
    #[arg(long, env = "DISPATCHER_NAMESPACE", default_value = "jobs", value_parser = label)]
    pub namespace: String,

    /// The Lease.
    #[command(flatten)]
    pub lease: Lease,

    /// The templates.
    #[command(flatten)]
    pub templates: Templates,

    /// The templates that are objects.
    #[command(flatten)]
    pub template_objects: TemplateObjects,

    /// Publish why Kueue keeps a Job suspended. This reads the Workloads (kueue.x-k8s.io/v1beta2) of
    /// the Jobs' namespace. Default: off.
    #[arg(
        long,
        env = "DISPATCHER_KUEUE",
        value_name = "BOOLEAN",
        num_args = 0..=1,
        default_value_t = false,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new()
    )]
    pub kueue: bool,

    /// The limits on Jobs.
    #[command(flatten)]
    pub limits: Limits,

    /// The submitters.
    #[command(flatten)]
    pub submitters: SubmitterSettings,

    /// Maximum number of requests in progress per template, 1 to 1024.
    #[arg(
        long,
        env = "DISPATCHER_CONCURRENCY",
        value_name = "REQUESTS",
        default_value_t = 64,
        value_parser = number(1..=1024_u16)
    )]
    pub concurrency: u16,

    /// Maximum number of callers of `submit` that wait for an event, 1 to 65535. Further calls get
    /// the error `Overloaded`.
    #[arg(
        long,
        env = "DISPATCHER_MAX_WAITERS",
        value_name = "CALLERS",
        default_value_t = 1000,
        value_parser = number(1..=u16::MAX)
    )]
    pub max_waiters: u16,

    /// Longest wait of a caller of `submit` for an event, in seconds, 1 to 86400.
    #[arg(
        long,
        env = "DISPATCHER_MAX_WAIT",
        value_name = "SECONDS",
        default_value_t = 600,
        value_parser = number(1..=86_400_u32)
    )]
    pub max_wait: u32,

    /// Address of `/livez`, `/readyz`, `/leader` and `/metrics`.
    #[arg(
        long,
        env = "DISPATCHER_ADMIN_ADDR",
        value_name = "ADDRESS",
        default_value = "0.0.0.0:8080",
        value_parser = address
    )]
    pub admin_addr: SocketAddr,

    /// The console.
    #[command(flatten)]
    pub console: ConsoleSettings,

    /// Format of the log lines on stderr. `RUST_LOG` sets the level (default: `info`).
    #[arg(
        long,
        env = "DISPATCHER_LOG_FORMAT",
        value_name = "FORMAT",
        value_enum,
        default_value_t = LogFormat::Text
    )]
    pub log_format: LogFormat,

    /// Verify the streams and consumers instead of creating or updating them. Default: off.
    #[arg(long)]
    pub no_provision: bool,

    /// Take over a `JOB_STATUS` stream of another namespace or cluster. Its open Jobs get the
    /// outcome `Deleted`. Default: off.
    #[arg(long)]
    pub adopt: bool,
}

/// The Lease that elects the leader among the replicas.
#[derive(Debug, Clone, Args)]
pub struct Lease {
    /// Name of the Lease (coordination.k8s.io/v1) that elects the leader.
    #[arg(
        id = "lease_name",
        long = "lease-name",
        env = "DISPATCHER_LEASE_NAME",
        value_name = "NAME",
        default_value = "dispatcher",
        value_parser = label
    )]
    pub name: String,

    /// Namespace of the Lease. Default: the namespace of the Jobs.
    #[arg(
        id = "lease_namespace",
        long = "lease-namespace",
        env = "DISPATCHER_LEASE_NAMESPACE",
        value_name = "NAMESPACE",
        value_parser = label
    )]
    pub namespace: Option<String>,

    /// Unique name of this replica in the Lease. Default: the host name and a random suffix.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub identity: Option<String>,
}

impl Lease {
    /// The name of this replica in the Lease. A replica with a configured name reacquires its own
    /// Lease immediately after a restart.
    #[must_use]
    pub fn identity(&self) -> String {
        let configured = self.identity.clone().filter(|name| !name.is_empty());
        configured.unwrap_or_else(|| {
            let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            let host = Some(host.trim()).filter(|host| !host.is_empty()).unwrap_or("dispatcher");
            format!("{host}-{}", uuid::Uuid::new_v4().simple())
        })
    }
}

/// The format of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Readable text.
    Text,
    /// One JSON object per line.
    Json,
}

/// The prefix of the dispatcher's own environment variables.
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
mod tests;
