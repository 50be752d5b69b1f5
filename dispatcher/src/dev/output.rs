//! Formats and prints one readable line per status event and log line.
//!
//! Colours are removed if stdout is not a terminal.

use std::{fmt::Write as _, io::Write as _};

use anstyle::{AnsiColor, Style};
use serde_json::Value;
use time::{OffsetDateTime, macros::format_description};

const SUCCESS: Style = AnsiColor::Green.on_default().bold();
const FAILURE: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const FAINT: Style = Style::new().dimmed();

/// Prints a text.
pub(super) fn print(text: &str) {
    let mut out = anstream::stdout().lock();
    // A closed stdout does not stop the program.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Prints a line about this program itself, with the time in UTC.
pub(super) fn print_notice(text: &str) {
    let time = OffsetDateTime::now_utc().format(format_description!("[hour]:[minute]:[second]"));
    print(&notice(&time.unwrap_or_default(), text));
}

fn notice(time: &str, text: &str) -> String {
    format!("{} {} {text}", styled(FAINT, time), styled(WARNING, "──"))
}

fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// Formats a message on a status subject. A message that is not a status event is shown unchanged.
pub(super) fn event(subject: &str, payload: &[u8]) -> String {
    let event: Value = serde_json::from_slice(payload).unwrap_or_default();
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str);
    let (Some(template), Some(event_type)) = (text("/template"), text("/type")) else {
        return format!("{subject} {}", String::from_utf8_lossy(payload));
    };
    let style = match (event_type, text("/outcome/result")) {
        (_, Some("Complete")) => SUCCESS,
        (_, Some("Failed")) => FAILURE,
        ("REJECTED" | "STALLED" | "DELETED", _) | (_, Some(_)) => WARNING,
        _ => Style::new(),
    };
    let details = match text("/outcome/result") {
        Some(result) => with_reason(result, text("/outcome/reason"), text("/outcome/message")),
        None => match text("/reason") {
            Some(reason) => with_reason(reason, None, text("/message")),
            None if event_type == "ADDED" => "created".to_owned(),
            None => progress(&event),
        },
    };
    let name = text("/name").unwrap_or("(no Job)");
    let time = styled(FAINT, clock(text("/time").unwrap_or_default()));
    let event_type = styled(style, &format!("{event_type:<8}"));
    format!("{time} {event_type} {template}/{name}  {}", styled(style, &details))
}

/// Formats `<word> <reason>: <message>` and omits absent parts. The word is a result, a condition
/// type, or the reason of a status event.
fn with_reason(word: &str, reason: Option<&str>, message: Option<&str>) -> String {
    let reason = reason.map(|reason| format!(" {reason}")).unwrap_or_default();
    let message = message.map(|message| format!(": {message}")).unwrap_or_default();
    format!("{word}{reason}{message}")
}

/// Describes how an attempt ended. If the event has no attempt, lists the Job's pod counts and its
/// last true condition. Never empty.
fn progress(event: &Value) -> String {
    if let Some(attempt) = event.get("attempt") {
        let pod = attempt.get("pod").and_then(Value::as_str).unwrap_or("a pod");
        let reason = attempt.get("reason").and_then(Value::as_str).unwrap_or("ended");
        let code = attempt.get("exitCode").map(|code| format!(", exit code {code}")).unwrap_or_default();
        return format!("{pod}: {reason}{code}");
    }
    let status = event.get("status");
    let count =
        |name: &str| status?.get(name)?.as_u64().filter(|count| *count > 0).map(|n| format!("{n} {name}"));
    let mut parts: Vec<String> =
        ["active", "ready", "terminating", "succeeded", "failed"].into_iter().filter_map(count).collect();
    // Pods that have ended, until the Job controller has moved them to `succeeded` and `failed`.
    let uncounted = |name: &str| {
        let pods = status?.get("uncountedTerminatedPods")?.get(name)?.as_array()?;
        (!pods.is_empty()).then(|| format!("{} {name} (uncounted)", pods.len()))
    };
    parts.extend(["succeeded", "failed"].into_iter().filter_map(uncounted));
    let conditions = status.and_then(|status| status.get("conditions")).and_then(Value::as_array);
    let is_true = |condition: &&Value| condition.get("status").and_then(Value::as_str) == Some("True");
    if let Some(condition) = conditions.into_iter().flatten().rev().find(is_true) {
        let text = |name: &str| condition.get(name).and_then(Value::as_str);
        parts.push(with_reason(text("type").unwrap_or_default(), text("reason"), None));
    }
    let has_started = status.is_some_and(|status| status.get("startTime").is_some());
    match (parts.is_empty(), has_started) {
        (false, _) => parts.join(", "),
        (true, true) => "no active pods".to_owned(),
        (true, false) => "not started".to_owned(),
    }
}

/// Formats a line of the dispatcher's log (JSON).
///
/// Lines less severe than a warning are dropped unless `all` is set, because the status events show
/// the same information. A line that is not JSON (a startup error or a panic) is shown unchanged.
pub(super) fn log(line: &str, all: bool) -> Option<String> {
    let Ok(Value::Object(mut fields)) = serde_json::from_str(line) else {
        return Some(line.to_owned()).filter(|line| !line.trim().is_empty());
    };
    let mut take = |name: &str| match fields.remove(name) {
        Some(Value::String(text)) => text,
        _ => String::new(),
    };
    let (time, level, message) = (take("timestamp"), take("level"), take("message"));
    let style = match level.as_str() {
        "ERROR" => FAILURE,
        "WARN" => WARNING,
        _ if all => FAINT,
        _ => return None,
    };
    let level = styled(style, &format!("{level:<8}"));
    let mut text = format!("{} {level} dispatcher: {message}", styled(FAINT, clock(&time)));
    for (name, value) in fields {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let _ = write!(text, " {name}={value}");
    }
    Some(text)
}

/// Formats a line of nats-server, `[pid] date time [LEVEL] message`, if it is a warning or error.
pub(super) fn nats_server(line: &str) -> Option<String> {
    let (style, message) = [("[FTL] ", FAILURE), ("[ERR] ", FAILURE), ("[WRN] ", WARNING)]
        .into_iter()
        .find_map(|(level, style)| Some((style, line.split_once(level)?.1)))?;
    Some(format!("{} nats-server: {message}", styled(style, "──")))
}

/// The time of day of an RFC 3339 timestamp, such as `10:00:00`.
fn clock(time: &str) -> &str {
    time.get(11..19).unwrap_or(time)
}

#[cfg(test)]
mod tests;
