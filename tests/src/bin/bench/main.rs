//! `make bench`: Jobs per second and CPU time of the dispatcher and of a plain Kubernetes client
//! with equal concurrency, in alternate rounds on the same control plane.
//!
//! The Jobs are suspended, so that no pods run. The plain client only creates. The dispatcher
//! pulls, validates, creates, stores the first event with the fence and acknowledges.
//!
//! `make bench WHAT=...` selects another benchmark: [`delays`], [`memory`], [`observed`], [`sync`].

mod bare;
mod cpu;
mod delays;
mod memory;
mod observed;
mod requests;
mod sync;

use std::process::ExitCode;

use dispatcher_tests::templates::without_limit;
use dispatcher_tests::{Dispatcher, Kubernetes, Namespace, Nats, Options, paths};
use k8s_openapi::api::batch::v1::Job;
use serde_json::Value;

/// The number of requests.
const JOBS: usize = 1000;
/// The number of concurrent creates, in both.
const IN_FLIGHT: usize = 64;
/// The rounds of each side.
const ROUNDS: usize = 5;

/// The result of one round.
struct Run {
    seconds: f64,
    cpu: f64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let done = match (args.next().as_deref(), args.next(), args.next()) {
        (Some("bare"), Some(kubeconfig), Some(namespace)) => bare::create(&kubeconfig, &namespace).await,
        (Some("delays"), ..) => delays::run().await,
        (Some("memory"), ..) => memory::run().await,
        (Some("observed"), ..) => observed::run().await,
        (Some("sync"), ..) => sync::run().await,
        _ => compare().await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn compare() -> Result<(), String> {
    let kubernetes = Kubernetes::control_plane(Options::default()).await?;
    println!("{JOBS} suspended Jobs, {IN_FLIGHT} concurrent creates, {ROUNDS} alternate rounds");
    println!("\n  round    plain client            dispatcher");
    println!("           Jobs/s   CPU s   Jobs/s   CPU s   ratio of rates");
    let mut ratios = Vec::new();
    for round in 0..=ROUNDS {
        let bare = bare::run(&kubernetes.namespace().await).await?;
        let ours = dispatcher(&kubernetes.namespace().await).await?;
        let ratio = bare.seconds / ours.seconds;
        let rate = |run: &Run| JOBS as f64 / run.seconds;
        let name = if round == 0 { "warm-up".to_owned() } else { round.to_string() };
        println!(
            "  {name:<7} {:>7.0} {:>7.2}  {:>7.0} {:>7.2}   {ratio:.2}",
            rate(&bare),
            bare.cpu,
            rate(&ours),
            ours.cpu
        );
        if round > 0 {
            ratios.push(ratio);
        }
    }
    ratios.sort_by(f64::total_cmp);
    let median = ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN);
    println!("\n  median of the ratios: {median:.2}");
    Ok(())
}

async fn dispatcher(namespace: &Namespace) -> Result<Run, String> {
    let folder = paths::temp_dir("bench")?;
    std::fs::write(folder.path().join("simple.yaml"), template()?).map_err(|error| error.to_string())?;
    let nats = Nats::process().await;
    let dispatcher = Dispatcher::builder(&nats, namespace)
        .templates(folder.path())
        .env("DISPATCHER_CONCURRENCY", &IN_FLIGHT.to_string())
        .env("RUST_LOG", "warn")
        .try_start()
        .await?;
    requests::burst(&requests::context(&nats).await, dispatcher.pid().await, 0..JOBS).await
}

fn shipped() -> Result<String, String> {
    let path = paths::workspace().join("deploy/templates/simple.yaml");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(without_limit(&text))
}

/// The shipped template, with suspended Jobs.
fn template() -> Result<String, String> {
    let spec = "    backoffLimit: 3\n";
    Ok(shipped()?.replace(spec, &format!("{spec}    suspend: true\n")))
}

/// The Job that the dispatcher creates from that template, without labels and annotations.
fn job(n: usize) -> Result<Job, String> {
    let mut template: Value = serde_saphyr::from_str(&template()?).map_err(|error| error.to_string())?;
    let job = template.get_mut("job").map(Value::take).unwrap_or_default();
    let mut job: Job = serde_json::from_value(job).map_err(|error| error.to_string())?;
    job.metadata.name = Some(format!("simple-job-{n}"));
    Ok(job)
}
