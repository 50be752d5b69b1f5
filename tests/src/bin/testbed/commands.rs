//! The protocol with the test: a JSON object when ready, then one per command.

use std::io::Write;
use std::process::ExitCode;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::guard::termination;

/// Executes commands.
pub(crate) trait Commands {
    /// Executes `<verb> <name>` and returns the answer.
    async fn execute(&mut self, verb: &str, name: &str) -> Result<Value, String>;
    /// Ends all processes.
    async fn end(&mut self);
}

/// Prints a JSON object as a line.
pub(crate) fn print_line(value: &Value) {
    let mut out = std::io::stdout().lock();
    // If the test has ended, stdin closes as well.
    let _ = writeln!(out, "{value}");
    let _ = out.flush();
}

/// Prints that everything is ready, executes commands until stdin closes or a signal arrives, then
/// ends all processes.
pub(crate) async fn serve(started: Result<Value, String>, mut service: impl Commands) -> ExitCode {
    let failed = started.is_err();
    print_line(&answer(started));
    if !failed {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        let mut termination = std::pin::pin!(termination());
        loop {
            let line = tokio::select! {
                line = lines.next_line() => line,
                () = &mut termination => break,
            };
            let Ok(Some(line)) = line else { break };
            let (verb, name) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
            print_line(&answer(service.execute(verb, name).await));
        }
    }
    service.end().await;
    ExitCode::from(u8::from(failed))
}

fn answer(result: Result<Value, String>) -> Value {
    result.unwrap_or_else(|error| json!({"error": error}))
}
