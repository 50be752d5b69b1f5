//! The plain Kubernetes client: a separate process, to measure its CPU time.

use std::time::{Duration, Instant};

use dispatcher_tests::{Namespace, kubernetes::ready};
use futures::{StreamExt, stream};
use k8s_openapi::api::batch::v1::Job;
use kube::{Api, api::PostParams};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;

use crate::{IN_FLIGHT, JOBS, Run, cpu, job};

const DEADLINE: Duration = Duration::from_secs(120);

/// Runs [`create`] in another process.
pub(crate) async fn run(namespace: &Namespace) -> Result<Run, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.arg("bare").arg(&namespace.dispatcher_kubeconfig).arg(&namespace.name);
    let output = timeout(DEADLINE, command.kill_on_drop(true).output());
    let output =
        output.await.map_err(|_| "plain client: timed out".to_owned())?.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let output: Value =
        serde_json::from_str(&text).map_err(|error| format!("plain client: {text:?}: {error}"))?;
    let number = |key: &str| {
        output.get(key).and_then(Value::as_f64).ok_or_else(|| format!("plain client: no `{key}` in {output}"))
    };
    Ok(Run { seconds: number("seconds")?, cpu: number("cpu")? })
}

/// Creates the Jobs and prints the measurements.
pub(crate) async fn create(kubeconfig: &str, namespace: &str) -> Result<(), String> {
    let jobs: Api<Job> = Api::namespaced(ready::client(kubeconfig.as_ref())?, namespace);
    let all = (0..JOBS).map(job).collect::<Result<Vec<Job>, String>>()?;
    let before = cpu::seconds(std::process::id())?;
    let start = Instant::now();
    let params = PostParams::default();
    stream::iter(&all)
        .map(|job| jobs.create(&params, job))
        .buffer_unordered(IN_FLIGHT)
        .collect::<Vec<_>>()
        .await
        .into_iter()
        .collect::<Result<Vec<Job>, kube::Error>>()
        .map_err(|error| error.to_string())?;
    let seconds = start.elapsed().as_secs_f64();
    println!("{}", json!({"seconds": seconds, "cpu": cpu::seconds(std::process::id())? - before}));
    Ok(())
}
