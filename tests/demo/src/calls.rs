//! Part 3: requests that wait for the outcome of their Job. One Job completes, and one is
//! OOM-killed.

use crate::Demo;
use crate::event::Attempt;
use crate::summary::ExpectedJob;

const CALL: &str = "simple-job-call";
const BIG: &str = "memory-job-big";

/// The expected outcomes.
pub(crate) const JOBS: [ExpectedJob; 2] = [
    ExpectedJob { name: CALL, result: "Complete", reason: Some("CompletionsReached") },
    ExpectedJob { name: BIG, result: "Failed", reason: Some("BackoffLimitExceeded") },
];

/// Allocates 128 MiB with a memory limit of 32 MiB.
const OVER_LIMIT: &str = r#"{"foo":"big","reqBytes":"16Mi","limBytes":"32Mi","allocBytes":"128Mi"}"#;

/// Calls the NATS service and shows the answers.
pub(crate) async fn run(demo: &Demo) -> Result<(), String> {
    let Demo { screen, client, .. } = demo;
    screen.title("Part 3: a request that waits for the outcome of its Job");
    for (template, payload) in [("simple", r#"{"foo":"call"}"#), ("memory", OVER_LIMIT)] {
        screen.command(&format!(
            "nats req jobs.{template}.submit '{payload}' -H Job-Wait:outcome --timeout 60s"
        ));
        let answer = client.submit(template, payload).await?;
        let outcome = answer.outcome.ok_or("the answer has no outcome")?;
        screen.note(&format!("answer: {}: {}", outcome.result, outcome.explanation()));
        for attempt in &outcome.attempts {
            screen.note(&format!("    pod: {}", describe(attempt)));
            attempt.log_tail.iter().flat_map(|log| log.lines()).for_each(|line| {
                screen.note(&format!("    log: {line}"));
            });
        }
        if template == "memory" && !outcome.attempts.iter().any(is_oom_killed_with_log) {
            return Err(format!("expected an OOMKilled attempt with its log: {:?}", outcome.attempts));
        }
    }
    Ok(())
}

fn describe(attempt: &Attempt) -> String {
    let mut parts = vec![attempt.reason.clone().unwrap_or_else(|| "terminated".to_owned())];
    parts.extend(attempt.exit_code.map(|code| format!("exit code {code}")));
    parts.extend(attempt.memory_limit.as_ref().map(|limit| format!("memory limit {limit}")));
    parts.join(", ")
}

fn is_oom_killed_with_log(attempt: &Attempt) -> bool {
    attempt.reason.as_deref() == Some("OOMKilled")
        && attempt.memory_limit.as_deref() == Some("32Mi")
        && attempt.log_tail.as_ref().is_some_and(|log| !log.is_empty())
}
