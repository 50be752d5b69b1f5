//! `make demo`: runs NATS, a local cluster and the dispatcher on this machine, and shows what a
//! NATS client sees.
//!
//! ```text
//! `dispatcher dev` ─▶ part 1: requests ─▶ part 2: crash ─▶ part 3: calls ─▶ summary
//! ```
//!
//! Each part is a module with `JOBS`, its Jobs and their expected outcomes. Add a new part to
//! [`JOBS`] and to [`run_parts`].

mod calls;
mod client;
mod crash;
mod dev_system;
mod event;
mod requests;
mod row;
mod screen;
mod status_watcher;
mod summary;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use crate::client::Client;
use crate::dev_system::DevSystem;
use crate::screen::Screen;
use crate::status_watcher::StatusWatcher;
use crate::summary::ExpectedJob;

/// Deadline of all parts together, far more than a slow machine needs.
const DEADLINE: Duration = Duration::from_secs(180);
/// The exit code of a shell for a program that SIGINT has ended.
const INTERRUPTED: u8 = 130;

/// What every part uses.
struct Demo {
    screen: Screen,
    system: DevSystem,
    client: Client,
    watcher: StatusWatcher,
}

/// The Jobs of all parts.
const JOBS: [&[ExpectedJob]; 3] = [&requests::JOBS, &crash::JOBS, &calls::JOBS];

/// Runs the parts one after the other.
async fn run_parts(demo: &Demo) -> Result<(), String> {
    requests::run(demo).await?;
    crash::run(demo).await?;
    calls::run(demo).await?;
    requests::until_failed(demo).await;
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    // Fails only if a provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let start = Instant::now();
    let screen = Screen::new();
    screen.plain("NATS messages become Kubernetes Jobs, and each Job's status is published to NATS.");
    screen.plain("This demo uses the real dispatcher and NATS. A local cluster runs the Jobs as processes.");
    let system = match DevSystem::start(&screen).await {
        Ok(system) => system,
        Err(error) => return fail(&error),
    };
    let result = tokio::select! {
        result = run(&screen, system.clone()) => Some(result),
        () = interrupted() => None,
    };
    screen.freeze_board();
    system.stop().await;
    let seconds = start.elapsed().as_secs_f64();
    match result {
        None => ExitCode::from(INTERRUPTED),
        Some(Err(error)) => fail(&error),
        Some(Ok(true)) => {
            screen.plain(&format!("\nAll checks passed after {seconds:.1} s."));
            screen.plain("Run `make dev` to start the same system and keep it running; see README.md.");
            ExitCode::SUCCESS
        }
        Some(Ok(false)) => fail(&format!("checks marked with ✗ failed after {seconds:.1} s")),
    }
}

fn fail(error: &str) -> ExitCode {
    eprintln!("\ndemo: {error}");
    ExitCode::FAILURE
}

/// Waits for SIGINT or SIGTERM.
async fn interrupted() {
    match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(mut interrupt), Ok(mut terminate)) => tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        },
        _ => std::future::pending().await,
    }
}

/// Runs all parts and the summary, and returns whether all checks passed.
async fn run(screen: &Screen, system: DevSystem) -> Result<bool, String> {
    let client = Client::connect(&system.nats_url).await?;
    let events = client.subscribe("jobs.*.status.>").await?;
    let watcher = StatusWatcher::start(screen.clone(), events);
    let demo = Demo { screen: screen.clone(), system, client, watcher };
    // After the deadline the summary shows what is missing.
    timeout(DEADLINE, run_parts(&demo)).await.unwrap_or(Ok(()))?;
    demo.screen.freeze_board();
    summary::check(&demo).await
}
