//! `make demo`: a real Kubernetes, a real NATS and the real dispatcher, seen as a client of NATS sees them.
//!
//! ```text
//! stage: start everything ─▶ act one: a good, a failing and a bad request ─▶ summary: what the streams hold
//!                                └─▶ act two, while the failing Job backs off: kill the dispatcher, start it again
//! ```

mod act_one;
mod act_two;
mod audience;
mod client;
mod event;
mod progress;
mod screen;
mod stage;
mod summary;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use audience::Audience;
use client::Client;
use screen::Screen;
use stage::Stage;
use tokio::time::timeout_at;

/// For everything after the first request. The failing Job takes some 80 s of it.
const DEADLINE: Duration = Duration::from_secs(180);

#[tokio::main]
async fn main() -> ExitCode {
    // The rig panics where it cannot go on: the message is for the user, the place in the code is not.
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("something unforeseen");
        eprintln!("\ndemo: {message}");
    }));
    // In a task of its own, so that a panic ends in an exit code too.
    match tokio::spawn(play()).await {
        Ok(Ok(true)) => ExitCode::SUCCESS,
        Ok(Ok(false)) | Err(_) => ExitCode::FAILURE,
        Ok(Err(error)) => {
            eprintln!("\ndemo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The whole demo; whether everything came as it should.
async fn play() -> Result<bool, String> {
    let begin = Instant::now();
    let mut screen = Screen::new();
    screen.plain(
        "NATS messages become Kubernetes Jobs, and NATS hears what became of each. All of it is real here.",
    );
    screen.title("Starting");
    let stage = Stage::set(&screen).await?;
    let client = Client::connect(&stage.nats.url).await?;
    screen.restart_clock();

    let deadline = tokio::time::Instant::now() + DEADLINE;
    let events = client.subscribe("jobs.simple.status.>").await?;
    act_one::request(&screen, &client).await?;
    let audience = Audience::listen(screen.clone(), events);
    let progress = tokio::spawn(progress::tell(screen.clone(), audience.board.clone()));
    let rest = async {
        act_one::first_answers(&audience).await;
        act_two::play(&screen, &stage, &client, &audience).await?;
        act_one::last_answer(&screen, &audience).await;
        Ok::<(), String>(())
    };
    // Late: the summary says what is missing.
    let ended = timeout_at(deadline, rest).await.unwrap_or(Ok(()));
    progress.abort();
    ended?;

    let heard = audience.board.borrow().clone();
    let complete = summary::tell(&screen, &client, &heard).await?;
    let seconds = begin.elapsed().as_secs_f64();
    screen.plain(&match complete {
        true => {
            format!("\nEverything is as it should be, after {seconds:.0} s. README.md says how to go on.")
        }
        false => format!("\nSomething is missing, after {seconds:.0} s: see the lines marked with ✗."),
    });
    Ok(complete)
}
