//! Act three: a Job as a remote call, once with a good end, and once with one that says of what it failed.

use crate::Scene;
use crate::event::Attempt;
use crate::summary::Expected;

const CALL: &str = "simple-job-call";
const BIG: &str = "memory-job-big";

/// What must have become of its Jobs.
pub(crate) const JOBS: [Expected; 2] = [
    Expected { job: CALL, result: "Complete", reason: Some("CompletionsReached") },
    Expected { job: BIG, result: "Failed", reason: Some("BackoffLimitExceeded") },
];

/// It may have 32 MiB of memory, and takes 128.
const TOO_MUCH: &str = r#"{"foo":"big","reqBytes":"16Mi","limBytes":"32Mi","allocBytes":"128Mi"}"#;

/// Calls, and shows the answers.
pub(crate) async fn play(scene: &Scene) -> Result<(), String> {
    let Scene { screen, client, .. } = scene;
    screen.title("Act three: a Job as a call, answered with its outcome");
    for (template, payload) in [("simple", r#"{"foo":"call"}"#), ("memory", TOO_MUCH)] {
        screen.command(&format!(
            "nats req jobs.{template}.submit '{payload}' -H Job-Wait:outcome --timeout 60s"
        ));
        let answer = client.call(template, payload).await?;
        let outcome = answer.outcome.ok_or("an answer without an outcome")?;
        screen.note(&format!("the answer: {}: {}", outcome.result, outcome.why()));
        for attempt in &outcome.attempts {
            screen.note(&format!("    its pod: {}", told(attempt)));
            attempt.log_tail.iter().flat_map(|log| log.lines()).for_each(|line| {
                screen.note(&format!("    its log: {line}"));
            });
        }
        if template == "memory" && !outcome.attempts.iter().any(is_killed_for_memory) {
            return Err(format!(
                "expected an attempt that was OOMKilled, with its log: {:?}",
                outcome.attempts
            ));
        }
    }
    Ok(())
}

fn told(attempt: &Attempt) -> String {
    let mut words = vec![attempt.reason.clone().unwrap_or_else(|| "ended".to_owned())];
    words.extend(attempt.exit_code.map(|code| format!("exit code {code}")));
    words.extend(attempt.memory_limit.as_ref().map(|limit| format!("memory limit {limit}")));
    words.join(", ")
}

fn is_killed_for_memory(attempt: &Attempt) -> bool {
    attempt.reason.as_deref() == Some("OOMKilled")
        && attempt.memory_limit.as_deref() == Some("32Mi")
        && attempt.log_tail.as_ref().is_some_and(|log| !log.is_empty())
}
