//! `deploy/observability/`: tests the alerts with promtool, and the dashboard with a real
//! Prometheus that scrapes running dispatchers.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use dispatcher_tests::prometheus::{Series, promtool};
use dispatcher_tests::test_env::TestEnv;
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{Dispatcher, Prometheus, or_skip, paths, until};
use serde_json::{Value, json};
use tokio::time::{Instant, interval};

use crate::dashboard_svg::{self, Annotations, Panel};

/// Environment variable with the path of the picture (`make dashboard-picture`). With it, the load
/// lasts two minutes.
const PICTURE: &str = "DASHBOARD_PICTURE";
/// Metrics whose queries have no result while nothing fails.
const EMPTY_WITHOUT_ERRORS: [&str; 1] = ["dispatcher_watch_errors_total"];

fn folder() -> PathBuf {
    paths::workspace().join("deploy/observability")
}

fn yaml(file: &str) -> Value {
    serde_saphyr::from_str(&std::fs::read_to_string(folder().join(file)).unwrap()).unwrap()
}

fn dashboard() -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder().join("dashboard.json")).unwrap()).unwrap()
}

fn array(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

fn alerts() -> BTreeSet<String> {
    let rules = yaml("rules.yaml");
    let rules = array(&rules["groups"]).iter().flat_map(|group| array(&group["rules"]).clone());
    rules.map(|rule| rule["alert"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn each_alert_has_a_promtool_case_that_fires_and_one_that_does_not() {
    let program = or_skip!(paths::prometheus("promtool"));
    for args in [["check", "rules", "rules.yaml"], ["test", "rules", "rules.test.yaml"]] {
        promtool(&program, &folder(), &args)
            .await
            .unwrap_or_else(|output| panic!("promtool {args:?}: {output}"));
    }
    let tests = yaml("rules.test.yaml");
    let cases = array(&tests["tests"]).iter().flat_map(|test| array(&test["alert_rule_test"]));
    let (fire, silent): (Vec<_>, Vec<_>) = cases.partition(|case| !array(&case["exp_alerts"]).is_empty());
    let names = |cases: Vec<&Value>| -> BTreeSet<String> {
        cases.iter().map(|case| case["alertname"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((names(fire), names(silent)), (alerts(), alerts()));
}

/// The runbook of an alert is `<document>#<section>`, where the section has the name of the alert.
#[test]
fn each_alert_has_a_runbook_section() {
    let rules = yaml("rules.yaml");
    let mut documents: BTreeSet<String> = BTreeSet::new();
    for rule in array(&rules["groups"]).iter().flat_map(|group| array(&group["rules"])) {
        let runbook = rule["annotations"]["runbook"].as_str().unwrap();
        let (document, anchor) = runbook.split_once('#').unwrap();
        assert_eq!(anchor, rule["alert"].as_str().unwrap().to_lowercase(), "{document}");
        documents.insert(document.to_owned());
    }
    let read = |document: &String| std::fs::read_to_string(paths::workspace().join(document)).unwrap();
    let sections: BTreeSet<String> = documents
        .iter()
        .flat_map(|document| read(document).lines().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|line| line.strip_prefix("### Dispatcher").map(|name| format!("Dispatcher{name}")))
        .collect();
    assert_eq!(sections, alerts());
}

#[test]
fn rules_of_the_prometheus_operator_equal_the_rules_file() {
    let (rules, resource) = (yaml("rules.yaml"), yaml("operator/prometheusrule.yaml"));
    assert_eq!(resource["spec"], rules, "operator/prometheusrule.yaml is stale: run `make manifests`");
}

/// Each panel also queries the selected data source and job.
#[test]
fn dashboard_panels_have_unique_ids_and_do_not_overlap() {
    let dashboard = dashboard();
    let (mut ids, mut occupied) = (BTreeSet::new(), BTreeSet::new());
    for panel in array(&dashboard["panels"]) {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let at = |field: &str| panel["gridPos"][field].as_u64().unwrap();
        for (x, y) in (0..at("w")).flat_map(|x| (0..at("h")).map(move |y| (x, y))) {
            assert!(at("x") + x < 24 && occupied.insert((at("x") + x, at("y") + y)), "{panel}");
        }
        for target in panel["targets"].as_array().into_iter().flatten() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{panel}");
            assert!(target["expr"].as_str().unwrap().contains(r#"job=~"$job""#), "{target}");
        }
    }
}

/// Two replicas under load, scraped by Prometheus.
struct Setup {
    env: TestEnv,
    replicas: [Dispatcher; 2],
    prometheus: Prometheus,
    _templates: tempfile::TempDir,
}

impl Setup {
    async fn start() -> Result<Self, String> {
        paths::prometheus("prometheus")?;
        let env = TestEnv::start().await?;
        let templates = templates();
        let start = || env.dispatcher().templates(templates.path()).start();
        let replicas = [start().await, start().await];
        let targets = replicas.each_ref().map(|replica| replica.admin_url.trim_start_matches("http://"));
        let prometheus = Prometheus::start(&targets, &folder().join("rules.yaml")).await?;
        Ok(Self { env, replicas, prometheus, _templates: templates })
    }

    /// Publishes requests. Every tenth is invalid, and every ninth creates a Job that fails.
    async fn load(&self, numbers: std::ops::Range<usize>) {
        for n in numbers {
            let request = match n % 10 {
                3 => json!({"foo": n}),
                7 => json!({"foo": format!("Not-{n}")}),
                _ if n % 9 == 0 => json!({"foo": format!("{n}"), "fail": true}),
                _ => json!({"foo": format!("{n}")}),
            };
            self.env.request(request.to_string()).await;
        }
    }

    async fn leader(&self) -> &Dispatcher {
        until("a leader", TIMEOUT, || async {
            for replica in &self.replicas {
                if replica.get("/leader").await.is_ok_and(|(_, body)| body.contains("\"leader\":true")) {
                    return Ok(replica);
                }
            }
            Err("no replica leads")
        })
        .await
    }

    async fn until_value(&self, expression: &str, is_expected: impl Fn(f64) -> bool) {
        until(&format!("an expected value of {expression}"), TIMEOUT, || async {
            let found = self.prometheus.query(expression).await?;
            let matches = found.iter().flat_map(|series| &series.points).any(|point| is_expected(point.1));
            if matches { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    }
}

/// The shipped template with Jobs of 3 s and a concurrency limit of 12.
fn templates() -> tempfile::TempDir {
    let folder = paths::temp_dir("templates").unwrap();
    let simple = std::fs::read_to_string(paths::workspace().join("deploy/templates/simple.yaml")).unwrap();
    assert!(simple.contains("\"15\"") && simple.contains("maxActive: 200"));
    let simple = simple.replace("\"15\"", "\"3\"").replacen("maxActive: 200", "maxActive: 12", 1);
    std::fs::write(folder.path().join("simple.yaml"), simple).unwrap();
    folder
}

fn now() -> f64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64()
}

/// Replaces the variables of the dashboard in an expression, as Grafana does.
fn interpolate(expression: &str) -> String {
    expression.replace("$__rate_interval", "10s").replace("$job", ".*")
}

/// Publishes load, kills the leader, and restarts NATS. `long` spreads this over two minutes.
async fn run_load(setup: &Setup, long: bool) -> Annotations {
    let start = Instant::now();
    let mut annotations = Annotations::new();
    let seconds = |start: Instant| start.elapsed().as_secs_f64();
    // Paces the load.
    let mut pace = interval(Duration::from_millis(if long { 1000 } else { 50 }));
    let last = if long { 115 } else { 20 };
    let (kill, restart, outage) = (last / 3, last / 2, last * 2 / 3);
    let mut killed = None;
    let mut sent = 0;
    for second in 0..last {
        pace.tick().await;
        // Alternates between more and less than the concurrency limit, so that the queue grows and
        // shrinks.
        let count = if second % 40 < 12 { 6 } else { 2 };
        setup.load(sent..sent + count).await;
        sent += count;
        if second == kill {
            let leader = setup.leader().await;
            leader.kill().await;
            annotations.push((seconds(start), "the leader is killed"));
            killed = Some(leader);
        }
        if let Some(leader) = killed.filter(|_| second == restart) {
            leader.restart().await;
            annotations.push((seconds(start), "the former leader is restarted"));
        }
        if second == outage {
            // A rate needs a sample before the failures.
            let connected = "sum(dispatcher_component_ready{component=\"nats\"})";
            setup.until_value(connected, |connected| connected == 2.0).await;
            setup.env.nats.kill().await;
            annotations.push((seconds(start), "NATS is killed and restarted"));
            setup
                .until_value("sum(dispatcher_nats_disconnects_total)", |disconnects| disconnects >= 2.0)
                .await;
            // A short disconnect is no failure of a component.
            setup.until_value(connected, |connected| connected == 0.0).await;
            setup.env.nats.restart().await;
        }
    }
    annotations
}

#[tokio::test(flavor = "multi_thread")]
async fn dashboard_queries_return_data_of_running_dispatchers() {
    let setup = or_skip!(Setup::start().await);
    let picture = std::env::var_os(PICTURE);
    let start = now();
    let annotations = run_load(&setup, picture.is_some()).await;
    // A target is up only if its metrics are valid OpenMetrics.
    setup.until_value("sum(up{job=\"dispatcher\"})", |up| up == 2.0).await;
    setup.until_value("sum(dispatcher_leader)", |leaders| leaders == 1.0).await;
    let dashboard = dashboard();
    let mut panels = vec![];
    for panel in array(&dashboard["panels"]) {
        let mut series = vec![];
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = interpolate(target["expr"].as_str().unwrap());
            let found = query(&setup.prometheus, &expression, start).await;
            let format = target["legendFormat"].as_str().unwrap();
            series.extend(found.into_iter().map(|series| (legend(format, &series.labels), series)));
        }
        panels.push(Panel { panel: panel.clone(), series });
    }
    until("each rule to be evaluated", TIMEOUT, || async {
        let rules = setup.prometheus.rules().await?;
        let failing: Vec<_> = rules.into_iter().filter(|rule| rule["health"] != "ok").collect();
        if failing.is_empty() { Ok(()) } else { Err(format!("{failing:?}")) }
    })
    .await;
    let svg = dashboard_svg::draw(&panels, &annotations, (start, now()));
    for Panel { panel, .. } in &panels {
        let title = panel["title"].as_str().unwrap();
        assert!(svg.contains(title), "{title} is missing in the picture");
    }
    if let Some(path) = picture {
        let path = paths::workspace().join(Path::new(&path));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, svg).unwrap();
        println!("{}", path.display());
    }
}

/// The result of a query over the whole run. Waits for data, except in [`EMPTY_WITHOUT_ERRORS`].
async fn query(prometheus: &Prometheus, expression: &str, start: f64) -> Vec<Series> {
    let may_be_empty = EMPTY_WITHOUT_ERRORS.iter().any(|part| expression.contains(part));
    until(&format!("a result of {expression}"), TIMEOUT, || async {
        let found = prometheus.range(expression, start, now(), 1).await?;
        let has_values = found.iter().any(|series| !series.points.is_empty());
        if has_values || may_be_empty { Ok(found) } else { Err("no value".to_owned()) }
    })
    .await
}

/// The legend of a series. `{{label}}` is replaced by the value of the label.
fn legend(format: &str, labels: &Value) -> String {
    let labels = labels.as_object().into_iter().flatten();
    labels.fold(format.to_owned(), |name, (label, value)| {
        name.replace(&format!("{{{{{label}}}}}"), value.as_str().unwrap_or_default())
    })
}
