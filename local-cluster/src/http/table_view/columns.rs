//! The columns of Kubernetes' tables.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    object::{has, is_being_deleted, list, name, number, text},
    resource::Resource,
};

/// A table column.
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) type_: &'static str,
    /// 0, or 1 for a column of `-o wide` only.
    pub(super) priority: i32,
    pub(super) cell: fn(&Value) -> Value,
}

impl Column {
    pub(super) fn format(&self) -> &'static str {
        if self.name == "Name" { "name" } else { "" }
    }
}

const fn column(name: &'static str, cell: fn(&Value) -> Value) -> Column {
    Column { name, type_: "string", priority: 0, cell }
}

const fn wide(name: &'static str, cell: fn(&Value) -> Value) -> Column {
    Column { name, type_: "string", priority: 1, cell }
}

static JOBS: [Column; 8] = [
    column("Name", |job| name(job).into()),
    column("Status", |job| job_status(job).into()),
    column("Completions", |job| completions(job).into()),
    column("Duration", |job| job_duration(job).into()),
    column("Age", age),
    wide("Containers", |job| containers(job, "/spec/template/spec/containers", "/name")),
    wide("Images", |job| containers(job, "/spec/template/spec/containers", "/image")),
    wide("Selector", |job| selector(job).into()),
];

static PODS: [Column; 9] = [
    column("Name", |pod| name(pod).into()),
    column("Ready", |pod| ready(pod).into()),
    column("Status", |pod| pod_status(pod).into()),
    column("Restarts", |pod| restarts(pod).to_string().into()),
    column("Age", age),
    wide("IP", |pod| or_none(text(pod, "/status/podIP"))),
    wide("Node", |pod| or_none(text(pod, "/spec/nodeName"))),
    wide("Nominated Node", |pod| or_none(text(pod, "/status/nominatedNodeName"))),
    wide("Readiness Gates", |_| or_none("")),
];

static EVENTS: [Column; 5] = [
    column("Last Seen", |event| elapsed_since(last_seen(event))),
    column("Type", |event| text(event, "/type").into()),
    column("Reason", |event| text(event, "/reason").into()),
    column("Object", |event| {
        let kind = text(event, "/involvedObject/kind").to_lowercase();
        format!("{kind}/{}", text(event, "/involvedObject/name")).into()
    }),
    column("Message", |event| text(event, "/message").trim().into()),
];

static NAMESPACES: [Column; 3] = [
    column("Name", |namespace| name(namespace).into()),
    column("Status", |namespace| text(namespace, "/status/phase").into()),
    column("Age", age),
];

static LEASES: [Column; 3] = [
    column("Name", |lease| name(lease).into()),
    column("Holder", |lease| text(lease, "/spec/holderIdentity").into()),
    column("Age", age),
];

static OTHERS: [Column; 2] = [column("Name", |object| name(object).into()), column("Age", age)];

/// The columns of a resource.
pub(super) fn of(resource: &Resource) -> &'static [Column] {
    match resource.kind {
        "Job" => &JOBS,
        "Pod" => &PODS,
        "Event" => &EVENTS,
        "Namespace" => &NAMESPACES,
        "Lease" => &LEASES,
        _ => &OTHERS,
    }
}

/// The time since the object was created.
fn age(object: &Value) -> Value {
    elapsed_since(text(object, "/metadata/creationTimestamp"))
}

fn elapsed_since(time: &str) -> Value {
    match unix_seconds(time) {
        Some(then) => human_duration(Timestamp::now().as_second() - then).into(),
        None => "<unknown>".into(),
    }
}

fn unix_seconds(time: &str) -> Option<i64> {
    time.parse::<Timestamp>().ok().map(Timestamp::as_second)
}

/// Formats a duration as `kubectl` does (`HumanDuration`).
fn human_duration(seconds: i64) -> String {
    let with = |large: i64, unit: &str, small: i64, part: &str| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit}{small}{part}"),
    };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        ..0 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => with(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => with(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => with(days, "d", hours % 24, "h"),
        _ => format!("{days}d"),
    }
}

fn has_condition(job: &Value, condition: &str) -> bool {
    let conditions = list(job, "/status/conditions");
    conditions.iter().any(|found| text(found, "/type") == condition && text(found, "/status") == "True")
}

fn job_status(job: &Value) -> &'static str {
    if has_condition(job, "Complete") {
        "Complete"
    } else if has_condition(job, "Failed") {
        "Failed"
    } else if is_being_deleted(job) {
        "Terminating"
    } else if has_condition(job, "Suspended") {
        "Suspended"
    } else if has_condition(job, "FailureTarget") {
        "FailureTarget"
    } else if has_condition(job, "SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn completions(job: &Value) -> String {
    let succeeded = number(job, "/status/succeeded");
    let parallelism = number(job, "/spec/parallelism");
    match job.pointer("/spec/completions").and_then(Value::as_i64) {
        Some(wanted) => format!("{succeeded}/{wanted}"),
        None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        None => format!("{succeeded}/1"),
    }
}

fn job_duration(job: &Value) -> String {
    let Some(start) = unix_seconds(text(job, "/status/startTime")) else { return String::new() };
    match unix_seconds(text(job, "/status/completionTime")) {
        Some(end) => human_duration(end - start),
        None => human_duration(Timestamp::now().as_second() - start),
    }
}

fn containers(object: &Value, lists: &str, field: &str) -> Value {
    let all: Vec<_> = list(object, lists).iter().map(|container| text(container, field)).collect();
    all.join(",").into()
}

fn selector(job: &Value) -> String {
    let labels = job.pointer("/spec/selector/matchLabels").and_then(Value::as_object);
    let all: Vec<_> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")))
        .collect();
    all.join(",")
}

fn or_none(text: &str) -> Value {
    if text.is_empty() { "<none>".into() } else { text.into() }
}

fn ready(pod: &Value) -> String {
    let ready = list(pod, "/status/containerStatuses")
        .iter()
        .filter(|status| status.get("ready") == Some(&json!(true)));
    format!("{}/{}", ready.count(), list(pod, "/spec/containers").len())
}

fn restarts(pod: &Value) -> i64 {
    list(pod, "/status/containerStatuses").iter().map(|status| number(status, "/restartCount")).sum()
}

/// The `STATUS` column of `kubectl get pods`.
///
/// A deletion takes precedence, then the first waiting or terminated container, then the pod
/// itself.
fn pod_status(pod: &Value) -> String {
    let mut status = text(pod, "/status/phase");
    if !text(pod, "/status/reason").is_empty() {
        status = text(pod, "/status/reason");
    }
    let mut container_reason = String::new();
    for container in list(pod, "/status/containerStatuses").iter().rev() {
        let (waiting, terminated) =
            (text(container, "/state/waiting/reason"), text(container, "/state/terminated/reason"));
        if !waiting.is_empty() || !terminated.is_empty() {
            if waiting.is_empty() { terminated } else { waiting }.clone_into(&mut container_reason);
        } else if has(container, "/state/terminated") {
            container_reason = match number(container, "/state/terminated/signal") {
                0 => format!("ExitCode:{}", number(container, "/state/terminated/exitCode")),
                signal => format!("Signal:{signal}"),
            };
        }
    }
    let is_final = ["Succeeded", "Failed"].contains(&text(pod, "/status/phase"));
    match (is_being_deleted(pod) && !is_final, container_reason.is_empty()) {
        (true, _) => "Terminating".to_owned(),
        (false, true) => status.to_owned(),
        (false, false) => container_reason,
    }
}

fn last_seen(event: &Value) -> &str {
    ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"]
        .into_iter()
        .map(|pointer| text(event, pointer))
        .find(|time| !time.is_empty())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_formatted_as_in_kubectl() {
        for (seconds, expected) in [
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_860, "3h1m"),
            (28_800, "8h"),
            (172_800, "2d"),
            (176_400, "2d1h"),
            (691_200, "8d"),
        ] {
            assert_eq!(human_duration(seconds), expected);
        }
    }

    #[test]
    fn pod_status_shows_the_most_specific_reason() {
        for (pod, expected) in [
            (json!({"status": {"phase": "Pending"}}), "Pending"),
            (json!({"status": {"phase": "Failed", "reason": "Evicted"}}), "Evicted"),
            (
                json!({"status": {"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ErrImageNeverPull"}}}]}}),
                "ErrImageNeverPull",
            ),
            (
                json!({"status": {"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]}}),
                "ExitCode:3",
            ),
            (json!({"metadata": {"deletionTimestamp": "t"}, "status": {"phase": "Running"}}), "Terminating"),
        ] {
            assert_eq!(pod_status(&pod), expected);
        }
    }

    #[test]
    fn job_status_shows_the_final_condition() {
        let job = |condition: &str| {
            json!({"spec": {"completions": 2}, "status": {"succeeded": 1,
            "conditions": [{"type": condition, "status": "True"}]}})
        };
        for condition in ["Complete", "Failed", "Suspended", "FailureTarget", "SuccessCriteriaMet"] {
            assert_eq!(job_status(&job(condition)), condition);
        }
        assert_eq!((job_status(&json!({})), completions(&job("Complete")).as_str()), ("Running", "1/2"));
    }
}
