//! What the benchmarks start: a control plane, and dispatchers with a NATS and a namespace each.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_nats::jetstream;
use dispatcher_tests::dispatcher::Builder;
use dispatcher_tests::templates::without_limit;
use dispatcher_tests::{Dispatcher, Kubernetes, Namespace, Nats, Options, paths, process, wait};
use kube::api::ListParams;
use serde_json::Value;
use tokio::time::sleep;

use crate::report::{BASELINE, OURS};
use crate::requests;
use crate::size::Size;

/// The time limit of everything that a benchmark waits for.
pub(crate) const DEADLINE: Duration = Duration::from_secs(900);
/// The number of concurrent creates, on every side.
pub(crate) const IN_FLIGHT: usize = 64;
/// The interval between two looks at something that is timed.
const POLL_INTERVAL: Duration = Duration::from_millis(4);
/// Selects the Jobs that are not retired.
pub(crate) const UNRETIRED: &str = "natsjobs.dev/template,!natsjobs.dev/outcome";

/// The settings of a run.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) size: Size,
    /// The dispatchers to measure: this workspace's, and perhaps that of `BASELINE`.
    pub(crate) dispatchers: Vec<Program>,
}

/// A dispatcher's program, which is one side of a benchmark.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) side: &'static str,
    path: Option<PathBuf>,
}

impl Run {
    /// From the variables `SIZE` and `BASELINE`.
    pub(crate) fn from_env() -> Result<Self, String> {
        let get = |name: &str| std::env::var(name).unwrap_or_default();
        let mut dispatchers = vec![Program { side: OURS, path: None }];
        let baseline = PathBuf::from(get("BASELINE"));
        if !baseline.as_os_str().is_empty() {
            if !baseline.is_file() {
                return Err(format!("BASELINE={}: no such program", baseline.display()));
            }
            dispatchers.push(Program { side: BASELINE, path: Some(baseline) });
        }
        Ok(Self { size: Size::parse(&get("SIZE"))?, dispatchers })
    }

    /// This workspace's dispatcher.
    pub(crate) fn ours(&self) -> Result<&Program, String> {
        self.dispatchers.first().ok_or_else(|| "no dispatcher to measure".to_owned())
    }
}

/// The Jobs of a benchmark.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Jobs {
    /// The Job controller creates their pods.
    WithPods,
    /// The Job controller creates no pods.
    Suspended,
    /// The Job controller ignores them.
    Managed,
}

impl Jobs {
    /// The shipped template `simple` with such Jobs and without its concurrency limit.
    fn template(self) -> Result<String, String> {
        let path = paths::workspace().join("deploy/templates/simple.yaml");
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let line = "      backoffLimit: 3\n";
        if !text.contains(line) {
            return Err(format!("{}: no line {line:?}", path.display()));
        }
        let more = match self {
            Self::WithPods => "",
            Self::Suspended => "      suspend: true\n",
            Self::Managed => "      managedBy: tests.example.org/controller\n",
        };
        Ok(without_limit(&text).replace(line, &format!("{line}{more}")))
    }

    /// The manifest of the Job in the template.
    pub(crate) fn manifest(self) -> Result<Value, String> {
        let mut template: Value =
            serde_saphyr::from_str(&self.template()?).map_err(|error| error.to_string())?;
        let job = template.get_mut("spec").and_then(|spec| spec.get_mut("job")).map(Value::take);
        job.ok_or_else(|| "the template `simple` has no spec.job".to_owned())
    }
}

/// A control plane whose controllers have raised limits.
pub(crate) async fn control_plane() -> Result<Kubernetes, String> {
    Kubernetes::control_plane(Options::default()).await
}

/// A NATS and a namespace, and the dispatchers that use them.
pub(crate) struct Installation {
    pub(crate) nats: Nats,
    pub(crate) namespace: Namespace,
    pub(crate) context: jetstream::Context,
    templates: tempfile::TempDir,
}

impl Installation {
    pub(crate) async fn new(kubernetes: &Kubernetes, jobs: Jobs) -> Result<Self, String> {
        Self::with_nats(Nats::process().await, kubernetes, jobs).await
    }

    pub(crate) async fn with_nats(nats: Nats, kubernetes: &Kubernetes, jobs: Jobs) -> Result<Self, String> {
        let templates = paths::temp_dir("bench")?;
        let path = templates.path().join("simple.yaml");
        std::fs::write(&path, jobs.template()?).map_err(|error| format!("{}: {error}", path.display()))?;
        let context = requests::context(&nats).await;
        Ok(Self { nats, namespace: kubernetes.namespace().await, context, templates })
    }

    /// Configures a dispatcher.
    pub(crate) fn builder(&self, program: &Program) -> Builder {
        let kubeconfig = self.namespace.dispatcher_kubeconfig.clone();
        self.builder_through(program, &kubeconfig)
    }

    /// Configures a dispatcher with another kubeconfig.
    pub(crate) fn builder_through(&self, program: &Program, kubeconfig: &Path) -> Builder {
        let kubeconfig = kubeconfig.display().to_string();
        let builder = Dispatcher::builder_with(&self.nats.url, &kubeconfig, &self.namespace.name)
            .templates(self.templates.path())
            .env("RUST_LOG", "warn")
            .env("DISPATCHER_CONCURRENCY", &IN_FLIGHT.to_string());
        match &program.path {
            Some(path) => builder.program(path),
            None => builder,
        }
    }

    /// Starts a dispatcher and waits until it is synced.
    pub(crate) async fn start(&self, program: &Program) -> Result<Dispatcher, String> {
        let dispatcher = self.builder(program).try_start().await?;
        until_synced(&dispatcher).await?;
        Ok(dispatcher)
    }

    /// Waits until every Job is retired: its outcome is stored, and it has the outcome label.
    pub(crate) async fn until_retired(&self) -> Result<(), String> {
        let unretired = ListParams::default().labels(UNRETIRED).limit(1);
        wait::try_until("every Job to be retired", DEADLINE, || async {
            let list = self.namespace.jobs.list_metadata(&unretired).await.map_err(|e| e.to_string())?;
            if list.items.is_empty() { Ok(()) } else { Err("a Job is not retired".to_owned()) }
        })
        .await
    }

    /// The number of messages of a stream.
    pub(crate) async fn messages(&self, stream: &str) -> Result<u64, String> {
        let found = self.context.get_stream(stream).await.map_err(|e| format!("stream {stream}: {e}"))?;
        Ok(found.cached_info().state.messages)
    }

    /// Waits until a stream has this many messages.
    pub(crate) async fn until_messages(
        &self,
        stream: &str,
        enough: impl Fn(u64) -> bool,
    ) -> Result<(), String> {
        wait::try_until(&format!("messages of {stream}"), DEADLINE, || async {
            let count = self.messages(stream).await?;
            if enough(count) { Ok(()) } else { Err(format!("{count} messages")) }
        })
        .await
    }
}

/// What the endpoint `/leader` answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) leads: bool,
    pub(crate) synced: bool,
}

impl Leader {
    pub(crate) async fn of(dispatcher: &Dispatcher) -> Self {
        let answer = dispatcher.get("/leader").await.map(|(_, body)| body).unwrap_or_default();
        Self { leads: answer.contains("\"leader\":true"), synced: answer.contains("\"synced\":true") }
    }
}

/// Waits until the dispatcher leads and is synced.
pub(crate) async fn until_synced(dispatcher: &Dispatcher) -> Result<(), String> {
    until_leader(dispatcher, |leader| leader.leads && leader.synced).await
}

/// Waits with a short interval, because the time is measured.
pub(crate) async fn until_leader(
    dispatcher: &Dispatcher,
    is_so: impl Fn(Leader) -> bool,
) -> Result<(), String> {
    let start = Instant::now();
    while !is_so(Leader::of(dispatcher).await) {
        if start.elapsed() > DEADLINE {
            return Err(format!("the dispatcher is not synced after {DEADLINE:?}"));
        }
        sleep(POLL_INTERVAL).await;
    }
    Ok(())
}

/// Starts a dispatcher that has exited; returns the seconds until it is synced.
pub(crate) async fn timed_start(dispatcher: &Dispatcher) -> Result<f64, String> {
    let start = Instant::now();
    dispatcher.start_again().await?;
    until_synced(dispatcher).await?;
    Ok(start.elapsed().as_secs_f64())
}

/// Ends a dispatcher, so that it releases the Lease.
pub(crate) async fn stop(dispatcher: &Dispatcher) -> Result<(), String> {
    match dispatcher.terminate().await {
        Some(0) => Ok(()),
        code => Err(format!("the dispatcher ended with {code:?}")),
    }
}

/// The resident memory of a dispatcher, once it has been idle for a moment.
pub(crate) async fn idle_memory(dispatcher: &Dispatcher) -> Result<f64, String> {
    sleep(Duration::from_secs(2)).await;
    Ok(process::memory(dispatcher.pid().await)?.now)
}
