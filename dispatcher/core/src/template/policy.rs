//! What a Job must not contain: the fields that no template may set, and the operator's own limits.
//!
//! Checked when a template is loaded, and again for every rendered Job.

use std::{
    fmt::{self, Write as _},
    num::NonZeroU32,
    str::FromStr,
};

use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{PodSpec, SecurityContext},
};

use crate::{contract::names::Quoted, template::problem::Problem};

/// The path of the pod spec in a template.
const POD: &str = "job.spec.template.spec";
/// The largest number of allowed values in a message.
const MAX_ALLOWED: usize = 5;

/// The operator's limits for all templates. The default allows every image and `ServiceAccount`, and
/// sets no deadline.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// The allowed images; `None` for any.
    pub images: Option<Vec<ImagePattern>>,
    /// The allowed `ServiceAccounts`; `None` for any.
    pub service_accounts: Option<Vec<String>>,
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
    /// The fields of a Job that the operator's limits do not allow.
    pub(super) fn problems(&self, job: &Job) -> Vec<Problem> {
        let mut problems = Vec::new();
        let Some(pod) = pod_spec(job) else { return problems };
        if let Some(allowed) = &self.images {
            for container in containers(pod) {
                let image = container.image.unwrap_or_default();
                if !allowed.iter().any(|pattern| pattern.matches(image)) {
                    let field = format!("{}.image", container.field);
                    problems.push(Problem::at(field, not_allowed(image, allowed)));
                }
            }
        }
        if let Some(allowed) = &self.service_accounts {
            for (field, account) in service_accounts(pod) {
                if !allowed.iter().any(|name| name == account) {
                    problems.push(Problem::at(field, not_allowed(account, allowed)));
                }
            }
        }
        problems
    }
}

fn not_allowed(found: &str, allowed: &[impl fmt::Display]) -> String {
    let mut message = format!("{} is not allowed by the operator (allowed: ", Quoted::new(found));
    for (i, allowed) in allowed.iter().take(MAX_ALLOWED).enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(message, "{}{allowed}", if i > 0 { ", " } else { "" });
    }
    message.push_str(if allowed.len() > MAX_ALLOWED { ", …)" } else { ")" });
    message
}

/// The fields that no template may set: ways out of the container, and permissions on the node.
pub(super) fn refusals(job: &Job) -> Vec<Problem> {
    let Some(pod) = pod_spec(job) else { return Vec::new() };
    let mut fields = Vec::new();
    let host = [("hostNetwork", pod.host_network), ("hostPID", pod.host_pid), ("hostIPC", pod.host_ipc)];
    for (name, _) in host.iter().filter(|(_, value)| *value == Some(true)) {
        fields.push(format!("{POD}.{name}"));
    }
    for (i, volume) in pod.volumes.iter().flatten().enumerate() {
        if volume.host_path.is_some() {
            fields.push(format!("{POD}.volumes[{i}].hostPath"));
        }
    }
    let windows = pod.security_context.as_ref().and_then(|context| context.windows_options.as_ref());
    if windows.is_some_and(|options| options.host_process == Some(true)) {
        fields.push(format!("{POD}.securityContext.windowsOptions.hostProcess"));
    }
    for container in containers(pod) {
        let Some(context) = container.security_context else { continue };
        let windows = context.windows_options.as_ref().and_then(|options| options.host_process);
        for (name, value) in [
            ("privileged", context.privileged),
            ("allowPrivilegeEscalation", context.allow_privilege_escalation),
            ("windowsOptions.hostProcess", windows),
        ] {
            if value == Some(true) {
                fields.push(format!("{}.securityContext.{name}", container.field));
            }
        }
    }
    fields.into_iter().map(|field| Problem::at(field, "not allowed in any template")).collect()
}

/// Sets the defaults for what the template does not set: no `ServiceAccount` token, no privilege
/// escalation, the operator's deadline.
pub(super) fn set_defaults(job: &mut Job, policy: &Policy) {
    let Some(spec) = &mut job.spec else { return };
    if let Some(seconds) = policy.active_deadline_seconds {
        spec.active_deadline_seconds.get_or_insert(seconds.get().into());
    }
    if let Some(pod) = &mut spec.template.spec {
        pod.automount_service_account_token.get_or_insert(false);
        for container in pod.containers.iter_mut().chain(pod.init_containers.iter_mut().flatten()) {
            let context = container.security_context.get_or_insert_default();
            context.allow_privilege_escalation.get_or_insert(false);
        }
    }
}

fn pod_spec(job: &Job) -> Option<&PodSpec> {
    job.spec.as_ref()?.template.spec.as_ref()
}

/// A container of any of the three lists.
struct ContainerRef<'a> {
    /// Its path in the template.
    field: String,
    image: Option<&'a str>,
    security_context: Option<&'a SecurityContext>,
}

/// All containers of a pod, including init and ephemeral containers.
fn containers(pod: &PodSpec) -> Vec<ContainerRef<'_>> {
    let field = |list: &str, i: usize| format!("{POD}.{list}[{i}]");
    let mut all = Vec::new();
    let lists = [
        ("initContainers", pod.init_containers.as_deref().unwrap_or_default()),
        ("containers", &pod.containers),
    ];
    for (list, containers) in lists {
        all.extend(containers.iter().enumerate().map(|(i, container)| ContainerRef {
            field: field(list, i),
            image: container.image.as_deref(),
            security_context: container.security_context.as_ref(),
        }));
    }
    let ephemeral = pod.ephemeral_containers.iter().flatten().enumerate();
    all.extend(ephemeral.map(|(i, container)| ContainerRef {
        field: field("ephemeralContainers", i),
        image: container.image.as_deref(),
        security_context: container.security_context.as_ref(),
    }));
    all
}

/// The `ServiceAccounts` of a pod, by both names of the field; `default` if neither is set.
fn service_accounts(pod: &PodSpec) -> Vec<(String, &str)> {
    let names = [("serviceAccountName", &pod.service_account_name), ("serviceAccount", &pod.service_account)];
    let mut accounts: Vec<(String, &str)> = names
        .into_iter()
        .filter_map(|(name, value)| Some((format!("{POD}.{name}"), value.as_deref()?)))
        .filter(|(_, account)| !account.is_empty())
        .collect();
    if accounts.is_empty() {
        accounts.push((format!("{POD}.serviceAccountName"), "default"));
    }
    accounts
}

#[cfg(test)]
mod tests;
