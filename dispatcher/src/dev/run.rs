//! Starts and stops everything in order.

use std::{
    io,
    net::TcpListener,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use dispatcher_core::{request::sample, template::TemplateError};
use local_cluster::{Credentials, kubelet::Guard};
use tokio::{
    process::Command,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    time::timeout,
};

use crate::{
    cli::{ConsoleMode, DevSettings},
    dev::{
        DevError, NAMESPACE,
        banner::{self, Facts},
        child::{Change, Supervised},
        cluster, output,
        output::{print, print_notice},
        probes,
        programs::{self, Images},
        workspace::Workspace,
    },
    supervisor::Supervisor,
    templates,
};

/// How long each part may take to become ready.
const START: Duration = Duration::from_secs(60);
/// How long the processes may take to end. The dispatcher's own shutdown takes up to 35 s.
const DISPATCHER_GRACE: Duration = Duration::from_secs(40);
const NATS_GRACE: Duration = Duration::from_secs(10);
/// How long a task may take to end, after its process.
const TASK_GRACE: Duration = Duration::from_secs(5);
/// Credentials in the environment, which belong to another NATS.
const FOREIGN_SETTINGS: [&str; 8] = [
    "NATS_CREDS",
    "NATS_NKEY",
    "NATS_USER",
    "NATS_PASSWORD",
    "NATS_TOKEN",
    "NATS_CA",
    "NATS_CERT",
    "NATS_KEY",
];
/// The default port of the `nats` command.
const NATS_PORT: u16 = 4222;

/// Runs everything until SIGINT, SIGTERM or SIGHUP, then stops the dispatcher, the pods, the
/// cluster and NATS. A second signal ends this program immediately.
///
/// # Errors
/// [`DevError`]: a setting is wrong, a task ended, or a second signal arrived.
pub async fn run(settings: DevSettings) -> Result<(), DevError> {
    let mut signals = Signals::new().map_err(|error| DevError::Ended(format!("signals: {error}")))?;
    let (environment, api) = Environment::new(settings)?;
    let mut supervisor = Supervisor::default();
    let running = async {
        match environment.start(&mut supervisor, api).await {
            Ok(()) => DevError::Ended(supervisor.ended().await.to_string()),
            Err(error) => error,
        }
    };
    let ended = tokio::select! {
        error = running => Err(error),
        () = signals.next() => Ok(()),
    };
    print_notice("stopping the dispatcher, the pods, the cluster and NATS");
    tokio::select! {
        () = supervisor.stop() => ended,
        () = signals.next() => Err(DevError::Interrupted),
    }
}

/// The signals that stop this program. Once created, none of them ends the process by itself.
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> io::Result<Self> {
        let [interrupt, terminate, hangup] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    async fn next(&mut self) {
        let Self([interrupt, terminate, hangup]) = self;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// Everything that is checked before anything starts.
struct Environment {
    begin: Instant,
    settings: DevSettings,
    templates: Vec<String>,
    /// A valid request of the template that the banner shows.
    request: Option<String>,
    own: PathBuf,
    nats_server: PathBuf,
    images: Images,
    workspace: Workspace,
    guard: Guard,
}

impl Environment {
    fn new(settings: DevSettings) -> Result<(Self, TcpListener), DevError> {
        let begin = Instant::now();
        let (workspace, api) = Workspace::acquire(&settings)?;
        // The dispatcher itself checks the limits, which it reads from the same environment.
        let templates = templates::load(&settings.templates.folder, &Arc::default());
        let invalid =
            |error: TemplateError| DevError::setting(format!("--templates: {error}").replace('\n', " "));
        let templates = templates.map_err(invalid)?;
        let names: Vec<String> = templates.iter().map(|template| template.name.to_string()).collect();
        let shown = banner::shown_template(&names);
        let shown = templates.iter().find(|template| template.name.as_ref() == shown);
        let request = shown.and_then(|template| sample(template)).map(|request| request.to_string());
        let nats_server = programs::nats_server(|name| std::env::var_os(name)).map_err(DevError::setting)?;
        let no_path = |error: io::Error| DevError::setting(format!("path of this program: {error}"));
        let own = std::env::current_exe().map_err(no_path)?;
        let images = programs::images(&settings, &own).map_err(DevError::Settings)?;
        let no_shell = |error: io::Error| DevError::setting(format!("/bin/sh: {error}"));
        let guard = Guard::start(workspace.temporary.path()).map_err(no_shell)?;
        Ok((
            Self { begin, settings, templates: names, request, own, nats_server, images, workspace, guard },
            api,
        ))
    }

    /// Starts each part once those that it needs are ready, then prints the banner.
    async fn start(&self, supervisor: &mut Supervisor, api: TcpListener) -> Result<(), DevError> {
        let nats_url = format!("nats://127.0.0.1:{}", self.workspace.nats_port);
        self.start_nats(supervisor);
        let credentials = self.write_kubeconfig()?;
        let images = self.images.programs.clone();
        cluster::start(supervisor, api, credentials, images, self.settings.time_scale)?;
        let client = until_ready(supervisor, "JetStream", probes::connect(&nats_url)).await?;
        supervisor.group(TASK_GRACE).spawn("status events", |stop| probes::print_events(client, stop));
        let mut pid = self.start_dispatcher(supervisor, &nats_url);
        let ready = probes::dispatcher_ready(self.workspace.admin_port);
        until_ready(supervisor, "the dispatcher", ready).await?;
        if let Some(warning) = &self.images.warning {
            print_notice(warning);
        }
        let pid = *pid.borrow_and_update();
        print(&banner::text(&self.facts(pid)));
        Ok(())
    }

    /// Generates the credentials of this run, and writes them for the dispatcher and `kubectl`.
    fn write_kubeconfig(&self) -> Result<Credentials, DevError> {
        let Workspace { kubeconfig, api_port, .. } = &self.workspace;
        let failed = |error: io::Error| DevError::Ended(format!("{}: {error}", kubeconfig.display()));
        let credentials = Credentials::generate().map_err(failed)?;
        credentials.write_kubeconfig(kubeconfig, *api_port, NAMESPACE).map_err(failed)?;
        Ok(credentials)
    }

    fn start_nats(&self, supervisor: &mut Supervisor) {
        let mut command = Command::new(&self.nats_server);
        let port = self.workspace.nats_port.to_string();
        command.args(["--addr", "127.0.0.1", "--port", &port, "--jetstream"]);
        command.arg("--store_dir").arg(&self.workspace.store);
        // The streams reserve their limits. By default, the store is three quarters of the free
        // disk, which may be less than that.
        let config = self.workspace.temporary.path().join("nats.conf");
        match std::fs::write(&config, "jetstream {max_file_store: 4GB}\n") {
            Ok(()) => drop(command.arg("--config").arg(&config)),
            Err(error) => print_notice(&format!("{}: {error}", config.display())),
        }
        let notify = |change| match change {
            Change::Line(line) => output::nats_server(&line).iter().for_each(|line| print(line)),
            Change::Crashed { reason, delay } => {
                print_notice(&format!("nats-server {reason}; restarting it in {delay:?}"));
            }
            Change::Started { pid, restarted: true } => {
                print_notice(&format!("restarted nats-server (kill -9 {pid})"));
            }
            Change::Started { .. } => {}
        };
        let program = self.supervised(command, NATS_GRACE, notify);
        supervisor.group(NATS_GRACE + TASK_GRACE).spawn("nats-server", |stop| program.run(stop));
    }

    /// Starts `dispatcher run`, and returns its current process id.
    fn start_dispatcher(&self, supervisor: &mut Supervisor, nats_url: &str) -> watch::Receiver<i32> {
        let command = self.dispatcher_command(nats_url);
        let show_all = std::env::var_os("RUST_LOG").is_some();
        let (sender, pid) = watch::channel(0);
        let notify = move |change| match change {
            Change::Line(line) => output::log(&line, show_all).iter().for_each(|line| print(line)),
            Change::Crashed { reason, delay } => {
                print_notice(&format!("the dispatcher {reason}; restarting it in {delay:?}"));
            }
            Change::Started { pid, restarted } => {
                if restarted {
                    print_notice(&format!("restarted the dispatcher (kill -9 {pid})"));
                }
                sender.send_replace(pid);
            }
        };
        let program = self.supervised(command, DISPATCHER_GRACE, notify);
        supervisor.group(DISPATCHER_GRACE + TASK_GRACE).spawn("dispatcher", |stop| program.run(stop));
        pid
    }

    fn dispatcher_command(&self, nats_url: &str) -> Command {
        let mut command = Command::new(&self.own);
        command.args(["run", "--nats-url", nats_url, "--namespace", NAMESPACE, "--log-format", "json"]);
        command.arg("--admin-addr").arg(format!("127.0.0.1:{}", self.workspace.admin_port));
        command.args(["--console", self.settings.console.as_str()]);
        if let Some(token) = &self.workspace.token {
            command.arg("--console-token-file").arg(&token.file);
        }
        command.arg("--kubeconfig").arg(&self.workspace.kubeconfig);
        command.arg("--templates").arg(&self.settings.templates.folder);
        // With a constant name, a restarted dispatcher reacquires its own Lease immediately.
        command.args(["--identity", "dispatcher-dev"]);
        // The kept streams refer to the cluster of an earlier run, which no longer exists.
        command.arg("--adopt");
        for name in FOREIGN_SETTINGS {
            command.env_remove(name);
        }
        command
    }

    fn supervised<Notify: FnMut(Change)>(
        &self,
        command: Command,
        grace: Duration,
        notify: Notify,
    ) -> Supervised<Notify> {
        let (guard, restart_delay) = (self.guard.clone(), self.settings.restart_delay);
        Supervised { command, restart_delay, grace, guard, notify }
    }

    fn facts(&self, pid: i32) -> Facts<'_> {
        let Workspace { nats_port, api_port, admin_port, .. } = self.workspace;
        Facts {
            took: self.begin.elapsed(),
            nats_port,
            is_default_nats: nats_port == NATS_PORT && std::env::var_os("NATS_URL").is_none(),
            api_port,
            kubeconfig: &self.workspace.kubeconfig,
            admin_port,
            has_console: self.settings.console != ConsoleMode::Off,
            token: self.workspace.token.as_ref().map(|token| token.text.as_str()),
            pid,
            templates: &self.templates,
            request: self.request.as_deref(),
            kept: self.workspace.kept.then(|| self.workspace.store.display().to_string()),
        }
    }
}

/// Waits for `ready`, unless a task ends before.
async fn until_ready<T>(
    supervisor: &mut Supervisor,
    part: &str,
    ready: impl Future<Output = T>,
) -> Result<T, DevError> {
    tokio::select! {
        value = timeout(START, ready) => value
            .map_err(|_| DevError::Ended(format!("{part} is not ready after {} s", START.as_secs()))),
        ended = supervisor.ended() => Err(DevError::Ended(ended.to_string())),
    }
}
