//! Runs Prometheus against the given targets, and queries it.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokio::process::Command;

use crate::dispatcher::get;
use crate::helper::{Helper, Program};
use crate::wait::{TIMEOUT, try_until};
use crate::{paths, ports};

/// A running Prometheus; it ends when this is dropped.
#[derive(Debug)]
pub struct Prometheus {
    address: String,
    _helper: Helper,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

/// One series: its labels and its samples.
#[derive(Clone, Debug)]
pub struct Series {
    /// The labels.
    pub labels: Value,
    /// The samples, ordered by time in seconds since 1970; without those that are not numbers.
    pub points: Vec<(f64, f64)>,
}

impl Prometheus {
    /// Starts Prometheus. It scrapes the targets (`host:port`) as job `dispatcher` and evaluates
    /// the rules, both every second.
    ///
    /// # Errors
    /// If this machine has no Prometheus, or it does not start.
    pub async fn start(targets: &[&str], rules: &Path) -> Result<Self, String> {
        let path = paths::prometheus("prometheus")?;
        let folder = paths::temp_dir("prometheus")?;
        let address = format!("127.0.0.1:{}", ports::free());
        let file = folder.path().join("prometheus.yml");
        // JSON is valid YAML.
        let config = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [rules],
            "scrape_configs": [{"job_name": "dispatcher", "static_configs": [{"targets": targets}]}],
        });
        std::fs::write(&file, config.to_string()).map_err(|error| format!("{}: {error}", file.display()))?;
        let log = folder.path().join("prometheus.log");
        let args = [
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", folder.path().join("data").display()),
            format!("--web.listen-address={address}"),
            "--log.level=warn".to_owned(),
        ];
        let program = Program {
            name: "prometheus".to_owned(),
            path,
            args: args.to_vec(),
            env: vec![],
            log: log.clone(),
            folder: Some(folder.path().to_owned()),
        };
        let program = serde_json::to_string(&program).expect("the program serializes");
        let (helper, _) = Helper::start(&["run", &program], &[], TIMEOUT).await?;
        let this = Self { address, _helper: helper, log, _folder: folder };
        let ready = try_until("Prometheus to be ready", TIMEOUT, || this.get("/-/ready")).await;
        ready.map_err(|error| format!("{error}\n{}", paths::tail(&this.log, 30)))?;
        Ok(this)
    }

    /// Evaluates an expression now.
    pub async fn query(&self, expression: &str) -> Result<Vec<Series>, String> {
        self.series(&format!("/api/v1/query?query={}", escaped(expression))).await
    }

    /// Evaluates an expression from `start` to `end` (seconds since 1970), every `step` seconds.
    pub async fn range(
        &self,
        expression: &str,
        start: f64,
        end: f64,
        step: u32,
    ) -> Result<Vec<Series>, String> {
        let expression = escaped(expression);
        self.series(&format!("/api/v1/query_range?query={expression}&start={start}&end={end}&step={step}"))
            .await
    }

    /// The loaded rules, with their health.
    pub async fn rules(&self) -> Result<Vec<Value>, String> {
        let data = self.data("/api/v1/rules").await?;
        let groups = data["groups"].as_array().cloned().unwrap_or_default();
        Ok(groups.iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect())
    }

    async fn series(&self, path: &str) -> Result<Vec<Series>, String> {
        let data = self.data(path).await?;
        let result = data["result"].as_array().cloned().unwrap_or_default();
        let points = |series: &Value| {
            let many = series["values"].as_array().cloned();
            let points = many.unwrap_or_else(|| vec![series["value"].clone()]);
            points.iter().filter_map(point).collect()
        };
        Ok(result.iter().map(|one| Series { labels: one["metric"].clone(), points: points(one) }).collect())
    }

    async fn data(&self, path: &str) -> Result<Value, String> {
        let mut answer: Value = serde_json::from_str(&self.get(path).await?).map_err(|e| e.to_string())?;
        if answer["status"] == "success" { Ok(answer["data"].take()) } else { Err(answer.to_string()) }
    }

    async fn get(&self, path: &str) -> Result<String, String> {
        let (status, body) = get(&self.address, path).await.map_err(|error| error.to_string())?;
        if status == 200 { Ok(body) } else { Err(format!("{status}: {body}")) }
    }
}

fn point(point: &Value) -> Option<(f64, f64)> {
    let value: f64 = point[1].as_str()?.parse().ok()?;
    value.is_finite().then_some((point[0].as_f64()?, value))
}

/// Percent-encodes a value for a URL's query.
fn escaped(text: &str) -> String {
    let escaped = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(escaped).collect()
}

/// Runs `promtool` in a folder and returns its output, as an error if it fails.
pub async fn promtool(program: &Path, folder: &Path, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).current_dir(folder).output().await;
    let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    if output.status.success() { Ok(said) } else { Err(said) }
}
