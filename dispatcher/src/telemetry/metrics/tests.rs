use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::{Value, json};

use super::*;

/// Metrics without templates, and with one component that has failed once.
fn metrics() -> Metrics {
    let health = Health::default();
    health.component("nats").not_ready("not connected");
    let leader_status = || LeaderStatus { leader: false, synced: false };
    Metrics::new(health, leader_status, ConcurrencyLimiter::default())
}

/// Metrics of two shipped templates, one of them with a concurrency limit.
fn serving() -> Metrics {
    let metrics = metrics();
    let template = |name: &str| {
        let path =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../deploy/templates/{name}.yaml"));
        let mut template = Template::parse(&std::fs::read_to_string(&path).unwrap()).unwrap();
        template.max_active = (name == "memory").then(|| 3.try_into().unwrap());
        template
    };
    metrics.set_templates(&["simple", "memory"].map(template));
    metrics.nats_opened("dispatcher intake");
    metrics
}

fn template(name: &str) -> TemplateName {
    TemplateName::try_from(name).unwrap()
}

fn event(template: &str, mut more: Value) -> StatusEvent {
    let event = json!({"type": "OUTCOME", "template": template, "name": "a", "namespace": "jobs", "uid": "u", "requestId": "r",
        "requestSeq": 1, "resourceVersion": "1", "time": "2026-01-01T00:00:00Z", "status": {}});
    let fields = event.as_object().unwrap().clone();
    more.as_object_mut().unwrap().extend(fields.into_iter().filter(|(key, _)| key != "type"));
    if more.get("type").is_none() {
        more["type"] = "OUTCOME".into();
    }
    serde_json::from_value(more).unwrap()
}

/// The value of a series, which is named as in the text.
fn value(metrics: &Metrics, series: &str) -> Option<f64> {
    let text = metrics.text();
    let mut values =
        text.lines().filter_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
    values.next()
}

fn sample() -> QueueSample {
    QueueSample { pending: 3, ack_pending: 2, redelivered: 1, oldest_age_seconds: 7.5 }
}

/// The type and the label names of every metric in the text.
fn described(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut all: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines() {
        if let Some((of, type_)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            name = match type_ {
                "counter" => format!("{of}_total"),
                "info" => format!("{of}_info"),
                _ => of.to_owned(),
            };
            all.insert(name.clone(), (type_.to_owned(), BTreeSet::new()));
        } else if let Some((_, labels)) = line.split_once('{') {
            let labels = labels.rsplit_once('}').unwrap().0.split(',');
            let labels = labels.map(|label| label.split_once('=').unwrap().0.to_owned());
            all.get_mut(&name).unwrap().1.extend(labels.filter(|label| label != "le"));
        }
    }
    all
}

#[test]
fn every_series_of_a_template_exists_before_its_first_event() {
    let metrics = serving();
    metrics.nats_opened("dispatcher");
    for series in [
        "dispatcher_requests_total{template=\"simple\",result=\"created\"}",
        "dispatcher_rejections_total{template=\"memory\",reason=\"NameTaken\"}",
        "dispatcher_outcomes_total{template=\"simple\",result=\"Deleted\"}",
        "dispatcher_events_total{template=\"simple\",event=\"ADDED\"}",
        "dispatcher_event_lag_seconds_count{template=\"simple\",event=\"OUTCOME\"}",
        "dispatcher_event_publish_duration_seconds_count{result=\"fenced\"}",
        "dispatcher_job_create_duration_seconds_count{result=\"created\"}",
        "dispatcher_watch_errors_total{resource=\"jobs\",reason=\"expired\"}",
        "dispatcher_nats_disconnects_total{connection=\"dispatcher\"}",
        "dispatcher_leader",
    ] {
        assert_eq!(value(&metrics, series), Some(0.0), "{series}:\n{}", metrics.text());
    }
    assert_eq!(value(&metrics, "dispatcher_active_jobs_limit{template=\"memory\"}"), Some(3.0));
    assert_eq!(value(&metrics, "dispatcher_component_ready{component=\"nats\"}"), Some(0.0));
    assert_eq!(value(&metrics, "dispatcher_component_failures_total{component=\"nats\"}"), Some(1.0));
}

/// A Job can carry any template label: all unserved templates share one label value.
#[test]
fn unserved_templates_create_no_series() {
    let metrics = serving();
    let before = metrics.text().lines().count();
    for n in 0..1000 {
        let outcome = json!({"result": "Failed", "succeeded": 0, "failed": 1});
        metrics.event(&event(&format!("template-{n}"), json!({"outcome": outcome})));
        metrics.rejected(&template(&format!("template-{n}")), Reason::Refused);
    }
    assert_eq!(
        value(&metrics, "dispatcher_outcomes_total{template=\"other\",result=\"Failed\"}"),
        Some(1000.0)
    );
    assert!(metrics.text().lines().count() < before + 10, "{}", metrics.text());
}

#[test]
fn updates_appear_in_the_text() {
    let metrics = serving();
    let stored = OffsetDateTime::now_utc() - Duration::from_secs(20);
    for disposition in [
        Disposition::Created,
        Disposition::Exists,
        Disposition::Rejected,
        Disposition::Retrying(String::new()),
        Disposition::Blocked(String::new()),
    ] {
        metrics.handled(&template("simple"), &disposition, stored);
    }
    metrics.create(None, Instant::now());
    metrics.create(Some(CreateFailure::Refused), Instant::now());
    metrics.published(Published::Fenced, Instant::now());
    metrics.log_read_failed();
    metrics.lists(Watched::Pods);
    metrics.watch_ended(Watched::Pods, true);
    metrics.set_queue(&template("simple"), Some(sample()));
    metrics.set_queue(&template("memory"), None);
    for (series, expected) in [
        ("dispatcher_requests_total{template=\"simple\",result=\"retrying\"}", 1.0),
        // Only created Jobs count, or a redelivered request would count twice.
        ("dispatcher_request_wait_seconds_count{template=\"simple\"}", 1.0),
        ("dispatcher_request_wait_seconds_bucket{le=\"10.0\",template=\"simple\"}", 0.0),
        ("dispatcher_request_wait_seconds_bucket{le=\"30.0\",template=\"simple\"}", 1.0),
        ("dispatcher_job_create_duration_seconds_count{result=\"refused\"}", 1.0),
        ("dispatcher_event_publish_duration_seconds_count{result=\"fenced\"}", 1.0),
        ("dispatcher_log_read_failures_total", 1.0),
        ("dispatcher_watch_lists_total{resource=\"pods\"}", 1.0),
        ("dispatcher_watch_errors_total{resource=\"pods\",reason=\"expired\"}", 1.0),
        ("dispatcher_queue_requests{template=\"simple\",state=\"pending\"}", 3.0),
        ("dispatcher_queue_requests{template=\"simple\",state=\"ack_pending\"}", 2.0),
        ("dispatcher_queue_redelivered_requests{template=\"simple\"}", 1.0),
        ("dispatcher_queue_oldest_age_seconds{template=\"simple\"}", 7.5),
        ("dispatcher_consumer_up{template=\"simple\"}", 1.0),
        ("dispatcher_consumer_up{template=\"memory\"}", 0.0),
    ] {
        assert_eq!(value(&metrics, series), Some(expected), "{series}:\n{}", metrics.text());
    }
    let unknown = "dispatcher_queue_oldest_age_seconds{template=\"memory\"}";
    assert_eq!(value(&metrics, unknown), None, "an old value would pass for a current one");
}

#[test]
fn event_lag_needs_a_kubernetes_timestamp() {
    let now: Timestamp = "2026-01-01T00:00:05.5Z".parse().unwrap();
    let lag = |more| event_lag(&event("simple", more), now).map(|lag| lag.as_millis());
    let outcome = |time: Value| json!({"outcome": {"result": "Complete", "succeeded": 1, "failed": 0, "finishTime": time}});
    assert_eq!(lag(outcome("2026-01-01T00:00:03Z".into())), Some(2500));
    assert_eq!(lag(outcome("2026-01-01T00:00:09Z".into())), Some(0), "the clock of Kubernetes is ahead");
    assert_eq!(lag(outcome(Value::Null)), None, "a deleted Job");
    assert_eq!(lag(outcome("soon".into())), None);
    let attempt = json!({"type": "ATTEMPT", "attempt": {"pod": "p", "finishedAt": "2026-01-01T00:00:04Z"}});
    assert_eq!(lag(attempt), Some(1500));
    assert_eq!(lag(json!({"type": "MODIFIED"})), None);
}

/// Prometheus requires both.
#[test]
fn text_describes_every_metric_and_ends_with_eof() {
    let text = serving().text();
    assert!(text.ends_with("# EOF\n"));
    let described = described(&text);
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let known = described.contains_key(name) || base.is_some_and(|base| described.contains_key(base));
        assert!(known && (name.starts_with("dispatcher_") || name == "process_start_time_seconds"), "{line}");
    }
}

#[test]
fn replaced_client_of_nats_is_counted_from_zero() {
    let metrics = serving();
    let series = "dispatcher_nats_clients_replaced_total{connection=\"dispatcher intake\"}";
    assert_eq!(value(&metrics, series), Some(0.0));
    metrics.nats_client_replaced("dispatcher intake");
    assert_eq!(value(&metrics, series), Some(1.0));
    let disconnects = "dispatcher_nats_disconnects_total{connection=\"dispatcher intake\"}";
    assert_eq!(value(&metrics, disconnects), Some(1.0));
}

/// docs/metrics.md has one row for each metric, with its type and labels, and no other rows.
#[test]
fn documentation_describes_every_metric() {
    let metrics = serving();
    metrics.set_queue(&template("simple"), Some(sample()));
    let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md")).unwrap();
    let words = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>();
    let mut documented = BTreeMap::new();
    for line in
        docs.lines().filter(|line| line.starts_with("| `dispatcher_") || line.starts_with("| `process_"))
    {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        documented.insert(cells[1].trim_matches('`').to_owned(), (cells[2].to_owned(), words(cells[3])));
    }
    let mut exposed = described(&metrics.text());
    // Absent until the watch has listed the Jobs.
    exposed.insert("dispatcher_active_jobs".to_owned(), ("gauge".to_owned(), ["template".to_owned()].into()));
    assert_eq!(documented, exposed);
}
