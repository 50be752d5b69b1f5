//! One readable line for each thing that happens. Pure: what was said in, the line out, with colours that are taken out
//! where the output is no terminal.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use serde_json::Value;

const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();
const ODD: Style = AnsiColor::Yellow.on_default().bold();
const FAINT: Style = Style::new().dimmed();

/// `text` in a style.
fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// A line about the whole: what this program does itself.
pub(super) fn own(time: &str, text: &str) -> String {
    format!("{} {} {text}", styled(FAINT, time), styled(ODD, "──"))
}

/// A message on `jobs.<template>.status.<name>`; what is no status event is shown as it is.
pub(super) fn event(subject: &str, payload: &[u8]) -> String {
    let event: Value = serde_json::from_slice(payload).unwrap_or_default();
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str);
    let (Some(template), Some(word)) = (text("/template"), text("/type")) else {
        return format!("{subject} {}", String::from_utf8_lossy(payload));
    };
    let style = match (word, text("/outcome/result")) {
        (_, Some("Complete")) => GOOD,
        (_, Some("Failed")) => BAD,
        ("REJECTED" | "STALLED" | "DELETED", _) | (_, Some(_)) => ODD,
        _ => Style::new(),
    };
    let what = match text("/outcome/result") {
        Some(result) => because(result, text("/outcome/reason"), text("/outcome/message")),
        None => match text("/reason") {
            Some(reason) => because(reason, None, text("/message")),
            None if word == "ADDED" => "created".to_owned(),
            None => progress(&event),
        },
    };
    let name = text("/name").unwrap_or("(no Job)");
    let time = styled(FAINT, clock(text("/time").unwrap_or_default()));
    format!("{time} {} {template}/{name}  {}", styled(style, &format!("{word:<8}")), styled(style, &what))
}

/// `Word Reason: message`, of what there is.
fn because(word: &str, reason: Option<&str>, message: Option<&str>) -> String {
    let reason = reason.map(|reason| format!(" {reason}")).unwrap_or_default();
    let message = message.map(|message| format!(": {message}")).unwrap_or_default();
    format!("{word}{reason}{message}")
}

/// A Job on its way: its pods, by count, and what Kubernetes says of it so far. Of one attempt: how it ended.
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
    let mut said: Vec<String> =
        ["active", "ready", "succeeded", "failed"].into_iter().filter_map(count).collect();
    let conditions = status.and_then(|status| status.get("conditions")).and_then(Value::as_array);
    let holds = |condition: &&Value| condition.get("status").and_then(Value::as_str) == Some("True");
    if let Some(condition) = conditions.into_iter().flatten().rev().find(holds) {
        let text = |name: &str| condition.get(name).and_then(Value::as_str);
        said.push(because(text("type").unwrap_or_default(), text("reason"), None));
    }
    said.join(", ")
}

/// A line of the dispatcher's log in its JSON form. The events are told by themselves: below a warning it is shown
/// only where `all` is asked for. A line that is no JSON is a last word, and shown as it is.
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
        "ERROR" => BAD,
        "WARN" => ODD,
        _ if all => FAINT,
        _ => return None,
    };
    let mut text = format!(
        "{} {} dispatcher: {message}",
        styled(FAINT, clock(&time)),
        styled(style, &format!("{level:<8}"))
    );
    for (name, value) in fields {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let _ = write!(text, " {name}={value}");
    }
    Some(text)
}

/// A line of nats-server, `[pid] date time [LEVEL] message`: warnings and errors only.
pub(super) fn nats_server(line: &str) -> Option<String> {
    let (style, message) = [("[FTL] ", BAD), ("[ERR] ", BAD), ("[WRN] ", ODD)]
        .into_iter()
        .find_map(|(level, style)| Some((style, line.split_once(level)?.1)))?;
    Some(format!("{} nats-server: {message}", styled(style, "──")))
}

/// `10:00:00` of an RFC 3339 time in UTC.
fn clock(time: &str) -> &str {
    time.get(11..19).unwrap_or(time)
}

#[cfg(test)]
mod tests;
