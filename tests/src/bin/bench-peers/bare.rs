//! The bare Kubernetes client: a separate process, to measure its CPU time.

use std::path::Path;
use std::time::Duration;

use dispatcher_tests::Namespace;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::batch::v1::Job;
use kube::api::PostParams;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;

use crate::manifest::job_of;
use crate::requests::Requester;
use crate::usage;

/// The argument that selects [`create`].
pub(crate) const SUBCOMMAND: &str = "bare";
/// The number of concurrent creates: that of the dispatcher, too.
pub(crate) const IN_FLIGHT: usize = 64;
const DEADLINE: Duration = Duration::from_secs(120);

/// CPU time in seconds, and memory in MiB.
pub(crate) type Usage = (f64, f64);

/// Runs [`create`] in another process.
pub(crate) async fn run(namespace: &Namespace, count: usize) -> Result<Usage, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.arg(SUBCOMMAND).arg(&namespace.dispatcher_kubeconfig).arg(&namespace.name).arg(count.to_string());
    let output = timeout(DEADLINE, command.kill_on_drop(true).output()).await;
    let output = output.map_err(|_| format!("bare client: not done within {DEADLINE:?}"))?;
    let output = output.map_err(|error| format!("bare client: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let usage: Value = serde_json::from_str(&text).map_err(|error| {
        format!("bare client: {text:?}: {error}: {}", String::from_utf8_lossy(&output.stderr))
    })?;
    let number = |key: &str| usage.get(key).and_then(Value::as_f64).ok_or(format!("no `{key}` in {usage}"));
    Ok((number("cpu")?, number("memory")?))
}

/// Creates the Jobs and prints the usage.
pub(crate) async fn create(kubeconfig: &str, namespace: &str, count: &str) -> Result<(), String> {
    let count: usize = count.parse().map_err(|error| format!("{count:?}: {error}"))?;
    let Requester::Api(jobs) = Requester::api(Path::new(kubeconfig), namespace)? else {
        return Err("no API".to_owned());
    };
    let all = (0..count).map(job_of).collect::<Result<Vec<Job>, String>>()?;
    let own = [std::process::id()];
    let before = usage::cpu_seconds(&own)?;
    let params = PostParams::default();
    let created = stream::iter(&all).map(|job| jobs.create(&params, job)).buffer_unordered(IN_FLIGHT);
    created.try_for_each(|_| async { Ok(()) }).await.map_err(|error| error.to_string())?;
    let cpu = usage::cpu_seconds(&own)? - before;
    println!("{}", json!({"cpu": cpu, "memory": usage::memory_mib(&own)?}));
    Ok(())
}
