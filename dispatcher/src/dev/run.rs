//! The order in which everything starts and stops.

use std::{
    io,
    net::TcpListener,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use local_cluster::kubelet::Guard;
use tokio::{process::Command, sync::watch};

use crate::dev::{
    DevError, NAMESPACE,
    banner::{self, Facts},
    child::{Change, Supervised},
    cluster, lines, listener,
    place::Place,
    programs::{self, Images},
    ready,
    screen::{say, say_now},
    settings::Settings,
    signals::Signals,
    supervisor::Parts,
};
use crate::templates;
use dispatcher_core::template::TemplateError;

/// How long an orderly end may take: the dispatcher's own is bounded by 35 s.
const DISPATCHER_GRACE: Duration = Duration::from_secs(40);
const NATS_GRACE: Duration = Duration::from_secs(10);
/// The listener ends at once; a child's task soon after its child.
const MOMENT: Duration = Duration::from_secs(5);
/// Settings of the dispatcher that must not come from this environment: they are for another NATS.
const FOREIGN: [&str; 8] = [
    "NATS_CREDS",
    "NATS_NKEY",
    "NATS_USER",
    "NATS_PASSWORD",
    "NATS_TOKEN",
    "NATS_CA",
    "NATS_CERT",
    "NATS_KEY",
];
/// Where the `nats` command looks unless told otherwise.
const NATS_PORT: u16 = 4222;

/// Runs everything until SIGINT, SIGTERM or SIGHUP, then stops it: the dispatcher, the pods, the cluster, NATS. A second
/// signal waits for nothing.
///
/// # Errors
/// [`DevError`]: it could not start, a part has ended, or it was hurried.
pub async fn run(settings: Settings) -> Result<(), DevError> {
    let mut signals = Signals::new().map_err(|error| DevError::Ended(format!("signals: {error}")))?;
    let (stage, api) = Stage::new(settings)?;
    let mut parts = Parts::default();
    let playing = async {
        match stage.start(&mut parts, api).await {
            Ok(()) => parts.any_ended().await,
            Err(error) => error,
        }
    };
    let ended = tokio::select! {
        ended = playing => Err(ended),
        () = signals.next() => Ok(()),
    };
    say_now("stopping: the dispatcher, the pods, the cluster, NATS");
    tokio::select! {
        () = parts.stop() => ended,
        () = signals.next() => Err(DevError::Hurried),
    }
}

/// What was looked at before anything starts.
struct Stage {
    begin: Instant,
    settings: Settings,
    templates: Vec<String>,
    own: PathBuf,
    nats_server: PathBuf,
    images: Images,
    place: Place,
    guard: Guard,
}

impl Stage {
    fn new(settings: Settings) -> Result<(Self, TcpListener), DevError> {
        let begin = Instant::now();
        let (place, api) = Place::take(&settings)?;
        // The limits on them are the dispatcher's own, from the environment that it shares.
        let templates = templates::load(&settings.templates.folder, &Arc::default());
        let wrong =
            |error: TemplateError| DevError::setting(format!("--templates: {error}").replace('\n', " "));
        let templates = templates.map_err(wrong)?;
        let templates = templates.iter().map(|template| template.name.to_string()).collect();
        let nats_server = programs::nats_server(|name| std::env::var_os(name)).map_err(DevError::setting)?;
        let own_path = |error: io::Error| DevError::setting(format!("own path: {error}"));
        let own = std::env::current_exe().map_err(own_path)?;
        let images = programs::images(&settings, &own).map_err(DevError::Settings)?;
        let no_shell = |error: io::Error| DevError::setting(format!("/bin/sh: {error}"));
        let guard = Guard::start(place.folder.path()).map_err(no_shell)?;
        Ok((Self { begin, settings, templates, own, nats_server, images, place, guard }, api))
    }

    /// Starts the parts, each when those that it needs work, and says what to do next.
    async fn start(&self, parts: &mut Parts, api: TcpListener) -> Result<(), DevError> {
        let nats_url = format!("nats://127.0.0.1:{}", self.place.nats);
        self.start_nats(parts);
        cluster::start(parts, api, self.images.programs.clone(), self.settings.time_scale)?;
        let client = parts.until("JetStream", listener::connect(&nats_url)).await?;
        parts.start("events", MOMENT, |stop| listener::listen(client, say, stop));
        let mut pid = self.start_dispatcher(parts, &nats_url)?;
        parts.until("the dispatcher", ready::until_ready(self.place.admin)).await?;
        if let Some(note) = &self.images.note {
            say_now(note);
        }
        let pid = *pid.borrow_and_update();
        say(&banner::next(&self.facts(pid)));
        Ok(())
    }

    fn start_nats(&self, parts: &mut Parts) {
        let mut command = Command::new(&self.nats_server);
        command.args(["--addr", "127.0.0.1", "--port", &self.place.nats.to_string(), "--jetstream"]);
        command.arg("--store_dir").arg(&self.place.store);
        let tell = |change| match change {
            Change::Line(line) => lines::nats_server(&line).iter().for_each(|line| say(line)),
            Change::Died { how, delay } => say_now(&format!("nats-server {how}; again in {delay:?}")),
            Change::Started { pid, again: true } => {
                say_now(&format!("nats-server runs again (kill -9 {pid})"))
            }
            Change::Started { .. } => {}
        };
        let keeper = self.keeper(command, NATS_GRACE, tell);
        parts.start("nats-server", NATS_GRACE + MOMENT, |stop| keeper.run(stop));
    }

    /// The dispatcher, as anywhere else; what is returned tells its process.
    fn start_dispatcher(&self, parts: &mut Parts, nats_url: &str) -> Result<watch::Receiver<i32>, DevError> {
        let kubeconfig = self.place.folder.path().join("kubeconfig");
        let text = cluster::kubeconfig(&format!("http://127.0.0.1:{}", self.place.api));
        let failed = |error| DevError::Ended(format!("{}: {error}", kubeconfig.display()));
        std::fs::write(&kubeconfig, text).map_err(failed)?;
        let mut command = Command::new(&self.own);
        command.args(["run", "--nats-url", nats_url, "--namespace", NAMESPACE, "--log-format", "json"]);
        command.arg("--admin-addr").arg(format!("127.0.0.1:{}", self.place.admin));
        command.arg("--kubeconfig").arg(&kubeconfig);
        command.arg("--templates").arg(&self.settings.templates.folder);
        // A name that stays: after a death it takes its own Lease again at once.
        command.args(["--identity", "dispatcher-dev"]);
        // The kept streams tell of a cluster that is gone, and its Jobs with it.
        command.arg("--adopt");
        for name in FOREIGN {
            command.env_remove(name);
        }
        let is_all_wanted = std::env::var_os("RUST_LOG").is_some();
        let (sender, pid) = watch::channel(0);
        let tell = move |change| match change {
            Change::Line(line) => lines::log(&line, is_all_wanted).iter().for_each(|line| say(line)),
            Change::Died { how, delay } => say_now(&format!("the dispatcher {how}; again in {delay:?}")),
            Change::Started { pid, again } => {
                if again {
                    say_now(&format!("the dispatcher runs again (kill -9 {pid})"));
                }
                sender.send_replace(pid);
            }
        };
        let keeper = self.keeper(command, DISPATCHER_GRACE, tell);
        parts.start("dispatcher", DISPATCHER_GRACE + MOMENT, |stop| keeper.run(stop));
        Ok(pid)
    }

    fn keeper<Tell: FnMut(Change)>(&self, command: Command, grace: Duration, tell: Tell) -> Supervised<Tell> {
        let (guard, restart_delay) = (self.guard.clone(), self.settings.restart_delay);
        Supervised { command, restart_delay, grace, guard, tell }
    }

    fn facts(&self, pid: i32) -> Facts<'_> {
        let Place { nats, api, admin, .. } = self.place;
        Facts {
            took: self.begin.elapsed(),
            nats,
            is_default_nats: nats == NATS_PORT && std::env::var_os("NATS_URL").is_none(),
            api,
            admin,
            pid,
            templates: &self.templates,
            kept: self.place.kept.then(|| self.place.store.display().to_string()),
        }
    }
}
