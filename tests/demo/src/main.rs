//! `make demo`: NATS, a local cluster and the real dispatcher on this machine, seen as a client of NATS sees them.
//!
//! ```text
//! stage: `dispatcher dev` ─▶ act one: a good, a failing and a bad request ─▶ summary: what the streams hold
//!                               ├─▶ act two, while the failing Job backs off: the dispatcher is killed
//!                               └─▶ act three: Jobs as calls, one of them killed for its memory
//! ```
//!
//! An act is a module with the Jobs that it makes (`JOBS`: what must have become of them in the end) and what it plays. A
//! further one goes into [`JOBS`] and into [`acts`].

mod act_one;
mod act_three;
mod act_two;
mod audience;
mod client;
mod event;
mod row;
mod screen;
mod stage;
mod summary;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use audience::Audience;
use client::Client;
use screen::Screen;
use stage::Stage;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use crate::summary::Expected;

/// For all acts together: far more than a slow machine needs.
const DEADLINE: Duration = Duration::from_secs(180);
/// As a shell says it of a program that a Ctrl-C has ended.
const INTERRUPTED: u8 = 130;

/// What the acts find and use.
struct Scene {
    screen: Screen,
    stage: Stage,
    client: Client,
    audience: Audience,
}

/// The Jobs of all acts.
const JOBS: [&[Expected]; 3] = [&act_one::JOBS, &act_two::JOBS, &act_three::JOBS];

/// The acts, one after the other.
async fn acts(scene: &Scene) -> Result<(), String> {
    act_one::play(scene).await?;
    act_two::play(scene).await?;
    act_three::play(scene).await?;
    // The failing Job of act one goes on through all of them.
    act_one::end(scene).await;
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    // Only fails where one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let interrupted = async {
        match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
            (Ok(mut interrupt), Ok(mut terminate)) => tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            },
            _ => std::future::pending().await,
        }
    };
    let begin = Instant::now();
    let screen = Screen::new();
    screen.plain("NATS messages become Kubernetes Jobs, and NATS hears what became of each.");
    screen.plain("Here a local cluster runs them as processes; the dispatcher and NATS are the real ones.");
    let stage = match Stage::set(&screen).await {
        Ok(stage) => stage,
        Err(error) => return fail(&error),
    };
    let played = tokio::select! {
        played = play(&screen, stage.clone()) => Some(played),
        () = interrupted => None,
    };
    screen.end_board();
    stage.end().await;
    let seconds = begin.elapsed().as_secs_f64();
    match played {
        None => ExitCode::from(INTERRUPTED),
        Some(Err(error)) => fail(&error),
        Some(Ok(true)) => {
            screen.plain(&format!("\nEverything is as it should be, after {seconds:.1} s."));
            screen.plain("`make dev` leaves all of it running, for you; README.md says how to go on.");
            ExitCode::SUCCESS
        }
        Some(Ok(false)) => {
            fail(&format!("something is missing, after {seconds:.1} s: the lines marked with ✗"))
        }
    }
}

fn fail(error: &str) -> ExitCode {
    eprintln!("\ndemo: {error}");
    ExitCode::FAILURE
}

/// All acts and the summary; whether everything came as it should.
async fn play(screen: &Screen, stage: Stage) -> Result<bool, String> {
    let client = Client::connect(&stage.nats_url).await?;
    let events = client.subscribe("jobs.*.status.>").await?;
    let audience = Audience::listen(screen.clone(), events);
    let scene = Scene { screen: screen.clone(), stage, client, audience };
    // Late: the summary says what is missing.
    timeout(DEADLINE, acts(&scene)).await.unwrap_or(Ok(()))?;
    scene.screen.end_board();
    summary::tell(&scene).await
}
