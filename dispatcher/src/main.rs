//! Parses arguments, sets up logs and signals, and returns the exit code.

use std::{
    io::{IsTerminal, Write},
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use clap::{CommandFactory, Parser};
use dispatcher::{
    app::{RunError, run},
    check::check,
    cli::{
        Check, Cli, Command, DoctorSettings, LogFormat, OutputFormat, StartError, check_environment,
        completions, describe, man_pages,
    },
    doctor,
    nats::{definitions, nack, roles},
    templates,
};
use dispatcher_core::contract::{names::TemplateName, nats_names::NatsNames, schemas};
use serde_json::Value;
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// The exit code for a wrong setting; clap uses it for a wrong command line.
const WRONG_SETTING: u8 = 2;
/// The worker threads of the service. One is enough: it needs less than half a millisecond per Job,
/// and an API server needs more. With two threads, a Job costs a sixth more, because they wake each
/// other.
const WORKER_THREADS: usize = 1;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let arguments: Vec<_> = std::env::args_os().collect();
            match doctor::without_wrong_variables(&arguments) {
                Some(settings) => Cli { command: Command::Doctor(Box::new(settings)) },
                None => return wrong_arguments(&error),
            }
        }
    };
    let mut runtime = Builder::new_multi_thread();
    if let Command::Run(_) = cli.command {
        runtime.worker_threads(WORKER_THREADS);
    }
    match runtime.enable_all().build() {
        Ok(runtime) => runtime.block_on(run_command(cli.command)),
        Err(error) => {
            eprintln!("dispatcher: cannot start its threads: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run_command(command: Command) -> ExitCode {
    let result = match command {
        #[cfg(feature = "dev")]
        Command::Dev(settings) => return run_dev(*settings).await,
        Command::Run(config) => {
            // Fails only if a provider is installed already.
            let _ = rustls::crypto::ring::default_provider().install_default();
            let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
            match init_logs(config.log_format).and_then(|()| check_environment(names)) {
                Ok(()) => run(*config, signal_token()).await,
                Err(error) => Err(error.into()),
            }
        }
        Command::Check(settings) => return print_check(&settings),
        Command::Doctor(settings) => return examine(&settings).await,
        Command::Schemas { output } => {
            print_files(schemas::files(), output.as_deref()).map_err(RunError::Start)
        }
        Command::NatsConfig { naming, roles: true, output, .. } => {
            print_roles(&naming.names, output.as_deref()).map_err(RunError::Start)
        }
        Command::NatsConfig { templates, naming, nack, output, .. } => {
            nats_config(&templates.folder, &naming.names, nack, output.as_deref()).map_err(RunError::Start)
        }
        Command::Completions { shell } => {
            print!("{}", completions(shell, Cli::command()));
            Ok(())
        }
        Command::Man { directory } => write_man_pages(&directory).map_err(RunError::Start),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dispatcher: {error}");
            ExitCode::from(if matches!(error, RunError::Start(_)) { WRONG_SETTING } else { 1 })
        }
    }
}

fn wrong_arguments(error: &clap::Error) -> ExitCode {
    let Some(line) = describe(error, &Cli::command(), |name| std::env::var(name).ok()) else { error.exit() };
    eprintln!("dispatcher: {line}");
    ExitCode::from(WRONG_SETTING)
}

#[cfg(feature = "dev")]
async fn run_dev(settings: dispatcher::cli::DevSettings) -> ExitCode {
    use dispatcher::dev::{self, DevError};

    /// 128 + 2: shells report this exit code if SIGINT ends a program.
    const INTERRUPTED: u8 = 130;
    // Fails only if a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let Err(error) = dev::run(settings).await else { return ExitCode::SUCCESS };
    eprintln!("dispatcher: {error}");
    ExitCode::from(match error {
        DevError::Settings(_) => WRONG_SETTING,
        DevError::Ended(_) => 1,
        DevError::Interrupted => INTERRUPTED,
    })
}

/// Prints a report. Logs nothing.
async fn examine(settings: &DoctorSettings) -> ExitCode {
    // Fails only if a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let report = doctor::examine(settings, names, log_filter().err().into_iter().collect()).await;
    let text = match settings.output {
        OutputFormat::Text => doctor::text(&report),
        OutputFormat::Json => serde_json::to_string_pretty(&report).unwrap_or_default() + "\n",
    };
    // Removes colours if stdout is not a terminal. A closed stdout does not change the result.
    let _ = anstream::stdout().write_all(text.as_bytes());
    if report.errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The filter of `RUST_LOG`.
fn log_filter() -> Result<EnvFilter, StartError> {
    let level = std::env::var("RUST_LOG").unwrap_or_default();
    match level.as_str() {
        // The dispatcher itself reports what these client libraries would log.
        "" => Ok(EnvFilter::new("info,async_nats=error,kube=off")),
        level => EnvFilter::try_new(level).map_err(|error| {
            let message = format!("{error} (allowed: `error`, `warn`, `info`, `debug`, `trace`, `off`)");
            StartError::new(format!("RUST_LOG={}", level.escape_debug()), message)
        }),
    }
}

fn init_logs(format: LogFormat) -> Result<(), StartError> {
    let filter = log_filter()?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    match format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().flatten_event(true).init(),
    }
    Ok(())
}

/// A token that SIGTERM or SIGINT cancels.
fn signal_token() -> CancellationToken {
    let stop = CancellationToken::new();
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let stop = stop.clone();
        match signal(kind) {
            Ok(mut signal) => {
                tokio::spawn(async move {
                    signal.recv().await;
                    stop.cancel();
                });
            }
            Err(error) => tracing::warn!(?kind, %error, "cannot handle a signal"),
        }
    }
    stop
}

fn print_check(settings: &Check) -> ExitCode {
    let report = check(settings);
    report.lines.iter().for_each(|line| println!("{line}"));
    report.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    report.problems.iter().for_each(|problem| eprintln!("{problem}"));
    if report.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(WRONG_SETTING) }
}

fn nats_config(
    folder: &Path,
    names: &NatsNames,
    as_nack: bool,
    output: Option<&Path>,
) -> Result<(), StartError> {
    let templates = templates::load(folder, &Arc::default())
        .map_err(|e| StartError::new("DISPATCHER_TEMPLATES", e.to_string()))?;
    let templates: Vec<TemplateName> = templates.iter().map(|t| t.name.clone()).collect();
    if !as_nack {
        return print_files(definitions::files(names, &templates), output);
    }
    let nack_error = |e: &dyn std::error::Error| StartError::new("--nack", e.to_string());
    let resources = nack::resources(names, &templates).map_err(|e| nack_error(&e))?;
    let yaml = serde_saphyr::to_string_multiple(&resources).map_err(|e| nack_error(&e))?;
    match output {
        None => print!("{yaml}"),
        Some(folder) => write(&folder.join("nack.yaml"), &yaml)?,
    }
    Ok(())
}

/// Prints the permissions of the roles, or writes each into a directory.
fn print_roles(names: &NatsNames, output: Option<&Path>) -> Result<(), StartError> {
    for (name, content) in roles::files(names) {
        match output {
            None => println!("# {name}\n{content}"),
            Some(folder) => write(&folder.join(name), &content)?,
        }
    }
    Ok(())
}

/// Prints files as one JSON object, or writes each into a directory.
fn print_files(files: Vec<(String, Value)>, output: Option<&Path>) -> Result<(), StartError> {
    match output {
        None => {
            let all: Value = files.into_iter().collect::<serde_json::Map<_, _>>().into();
            println!("{all:#}");
        }
        Some(folder) => {
            for (name, content) in files {
                write(&folder.join(format!("{name}.json")), &format!("{content:#}\n"))?;
            }
        }
    }
    Ok(())
}

fn write(path: &Path, content: &str) -> Result<(), StartError> {
    std::fs::write(path, content).map_err(|e| StartError::new("--output", format!("{}: {e}", path.display())))
}

fn write_man_pages(directory: &Path) -> Result<(), StartError> {
    let error = |path: &Path, e: &std::io::Error| StartError::new("man", format!("{}: {e}", path.display()));
    for (name, page) in man_pages(Cli::command()).map_err(|e| error(directory, &e))? {
        let path = directory.join(name);
        std::fs::write(&path, page).map_err(|e| error(&path, &e))?;
    }
    Ok(())
}
