//! `deploy/observability/`: the rules and the dashboard, held to a real Prometheus that scrapes a real run.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use dispatcher_tests::prometheus::{Series, promtool};
use dispatcher_tests::test_env::TestEnv;
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{Dispatcher, Prometheus, or_skip, paths, until};
use serde_json::{Value, json};
use tokio::time::{Instant, interval};

use crate::dashboard_svg::{self, Marks, Panel};

/// Names the file that the picture is drawn into (`make dashboard-picture`); then the run lasts two minutes.
const PICTURE: &str = "DASHBOARD_PICTURE";
/// Queries that answer with nothing while nothing is wrong, by what they hold.
const EMPTY_WHEN_ALL_IS_WELL: [&str; 1] = ["dispatcher_watch_errors_total"];

fn folder() -> PathBuf {
    paths::workspace().join("deploy/observability")
}

fn yaml(file: &str) -> Value {
    serde_saphyr::from_str(&std::fs::read_to_string(folder().join(file)).unwrap()).unwrap()
}

fn dashboard() -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder().join("dashboard.json")).unwrap()).unwrap()
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

fn alerts() -> BTreeSet<String> {
    let rules = yaml("rules.yaml");
    let rules = list(&rules["groups"]).iter().flat_map(|group| list(&group["rules"]).clone());
    rules.map(|rule| rule["alert"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn each_alert_fires_when_it_is_to_and_only_then() {
    let program = or_skip!(paths::prometheus("promtool"));
    for args in [["check", "rules", "rules.yaml"], ["test", "rules", "rules.test.yaml"]] {
        promtool(&program, &folder(), &args).await.unwrap_or_else(|said| panic!("{args:?}: {said}"));
    }
    let tests = yaml("rules.test.yaml");
    let cases = list(&tests["tests"]).iter().flat_map(|test| list(&test["alert_rule_test"]));
    let (fire, silent): (Vec<_>, Vec<_>) = cases.partition(|case| !list(&case["exp_alerts"]).is_empty());
    let names = |cases: Vec<&Value>| -> BTreeSet<String> {
        cases.iter().map(|case| case["alertname"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((names(fire), names(silent)), (alerts(), alerts()));
}

#[test]
fn each_alert_has_a_section_that_says_what_to_do() {
    let docs = std::fs::read_to_string(paths::workspace().join("docs/operations.md")).unwrap();
    let sections: BTreeSet<String> = docs
        .lines()
        .filter_map(|line| line.strip_prefix("### Dispatcher"))
        .map(|name| format!("Dispatcher{name}"))
        .collect();
    assert_eq!(sections, alerts());
    let rules = yaml("rules.yaml");
    for rule in list(&rules["groups"]).iter().flat_map(|group| list(&group["rules"])) {
        let section = rule["alert"].as_str().unwrap().to_lowercase();
        assert_eq!(rule["annotations"]["runbook"], format!("docs/operations.md#{section}"));
    }
}

#[test]
fn the_rules_are_the_same_for_the_prometheus_operator() {
    let (rules, resource) = (yaml("rules.yaml"), yaml("operator/prometheusrule.yaml"));
    assert_eq!(resource["spec"], rules, "it is stale: make operator-rules");
}

/// As Grafana needs it: each panel has a place of its own, and each query the chosen data source.
#[test]
fn the_panels_of_the_dashboard_have_each_their_place() {
    let dashboard = dashboard();
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in list(&dashboard["panels"]) {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let at = |field: &str| panel["gridPos"][field].as_u64().unwrap();
        for (x, y) in (0..at("w")).flat_map(|x| (0..at("h")).map(move |y| (x, y))) {
            assert!(at("x") + x < 24 && taken.insert((at("x") + x, at("y") + y)), "{panel}");
        }
        for target in panel["targets"].as_array().into_iter().flatten() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{panel}");
            assert!(target["expr"].as_str().unwrap().contains(r#"job=~"$job""#), "{target}");
        }
    }
}

/// Two replicas under load, with Jobs that run a while, at most twelve of them at once.
struct Watched {
    env: TestEnv,
    replicas: [Dispatcher; 2],
    prometheus: Prometheus,
    _templates: tempfile::TempDir,
}

impl Watched {
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

    /// Requests: each tenth is a bad one, each ninth of a Job that fails.
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

    async fn reporting(&self) -> &Dispatcher {
        until("a replica to report", TIMEOUT, || async {
            for replica in &self.replicas {
                if replica.get("/leader").await.is_ok_and(|(_, body)| body.contains("\"leader\":true")) {
                    return Ok(replica);
                }
            }
            Err("none does")
        })
        .await
    }

    async fn until_value(&self, expression: &str, told: impl Fn(f64) -> bool) {
        until(&format!("{expression} to be as told"), TIMEOUT, || async {
            let found = self.prometheus.query(expression).await?;
            let is = found.iter().flat_map(|series| &series.points).any(|point| told(point.1));
            if is { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    }
}

/// The shipped template, of Jobs that run for 3 s, at most 12 at once.
fn templates() -> tempfile::TempDir {
    let folder = paths::temp_dir("templates").unwrap();
    let simple = std::fs::read_to_string(paths::workspace().join("deploy/templates/simple.yaml")).unwrap();
    assert!(simple.contains("\"15\"") && simple.contains("\n  job:"));
    let simple =
        simple.replace("\"15\"", "\"3\"").replacen("\n  job:", "\n  limits: {maxActive: 12}\n  job:", 1);
    std::fs::write(folder.path().join("simple.yaml"), simple).unwrap();
    folder
}

fn now() -> f64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64()
}

/// An expression of the dashboard as Grafana would ask it.
fn asked(expression: &str) -> String {
    expression.replace("$__rate_interval", "10s").replace("$job", ".*")
}

/// What the run is made of: load, the kill of the replica that reports, a NATS that is away for a moment. In a run for the
/// picture, spread over two minutes.
async fn play(watched: &Watched, long: bool) -> Marks {
    let start = Instant::now();
    let mut marks = Marks::new();
    let seconds = |start: Instant| start.elapsed().as_secs_f64();
    // The pace of the load, not a wait for anything.
    let mut pace = interval(Duration::from_millis(if long { 1000 } else { 50 }));
    let last = if long { 115 } else { 20 };
    let (kill, back, away) = (last / 3, last / 2, last * 2 / 3);
    let mut killed = None;
    let mut sent = 0;
    for second in 0..last {
        pace.tick().await;
        // More than the limit lets through for a while, and then less, so that the queue grows and shrinks.
        let count = if second % 40 < 12 { 6 } else { 2 };
        watched.load(sent..sent + count).await;
        sent += count;
        if second == kill {
            let leader = watched.reporting().await;
            leader.kill().await;
            marks.push((seconds(start), "the replica that reports is killed"));
            killed = Some(leader);
        }
        if let Some(leader) = killed.filter(|_| second == back) {
            leader.restart().await;
            marks.push((seconds(start), "it is started again"));
        }
        if second == away {
            watched.env.nats.kill().await;
            marks.push((seconds(start), "NATS is killed, and started again"));
            watched.until_value("sum(dispatcher_nats_disconnects_total)", |lost| lost >= 2.0).await;
            watched.env.nats.restart().await;
        }
    }
    marks
}

#[tokio::test(flavor = "multi_thread")]
async fn each_query_of_the_dashboard_has_an_answer_of_a_real_run() {
    let watched = or_skip!(Watched::start().await);
    let picture = std::env::var_os(PICTURE);
    let start = now();
    let marks = play(&watched, picture.is_some()).await;
    // It read the text as OpenMetrics, which is strict: else it would be down.
    watched.until_value("sum(up{job=\"dispatcher\"})", |up| up == 2.0).await;
    watched.until_value("sum(dispatcher_leader)", |reports| reports == 1.0).await;
    let dashboard = dashboard();
    let mut panels = vec![];
    for panel in list(&dashboard["panels"]) {
        let mut series = vec![];
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = asked(target["expr"].as_str().unwrap());
            let found = answer(&watched.prometheus, &expression, start).await;
            let legend = target["legendFormat"].as_str().unwrap();
            series.extend(found.into_iter().map(|series| (name(legend, &series.labels), series)));
        }
        panels.push(Panel { panel: panel.clone(), series });
    }
    until("each rule to be evaluated", TIMEOUT, || async {
        let rules = watched.prometheus.rules().await?;
        let bad: Vec<_> = rules.into_iter().filter(|rule| rule["health"] != "ok").collect();
        if bad.is_empty() { Ok(()) } else { Err(format!("{bad:?}")) }
    })
    .await;
    let svg = dashboard_svg::draw(&panels, &marks, (start, now()));
    assert!(svg.contains("Requests by answer"));
    if let Some(path) = picture {
        let path = paths::workspace().join(Path::new(&path));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, svg).unwrap();
        println!("{}", path.display());
    }
}

/// What a query gives over the run; waits until that is something, but where nothing means that all is well.
async fn answer(prometheus: &Prometheus, expression: &str, start: f64) -> Vec<Series> {
    let may_be_empty = EMPTY_WHEN_ALL_IS_WELL.iter().any(|part| expression.contains(part));
    until(&format!("an answer to {expression}"), TIMEOUT, || async {
        let found = prometheus.range(expression, start, now(), 1).await?;
        let has_values = found.iter().any(|series| !series.points.is_empty());
        if has_values || may_be_empty { Ok(found) } else { Err("no value".to_owned()) }
    })
    .await
}

/// The legend of a series: `{{label}}` stands for the label's value.
fn name(legend: &str, labels: &Value) -> String {
    let labels = labels.as_object().into_iter().flatten();
    labels.fold(legend.to_owned(), |name, (label, value)| {
        name.replace(&format!("{{{{{label}}}}}"), value.as_str().unwrap_or_default())
    })
}
