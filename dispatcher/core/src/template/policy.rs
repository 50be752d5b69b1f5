//! What a Job must not contain: the fields that no template may set, and the operator's own limits.
//!
//! Checked when a template is loaded, and again for every rendered Job.

use std::{
    fmt::{self, Write as _},
    num::NonZeroU32,
    str::FromStr,
};

use serde_json::Value;

use crate::{
    contract::names::Quoted,
    template::{
        fields::{Field, Fields},
        object::{edit, entries_mut, set_default},
        problem::Problem,
    },
};

/// The path of the pod spec in a template.
const POD: &str = "job.spec.template.spec";
/// The lists of containers of a pod.
const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];
/// The largest number of allowed values in a message.
const MAX_ALLOWED: usize = 5;

/// The operator's limits for all templates. The default allows every image and `ServiceAccount`, no
/// inline CSI volume, and sets no deadline.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// The allowed images; `None` for any.
    pub images: Option<Vec<ImagePattern>>,
    /// The allowed `ServiceAccounts`; `None` for any.
    pub service_accounts: Option<Vec<String>>,
    /// The CSI drivers of inline volumes. Each driver can have privileges on the node, so the
    /// default is none.
    pub csi_drivers: Vec<String>,
    /// The `activeDeadlineSeconds` of a Job whose template sets none.
    pub active_deadline_seconds: Option<NonZeroU32>,
}

/// An image, or a prefix of images: `registry.example.org/team/*`.
///
/// It is compared with the text in the manifest; a missing registry or tag is not added. A `*` is
/// allowed at the end only, after `/`, `:` or `@`. After `/` it matches any text. After `:` and `@`
/// it matches a tag or digest, so any text without a `/`: `evil:*` must not match the image
/// `evil:5000/x` of another registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePattern(String);

impl FromStr for ImagePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fixed = text.strip_suffix('*').unwrap_or(text);
        if text.is_empty() || fixed.contains(|c: char| c == '*' || c.is_whitespace()) {
            return Err(format!("{text:?} is not an image (no white space, and `*` only at the end)"));
        }
        if fixed != text && !fixed.ends_with(['/', ':', '@']) {
            return Err(format!(
                "{text:?}: put `/`, `:` or `@` before the `*`, so that it matches no other registry or image"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for ImagePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ImagePattern {
    /// Whether the pattern matches the image.
    #[must_use]
    pub fn matches(&self, image: &str) -> bool {
        match self.0.strip_suffix('*') {
            None => self.0 == image,
            Some(prefix) => image
                .strip_prefix(prefix)
                .is_some_and(|rest| !rest.is_empty() && (prefix.ends_with('/') || !rest.contains('/'))),
        }
    }
}

impl Policy {
    /// The values in a Job that are not allowed. Unlike [`refusals`], they can depend on a parameter.
    pub(super) fn problems(&self, job: &Value, fields: &Fields<'_>) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some(allowed) = &self.images {
            for (field, image) in images(job, fields) {
                if !allowed.iter().any(|pattern| pattern.matches(image)) {
                    problems.push(Problem::at(field, not_allowed(image, allowed)));
                }
            }
        }
        if let Some(allowed) = &self.service_accounts {
            for (field, account) in service_accounts(fields) {
                if !allowed.iter().any(|name| name == account) {
                    problems.push(Problem::at(field, not_allowed(account, allowed)));
                }
            }
        }
        for field in fields.iter() {
            if field.is("csi") && field.is_set() {
                let driver = text(field.value.get("driver"));
                if !self.csi_drivers.iter().any(|name| name == driver) {
                    let at = format!("{}.driver", field.path());
                    problems.push(Problem::at(at, not_allowed(driver, &self.csi_drivers)));
                }
            } else if is_system_priority(&field) {
                let message = "a system priority class is not allowed in any template";
                problems.push(Problem::at(field.path(), message));
            } else if field.is("procMount") && field.is_set() && text(Some(field.value)) != "Default" {
                let message = "not allowed in any template, except with the value `Default`";
                problems.push(Problem::at(field.path(), message));
            }
        }
        problems
    }
}

fn not_allowed(found: &str, allowed: &[impl fmt::Display]) -> String {
    let mut message = format!("{} is not allowed by the operator (allowed: ", Quoted::new(found));
    if allowed.is_empty() {
        message.push_str("none");
    }
    for (i, allowed) in allowed.iter().take(MAX_ALLOWED).enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(message, "{}{allowed}", if i > 0 { ", " } else { "" });
    }
    message.push_str(if allowed.len() > MAX_ALLOWED { ", …)" } else { ")" });
    message
}

/// Fields that no template may set to any value: ways out of the container, permissions on the node, a
/// node that the scheduler did not choose, and tokens other than by `automountServiceAccountToken`.
const REFUSED: [&str; 12] = [
    "allowPrivilegeEscalation",
    "flexVolume",
    "gitRepo",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostPath",
    "hostProcess",
    "nodeName",
    "podCertificate",
    "privileged",
    "serviceAccountToken",
];

/// The types of volumes that Kubernetes 1.37 has. Another one could be a way to the node.
const VOLUMES: [&str; 30] = [
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "gitRepo",
    "glusterfs",
    "hostPath",
    "image",
    "iscsi",
    "nfs",
    "persistentVolumeClaim",
    "photonPersistentDisk",
    "portworxVolume",
    "projected",
    "quobyte",
    "rbd",
    "scaleIO",
    "secret",
    "storageos",
    "vsphereVolume",
];

/// The sources of projected volumes that Kubernetes 1.37 has. Another one could be a credential.
const PROJECTIONS: [&str; 6] =
    ["clusterTrustBundle", "configMap", "downwardAPI", "podCertificate", "secret", "serviceAccountToken"];

/// The fields that no template may set.
pub(super) fn refusals(fields: &Fields<'_>) -> Vec<Problem> {
    let refused = fields.iter().filter(|field| field.is_any(&REFUSED) && field.is_set());
    let mut problems: Vec<Problem> =
        refused.map(|field| Problem::at(field.path(), "not allowed in any template")).collect();
    for (list, known) in [("volumes", &VOLUMES[..]), ("sources", &PROJECTIONS[..])] {
        let lists = fields.iter().filter(|field| field.is(list));
        for field in lists.filter(|field| list == "volumes" || field.path().contains(".projected.")) {
            for (i, entry) in field.value.as_array().into_iter().flatten().enumerate() {
                let keys = entry.as_object().into_iter().flatten().map(|(key, _)| key);
                for key in keys.filter(|key| *key != "name" && !known.contains(&key.as_str())) {
                    let at = format!("{}[{i}].{key}", field.path());
                    problems.push(Problem::at(at, "unknown type, not allowed in any template"));
                }
            }
        }
    }
    problems
}

/// Classes above all others. With them, a Job evicts the pods of the cluster itself.
fn is_system_priority(field: &Field<'_>) -> bool {
    field.is("priorityClassName") && text(Some(field.value)).starts_with("system-")
}

/// Sets the defaults for what the template does not set: no `ServiceAccount` token, no privilege
/// escalation, the operator's deadline.
pub(super) fn set_defaults(job: &mut Value, policy: &Policy) {
    if let Some(seconds) = policy.active_deadline_seconds {
        edit(job, &["spec"], |spec| set_default(spec, "activeDeadlineSeconds", seconds.get()));
    }
    edit(job, &["spec", "template", "spec"], |pod| {
        set_default(pod, "automountServiceAccountToken", false);
    });
    for list in ["initContainers", "containers"] {
        for container in entries_mut(job, &format!("/spec/template/spec/{list}")) {
            edit(container, &["securityContext"], |context| {
                set_default(context, "allowPrivilegeEscalation", false);
            });
        }
    }
}

fn text(value: Option<&Value>) -> &str {
    value.and_then(Value::as_str).unwrap_or_default()
}

/// The images of containers and of image volumes, wherever they stand. A container without an image
/// has the image "".
fn images<'a>(job: &Value, fields: &'a Fields<'_>) -> Vec<(String, &'a str)> {
    let mut images: Vec<(String, &str)> = Vec::new();
    for field in fields.iter().filter(|field| field.is("image") && !field.value.is_null()) {
        match field.value.as_str() {
            Some(image) => images.push((field.path(), image)),
            None => images.push((format!("{}.reference", field.path()), text(field.value.get("reference")))),
        }
    }
    for list in CONTAINERS {
        let containers = job.pointer(&format!("/spec/template/spec/{list}")).and_then(Value::as_array);
        for (i, container) in containers.into_iter().flatten().enumerate() {
            if container.get("image").is_none_or(Value::is_null) {
                images.push((format!("{POD}.{list}[{i}].image"), ""));
            }
        }
    }
    images
}

/// The `ServiceAccounts` of a pod, by both names of the field; `default` if neither is set.
fn service_accounts<'a>(fields: &'a Fields<'_>) -> Vec<(String, &'a str)> {
    let named = fields.iter().filter(|field| field.is_any(&["serviceAccountName", "serviceAccount"]));
    let accounts = named.filter(Field::is_set);
    let mut accounts: Vec<_> = accounts.map(|field| (field.path(), text(Some(field.value)))).collect();
    let names = [format!("{POD}.serviceAccountName"), format!("{POD}.serviceAccount")];
    if !accounts.iter().any(|(path, _)| names.contains(path)) {
        accounts.push((format!("{POD}.serviceAccountName"), "default"));
    }
    accounts
}

#[cfg(test)]
mod tests;
