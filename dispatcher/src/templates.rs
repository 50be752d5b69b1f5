//! The templates under the operator's settings: for a start, for `check`, and for what is printed of them.

use std::{path::Path, sync::Arc, time::Duration};

use crate::{cli::Limits, nats::definitions::ACK_WAIT};
use dispatcher_core::template::{Policy, Problem, Template, TemplateError, files_of};

impl Limits {
    /// The limits as the templates know them.
    pub fn policy(&self) -> Arc<Policy> {
        Arc::new(Policy {
            images: self.images.clone(),
            service_accounts: self.service_accounts.clone(),
            active_deadline_seconds: self.active_deadline_seconds,
        })
    }
}

/// Reads the templates of a folder, to run with these limits.
///
/// # Errors
/// The first file that is no template, or may not be used.
pub fn load(folder: &Path, policy: &Arc<Policy>) -> Result<Vec<Arc<Template>>, TemplateError> {
    let mut templates: Vec<Arc<Template>> = Vec::new();
    for path in files_of(folder)? {
        let others: Vec<&Template> = templates.iter().map(AsRef::as_ref).collect();
        let template = load_file(&path, policy, &others)?;
        templates.push(Arc::new(template));
    }
    Ok(templates)
}

/// Reads one template, to run with these limits beside `others`.
///
/// # Errors
/// All that is wrong with it.
pub fn load_file(path: &Path, policy: &Arc<Policy>, others: &[&Template]) -> Result<Template, TemplateError> {
    let in_file = |problems| TemplateError { file: path.display().to_string(), problems };
    let template = Template::load(path)?.under(policy.clone()).map_err(in_file)?;
    let mut problems: Vec<Problem> = ttl_problem(&template, ACK_WAIT).into_iter().collect();
    if others.iter().any(|other| other.name == template.name) {
        problems.push(Problem::at(
            "metadata.name",
            format!("another file defines the template `{}`", template.name),
        ));
    }
    if problems.is_empty() { Ok(template) } else { Err(in_file(problems)) }
}

/// A Job whose request is still to be acknowledged must be found when that is delivered again.
pub fn ttl_problem(template: &Template, ack_wait: Duration) -> Option<Problem> {
    let least = i32::try_from(ack_wait.as_secs()).unwrap_or(i32::MAX);
    let ttl = template.ttl_seconds.filter(|ttl| *ttl <= least)?;
    let message = format!("found {ttl}, must be more than {least} (the consumer's ack_wait)");
    Some(Problem::at("spec.job.spec.ttlSecondsAfterFinished", message))
}
