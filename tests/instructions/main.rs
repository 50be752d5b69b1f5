//! The guard of the hot paths: the instructions of `dispatcher-core` must not exceed the recorded
//! ones. Counts do not depend on the speed or the load of the machine, unlike times.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

mod counts;

use std::env::consts::ARCH;
use std::process::Stdio;
use std::time::Duration;

use dispatcher_tests::{or_skip, paths};
use tokio::process::Command;
use tokio::time::timeout;

use crate::counts::{Counts, Record, compare};

/// The time for the build and the run: so long that a busy machine fails no test.
const DEADLINE: Duration = Duration::from_secs(1800);

/// Set by `make instructions`, to record the counts instead of comparing them.
const RECORD: &str = "RECORD_INSTRUCTIONS";

#[tokio::test]
async fn hot_paths_execute_no_more_instructions_than_recorded() {
    let counted = or_skip!(count().await);
    let path = paths::workspace().join("dispatcher/core/benches/instructions.json");
    let mut record: Record = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let compiler = or_skip!(output(Command::new("rustc").arg("--version")).await).trim().to_owned();
    if std::env::var_os(RECORD).is_some() {
        record.compiler = compiler;
        record.counts.insert(ARCH.to_owned(), counted);
        std::fs::write(&path, serde_json::to_string_pretty(&record).unwrap() + "\n").unwrap();
        return;
    }
    let Some(recorded) = record.counts.get(ARCH) else {
        dispatcher_tests::skip::skip("instructions", &format!("no counts are recorded for {ARCH}"));
        return;
    };
    let problems = compare(recorded, &counted, record.tolerance_percent);
    assert!(
        problems.is_empty(),
        "{}\nrecorded with {}, counted with {compiler}.\nIf this cost is intended, record the new counts \
         with `make instructions` and commit {}.",
        problems.join("\n"),
        record.compiler,
        path.display()
    );
}

/// Runs the benchmark `instructions` under callgrind.
async fn count() -> Result<Counts, String> {
    let runner = paths::gungraun_runner()?;
    output(Command::new("valgrind").arg("--version")).await?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(paths::workspace()).env("GUNGRAUN_RUNNER", runner);
    cargo.args(["bench", "--quiet", "--profile", "instructions", "--package", "dispatcher-core"]);
    cargo.args(["--features", "testing", "--bench", "instructions", "--", "--output-format=json"]);
    counts::parse(&output(&mut cargo).await.unwrap_or_else(|error| panic!("{error}")))
}

async fn output(command: &mut Command) -> Result<String, String> {
    let name = format!("{:?}", command.as_std());
    let child = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(DEADLINE, child).await.map_err(|_| format!("{name}: no end after {DEADLINE:?}"))?;
    let output = output.map_err(|error| format!("{name}: {error}; run `make setup`"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(format!("{name}: {}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))),
    }
}
