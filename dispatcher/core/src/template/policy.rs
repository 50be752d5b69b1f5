//! What a Job may not be, whatever its template says: the refusals that nothing lifts, and the operator's own limits.
//!
//! Checked when a template is loaded, and on every rendered Job again.

use std::{fmt, num::NonZeroU32, str::FromStr};

use k8s_openapi::api::{batch::v1::Job, core::v1::PodSpec};

use crate::template::problem::Problem;

mod pod;

/// The operator's limits for all templates. The default allows every image and ServiceAccount, and sets no deadline.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// The images that a container may have; `None` for any.
    pub images: Option<Vec<ImagePattern>>,
    /// The ServiceAccounts that a Job may run under; `None` for any.
    pub service_accounts: Option<Vec<String>>,
    /// `activeDeadlineSeconds` of a Job whose template sets none.
    pub active_deadline_seconds: Option<NonZeroU32>,
}

/// An image, or what images begin with: `registry.example.org/team/*`.
///
/// Compared with the text in the manifest; nothing is completed. A `*` is allowed at the end only, after `/`, `:` or
/// `@`. After `/` it stands for anything; after `:` and `@` for a tag or digest, and so for anything without a `/`
/// (`evil:5000/x` is an image of another registry than `evil:*` means).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePattern(String);

impl FromStr for ImagePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fixed = text.strip_suffix('*').unwrap_or(text);
        if text.is_empty() || fixed.contains(|c: char| c == '*' || c.is_whitespace()) {
            return Err(format!("{text:?} is no image: `*` is allowed at the end only, and no white space"));
        }
        if fixed != text && !fixed.ends_with(['/', ':', '@']) {
            return Err(format!(
                "{text:?}: a `*` stands after `/`, `:` or `@`, so that no other registry or image begins like it"
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
    /// Whether the image is allowed by it.
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
    /// What the operator's limits do not allow in this Job.
    pub(super) fn problems(&self, job: &Job) -> Vec<Problem> {
        let mut problems = Vec::new();
        let Some(spec) = pod_spec(job) else { return problems };
        if let Some(allowed) = &self.images {
            for container in pod::containers(spec) {
                let image = container.image.unwrap_or_default();
                if !allowed.iter().any(|pattern| pattern.matches(image)) {
                    problems
                        .push(Problem::at(format!("{}.image", container.field), not_allowed(image, allowed)));
                }
            }
        }
        if let Some(allowed) = &self.service_accounts {
            for (field, account) in pod::service_accounts(spec) {
                if !allowed.iter().any(|name| name == account) {
                    problems.push(Problem::at(field, not_allowed(account, allowed)));
                }
            }
        }
        problems
    }
}

fn not_allowed(found: &str, allowed: &[impl fmt::Display]) -> String {
    let some: Vec<_> = allowed.iter().take(5).map(ToString::to_string).collect();
    let more = if allowed.len() > some.len() { ", …" } else { "" };
    let found = crate::contract::names::Quoted::new(found);
    format!("found {found}, the operator allows {}{more}", some.join(", "))
}

/// What no template may have: ways out of the container, and rights over the node.
pub(super) fn refusals(job: &Job) -> Vec<Problem> {
    pod_spec(job).map(pod::refusals).unwrap_or_default()
}

/// Defaults where the template says nothing: no token of the ServiceAccount, no way to more rights, a deadline.
pub(super) fn fill_in(job: &mut Job, policy: &Policy) {
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

#[cfg(test)]
mod tests;
