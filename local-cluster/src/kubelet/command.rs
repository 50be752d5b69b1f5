//! A container of a pod as a command to run. Pure: the pod and the image map in, the command or the trouble out.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, Pod};
use kube::ResourceExt;

use super::{Program, expand::expand, quantity};

/// What a container finds on its PATH unless it says otherwise: that of the common container runtimes.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command, ready to run.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ContainerCommand {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
    pub(super) environment: BTreeMap<String, String>,
    /// The folder to run in; a temporary one where none is given.
    pub(super) folder: Option<PathBuf>,
    /// The most resident memory that its processes may have together, in bytes.
    pub(super) memory: Option<u64>,
}

/// Why a container cannot start: what its status shows while it waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StartFailure {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl StartFailure {
    fn config(message: String) -> Self {
        Self { reason: "CreateContainerConfigError", message }
    }
}

/// The command of `container`.
pub(super) fn prepare(
    pod: &Pod,
    container: &Container,
    images: &BTreeMap<String, Program>,
    node: &str,
) -> Result<ContainerCommand, StartFailure> {
    let image = container.image.as_deref().unwrap_or_default();
    let program = images.get(image).ok_or_else(|| image_missing(image, container))?;
    let mut environment = environment(pod, container, node)?;
    environment.extend(program.environment.clone());
    let expanded =
        |texts: &[String]| -> Vec<String> { texts.iter().map(|text| expand(text, &environment)).collect() };
    let command = expanded(container.command.as_deref().unwrap_or_default());
    let given = expanded(container.args.as_deref().unwrap_or_default());
    // As in Kubernetes: a command replaces the image's program and arguments, arguments alone only its arguments.
    let (program, mut arguments) = match command.split_first() {
        Some((first, rest)) => (PathBuf::from(first), rest.to_vec()),
        None if given.is_empty() => (program.path.clone(), program.arguments.clone()),
        None => (program.path.clone(), Vec::new()),
    };
    arguments.extend(given);
    let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
    let memory = match limits.and_then(|limits| limits.get("memory")) {
        None => None,
        Some(text) => Some(quantity::parse(&text.0).ok_or_else(|| {
            StartFailure::config(format!("resources.limits.memory is {:?}, not a quantity", text.0))
        })?),
    };
    let folder = container.working_dir.as_deref().map(|text| Path::new(text).to_owned());
    Ok(ContainerCommand { program, arguments, environment, folder, memory })
}

fn image_missing(image: &str, container: &Container) -> StartFailure {
    match container.image_pull_policy.as_deref() {
        Some("Never") => StartFailure {
            reason: "ErrImageNeverPull",
            message: format!("Container image \"{image}\" is not present with pull policy of Never"),
        },
        _ => StartFailure {
            reason: "ErrImagePull",
            message: format!(
                "image \"{image}\" is not in the local cluster's image map, and nothing is pulled"
            ),
        },
    }
}

fn environment(
    pod: &Pod,
    container: &Container,
    node: &str,
) -> Result<BTreeMap<String, String>, StartFailure> {
    if container.env_from.as_ref().is_some_and(|sources| !sources.is_empty()) {
        return Err(StartFailure::config(
            "envFrom: the local cluster has no ConfigMaps and Secrets".to_owned(),
        ));
    }
    let hostname = pod.spec.as_ref().and_then(|spec| spec.hostname.clone()).unwrap_or_else(|| pod.name_any());
    let mut variables =
        BTreeMap::from([("PATH".to_owned(), PATH.to_owned()), ("HOSTNAME".to_owned(), hostname)]);
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            // In order: a value may refer to the variables before it.
            None => Some(expand(variable.value.as_deref().unwrap_or_default(), &variables)),
            Some(source) => resolve_source(pod, variable, source, node)?,
        };
        if let Some(value) = value {
            variables.insert(variable.name.clone(), value);
        }
    }
    Ok(variables)
}

/// The value that a variable takes from elsewhere; none where it is optional and there is none.
fn resolve_source(
    pod: &Pod,
    variable: &EnvVar,
    source: &EnvVarSource,
    node: &str,
) -> Result<Option<String>, StartFailure> {
    if let Some(path) = source.field_ref.as_ref().map(|field| field.field_path.as_str()) {
        return match field(pod, path, node) {
            Some(value) => Ok(Some(value)),
            None => {
                Err(StartFailure::config(format!("env {}: unsupported fieldPath {path:?}", variable.name)))
            }
        };
    }
    let config_map = source.config_map_key_ref.as_ref().and_then(|source| source.optional);
    let secret = source.secret_key_ref.as_ref().and_then(|source| source.optional);
    match config_map.or(secret) {
        Some(true) => Ok(None),
        _ => Err(StartFailure::config(format!(
            "env {}: the local cluster has no ConfigMaps, Secrets and resource fields",
            variable.name
        ))),
    }
}

fn field(pod: &Pod, path: &str, node: &str) -> Option<String> {
    let keyed = |prefix: &str| path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']");
    if let Some(key) = keyed("metadata.labels") {
        return Some(pod.labels().get(key).cloned().unwrap_or_default());
    }
    if let Some(key) = keyed("metadata.annotations") {
        return Some(pod.annotations().get(key).cloned().unwrap_or_default());
    }
    let account = || pod.spec.as_ref()?.service_account_name.clone();
    match path {
        "metadata.name" => Some(pod.name_any()),
        "metadata.namespace" => pod.namespace(),
        "metadata.uid" => pod.uid(),
        "spec.nodeName" => Some(node.to_owned()),
        "spec.serviceAccountName" => Some(account().unwrap_or_else(|| "default".to_owned())),
        "status.hostIP" | "status.podIP" => Some(super::ADDRESS.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
