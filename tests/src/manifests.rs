//! The objects of `deploy/`: as Helm renders and installs the chart, and as kustomize builds overlays.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

use crate::paths;
use crate::wait::TIMEOUT;

/// Helm with the chart of `deploy/chart`, without the configuration of this machine.
#[derive(Debug)]
pub struct Helm {
    program: PathBuf,
    kubeconfig: PathBuf,
    home: TempDir,
}

impl Helm {
    /// Helm without a cluster.
    ///
    /// # Errors
    /// If this machine has no Helm.
    pub fn offline() -> Result<Self, String> {
        Self::of(Path::new("/dev/null"))
    }

    /// Helm for the cluster of a kubeconfig.
    ///
    /// # Errors
    /// If this machine has no Helm.
    pub fn of(kubeconfig: &Path) -> Result<Self, String> {
        let kubeconfig = kubeconfig.to_owned();
        Ok(Self { program: paths::helm()?, kubeconfig, home: paths::temp_dir("helm")? })
    }

    /// Runs Helm and returns its output.
    ///
    /// # Errors
    /// If it fails, with its stderr.
    pub async fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<String, String> {
        let mut command = Command::new(&self.program);
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(variable, self.home.path());
        }
        output(command.env("KUBECONFIG", &self.kubeconfig).args(args)).await
    }

    /// The objects of the release `dispatcher` in the namespace `dispatcher`, without the test.
    ///
    /// # Errors
    /// If the values are not valid, with Helm's message.
    pub async fn template(&self, args: &[&str]) -> Result<Vec<Value>, String> {
        self.template_as("dispatcher", "dispatcher", args).await
    }

    /// The objects of a release in a namespace, without the test.
    ///
    /// # Errors
    /// If the values are not valid, with Helm's message.
    pub async fn template_as(
        &self,
        name: &str,
        namespace: &str,
        args: &[&str],
    ) -> Result<Vec<Value>, String> {
        let chart = chart().display().to_string();
        let fixed = ["template", name, &chart, "--namespace", namespace, "--skip-tests"];
        objects(&self.run(&[&fixed[..], args].concat()).await?)
    }
}

/// The folder of the chart.
#[must_use]
pub fn chart() -> PathBuf {
    paths::workspace().join("deploy/chart")
}

/// One of the values files in `deploy/chart/examples`.
#[must_use]
pub fn example_values(name: &str) -> String {
    chart().join(format!("examples/{name}.yaml")).display().to_string()
}

/// The objects that kustomize builds from a folder.
///
/// # Errors
/// If this machine has no `kubectl`, or kustomize fails.
pub async fn kustomize(folder: &Path) -> Result<Vec<Value>, String> {
    objects(&output(Command::new(paths::kubernetes()?).args(["kubectl", "kustomize"]).arg(folder)).await?)
}

/// The objects in the order of their names, without differences that have no effect: the hash in the
/// name of a `ConfigMap` of kustomize, and the order of variables and volumes.
#[must_use]
pub fn comparable(objects: Vec<Value>) -> BTreeMap<String, Value> {
    let names: Vec<String> = objects.iter().filter_map(hashed_name).collect();
    let text = Value::Array(objects).to_string();
    let text = names.iter().fold(text, |text, name| text.replace(name, without_hash(name)));
    let objects: Vec<Value> = serde_json::from_str(&text).expect("names have no special characters");
    let objects = objects.into_iter().map(|mut object| {
        sort(&mut object);
        let metadata = &object["metadata"];
        (format!("{} {}/{}", object["kind"], metadata["namespace"], metadata["name"]), object)
    });
    objects.collect()
}

/// The name of a `ConfigMap` whose name ends with kustomize's hash.
fn hashed_name(object: &Value) -> Option<String> {
    let name = object["metadata"]["name"].as_str().filter(|_| object["kind"] == "ConfigMap")?;
    (without_hash(name) != name).then(|| name.to_owned())
}

/// The hash has ten characters of an alphabet that forms no words.
fn without_hash(name: &str) -> &str {
    let is_hash = |text: &str| text.len() == 10 && text.chars().all(|c| "2456789bcdfghkmt".contains(c));
    name.rsplit_once('-').filter(|(_, last)| is_hash(last)).map_or(name, |(name, _)| name)
}

fn sort(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(sort),
        Value::Object(fields) => {
            for (name, field) in fields {
                sort(field);
                if let ("env" | "volumes" | "volumeMounts", Value::Array(items)) = (name.as_str(), field) {
                    items.sort_by_key(|item| item["name"].to_string());
                }
            }
        }
        _ => {}
    }
}

fn objects(text: &str) -> Result<Vec<Value>, String> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| error.to_string())?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

async fn output(command: &mut Command) -> Result<String, String> {
    let name = command.as_std().get_program().display().to_string();
    let output = timeout(TIMEOUT, command.kill_on_drop(true).output()).await;
    let output = output.map_err(|_| format!("{name}: no end after {TIMEOUT:?}"))?;
    let output = output.map_err(|error| format!("{name}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}
