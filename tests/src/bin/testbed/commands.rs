//! The conversation with the test: one JSON object when ready, then one for each command.

use std::io::Write;
use std::process::ExitCode;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::guard::told_to_end;

/// What obeys commands.
pub(crate) trait Obey {
    /// Carries out `<verb> <name>`; the value is the answer.
    async fn obey(&mut self, verb: &str, name: &str) -> Result<Value, String>;
    /// Ends everything.
    async fn end(&mut self);
}

/// Prints one JSON object as a line.
pub(crate) fn say(value: &Value) {
    let mut out = std::io::stdout().lock();
    // The test may be gone; then stdin says so too.
    let _ = writeln!(out, "{value}");
    let _ = out.flush();
}

/// Says that all is ready, obeys commands until stdin closes or a signal comes, then ends everything.
pub(crate) async fn serve(started: Result<Value, String>, mut servant: impl Obey) -> ExitCode {
    let failed = started.is_err();
    say(&answer(started));
    if !failed {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        let mut told_to_end = std::pin::pin!(told_to_end());
        loop {
            let line = tokio::select! {
                line = lines.next_line() => line,
                () = &mut told_to_end => break,
            };
            let Ok(Some(line)) = line else { break };
            let (verb, name) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
            say(&answer(servant.obey(verb, name).await));
        }
    }
    servant.end().await;
    ExitCode::from(u8::from(failed))
}

fn answer(result: Result<Value, String>) -> Value {
    result.unwrap_or_else(|error| json!({"error": error}))
}
