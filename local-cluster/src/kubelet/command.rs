//! Translates a container into a command to run, or into the reason why it cannot start. Pure.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, Pod};
use kube::ResourceExt;

use super::{expand::expand, quantity};

/// The default `PATH` of common container runtimes.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The IP address of every pod and of the node.
pub(super) const ADDRESS: &str = "127.0.0.1";

/// The program that stands for an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The executable. A name without a slash is looked up on the container's `PATH`.
    pub path: PathBuf,
    /// The arguments of a container that sets neither `command` nor `args`.
    pub arguments: Vec<String>,
    /// Variables that override the container's environment, for example to shorten its run time.
    pub environment: BTreeMap<String, String>,
}

impl Program {
    /// A program without arguments and overrides.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), arguments: Vec::new(), environment: BTreeMap::new() }
    }

    /// Overrides an environment variable.
    #[must_use]
    pub fn with_variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// Sets the default arguments.
    #[must_use]
    pub fn with_arguments(self, arguments: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { arguments: arguments.into_iter().map(Into::into).collect(), ..self }
    }
}

/// The command of a container.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ContainerCommand {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
    pub(super) environment: BTreeMap<String, String>,
    /// The working directory; `None` for a temporary folder.
    pub(super) folder: Option<PathBuf>,
    /// The limit of the total resident memory of its processes, in bytes.
    pub(super) memory_limit: Option<u64>,
}

/// Why a container cannot start: the content of its `waiting` state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StartFailure {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl StartFailure {
    fn config_error(message: String) -> Self {
        Self { reason: "CreateContainerConfigError", message }
    }
}

/// Builds the command of `container`.
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
    let args = expanded(container.args.as_deref().unwrap_or_default());
    // As in Kubernetes: `command` replaces the image's program and arguments, `args` only the
    // arguments.
    let (program, mut arguments) = match command.split_first() {
        Some((first, rest)) => (PathBuf::from(first), rest.to_vec()),
        None if args.is_empty() => (program.path.clone(), program.arguments.clone()),
        None => (program.path.clone(), Vec::new()),
    };
    arguments.extend(args);
    let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
    let memory_limit = match limits.and_then(|limits| limits.get("memory")) {
        None => None,
        Some(text) => Some(quantity::parse(&text.0).ok_or_else(|| {
            StartFailure::config_error(format!("resources.limits.memory: {:?} is not a quantity", text.0))
        })?),
    };
    let folder = container.working_dir.as_deref().map(|text| Path::new(text).to_owned());
    Ok(ContainerCommand { program, arguments, environment, folder, memory_limit })
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
                "image \"{image}\" is not in the image map of the local cluster, which pulls no images"
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
        return Err(StartFailure::config_error(
            "envFrom: the local cluster supports no ConfigMaps or Secrets".to_owned(),
        ));
    }
    let hostname = pod.spec.as_ref().and_then(|spec| spec.hostname.clone()).unwrap_or_else(|| pod.name_any());
    let mut variables =
        BTreeMap::from([("PATH".to_owned(), PATH.to_owned()), ("HOSTNAME".to_owned(), hostname)]);
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            // As in Kubernetes, a value may refer to earlier variables only.
            None => Some(expand(variable.value.as_deref().unwrap_or_default(), &variables)),
            Some(source) => resolve_source(pod, variable, source, node)?,
        };
        if let Some(value) = value {
            variables.insert(variable.name.clone(), value);
        }
    }
    Ok(variables)
}

/// The value of a `valueFrom`; `None` if it is optional and absent.
fn resolve_source(
    pod: &Pod,
    variable: &EnvVar,
    source: &EnvVarSource,
    node: &str,
) -> Result<Option<String>, StartFailure> {
    if let Some(path) = source.field_ref.as_ref().map(|field| field.field_path.as_str()) {
        return match field(pod, path, node) {
            Some(value) => Ok(Some(value)),
            None => Err(StartFailure::config_error(format!(
                "env {}: unsupported fieldPath {path:?}",
                variable.name
            ))),
        };
    }
    let config_map = source.config_map_key_ref.as_ref().and_then(|source| source.optional);
    let secret = source.secret_key_ref.as_ref().and_then(|source| source.optional);
    match config_map.or(secret) {
        Some(true) => Ok(None),
        _ => Err(StartFailure::config_error(format!(
            "env {}: the local cluster supports no ConfigMaps, Secrets or resource fields",
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
        "status.hostIP" | "status.podIP" => Some(ADDRESS.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
