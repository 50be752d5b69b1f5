//! The bare Kubernetes client of the benchmarks: it creates Jobs and does nothing else.
//!
//! A burst runs in its own process, so that its CPU time can be measured: [`burst`] starts the
//! current program again with the argument [`COMMAND`], which must call [`serve`].

use std::path::Path;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use k8s_openapi::api::batch::v1::Job;
use kube::{Api, api::PostParams};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use crate::kubernetes::ready;
use crate::process;

/// The first argument of the process of a burst.
pub const COMMAND: &str = "bare";

const DEADLINE: Duration = Duration::from_secs(600);

/// The Jobs of a burst.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Burst {
    /// The manifest of every Job; it gets the name `bare-<number>`.
    pub job: Value,
    /// The number of Jobs.
    pub count: usize,
    /// The number of concurrent calls.
    pub in_flight: usize,
}

/// The measurements of a burst.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Measured {
    /// From the first call until the last answer.
    pub seconds: f64,
    /// User and system time of the client.
    pub cpu_seconds: f64,
    /// The resident memory of the client after the burst.
    pub memory_mib: f64,
}

/// Creates the Jobs from another process.
///
/// # Errors
/// If a Job is not created.
pub async fn burst(kubeconfig: &Path, namespace: &str, burst: &Burst) -> Result<Measured, String> {
    let failed = |error: &dyn std::fmt::Display| format!("bare client: {error}");
    let program = std::env::current_exe().map_err(|error| failed(&error))?;
    let work = serde_json::to_string(burst).map_err(|error| failed(&error))?;
    let mut command = Command::new(program);
    command.arg(COMMAND).arg(kubeconfig).arg(namespace).arg(work).kill_on_drop(true);
    let output = timeout(DEADLINE, command.output()).await.map_err(|error| failed(&error))?;
    let output = output.map_err(|error| failed(&error))?;
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).map_err(|error| format!("bare client: {text:?}: {error}"))
}

/// The process of a burst: `args` are those after [`COMMAND`]. Prints the measurements.
///
/// # Errors
/// If a Job is not created.
pub async fn serve(args: &[String]) -> Result<(), String> {
    let [kubeconfig, namespace, work] = args else { return Err("not started by a benchmark".to_owned()) };
    let burst: Burst = serde_json::from_str(work).map_err(|error| error.to_string())?;
    let client = Client::new(kubeconfig.as_ref(), namespace)?;
    let jobs = (0..burst.count).map(|n| named(&burst.job, &format!("bare-{n}")));
    let jobs = jobs.collect::<Result<Vec<Job>, String>>()?;
    let pid = std::process::id();
    let (cpu, start) = (process::cpu_time(pid)?, Instant::now());
    let created = stream::iter(&jobs).map(|job| client.create(job)).buffer_unordered(burst.in_flight);
    created.collect::<Vec<_>>().await.into_iter().collect::<Result<(), String>>()?;
    let seconds = start.elapsed().as_secs_f64();
    let measured = Measured {
        seconds,
        cpu_seconds: process::cpu_time(pid)?.saturating_sub(cpu).as_secs_f64(),
        memory_mib: process::memory(pid)?.now,
    };
    println!("{}", serde_json::to_string(&measured).map_err(|error| error.to_string())?);
    Ok(())
}

/// The Job of this manifest with this name.
///
/// # Errors
/// If the manifest is invalid.
pub fn named(manifest: &Value, name: &str) -> Result<Job, String> {
    let job = serde_json::from_value::<Job>(manifest.clone());
    let mut job = job.map_err(|error| format!("manifest of the bare client: {error}"))?;
    job.metadata.name = Some(name.to_owned());
    Ok(job)
}

/// Creates single Jobs.
#[derive(Clone, Debug)]
pub struct Client(Api<Job>);

impl Client {
    /// A client for one namespace.
    ///
    /// # Errors
    /// If the kubeconfig is invalid.
    pub fn new(kubeconfig: &Path, namespace: &str) -> Result<Self, String> {
        Ok(Self(Api::namespaced(ready::client(kubeconfig)?, namespace)))
    }

    /// Creates a Job.
    ///
    /// # Errors
    /// If it is not created.
    pub async fn create(&self, job: &Job) -> Result<(), String> {
        let created = self.0.create(&PostParams::default(), job).await;
        created.map(drop).map_err(|error| format!("bare client: {error}"))
    }
}
