//! The templates: files with the operator's limits, and the set that is in use.

pub(crate) mod folder;
pub(crate) mod served;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use dispatcher_core::request::ACK_WAIT;
use dispatcher_core::template::{Policy, Problem, Template, TemplateError};

use crate::cli::Limits;

impl Limits {
    /// The limits as a policy for templates.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        Arc::new(Policy {
            images: self.images.clone(),
            service_accounts: self.service_accounts.clone(),
            csi_drivers: self.csi_drivers.iter().filter(|name| !name.is_empty()).cloned().collect(),
            active_deadline_seconds: self.active_deadline_seconds,
        })
    }
}

/// Loads the templates of a folder.
///
/// # Errors
/// If the folder contains no template, or for the first file that cannot be read or is not valid.
pub fn load(folder: &Path, policy: &Arc<Policy>) -> Result<Vec<Arc<Template>>, TemplateError> {
    let mut templates: Vec<Template> = Vec::new();
    for path in template_files(folder)? {
        let others: Vec<&Template> = templates.iter().collect();
        let template = load_file(&path, policy, &others)?;
        for warning in &template.warnings {
            let template = template.name.as_ref();
            tracing::warn!(template, field = warning.field, "{}", warning.message);
        }
        templates.push(template);
    }
    Ok(reserve_prefixes(templates).into_iter().map(Arc::new).collect())
}

/// The templates, each without the names that the prefixes of the others reserve.
pub(crate) fn reserve_prefixes(templates: Vec<Template>) -> Vec<Template> {
    let prefixes: Vec<_> =
        templates.iter().map(|template| (template.name.clone(), template.name_prefix().to_owned())).collect();
    templates.into_iter().map(|template| template.with_reserved_prefixes(&prefixes)).collect()
}

/// Loads one template. Its name must differ from those of `others`, and the names of its Jobs from
/// those of templates with a name prefix.
///
/// # Errors
/// All problems of the file.
pub(crate) fn load_file(
    path: &Path,
    policy: &Arc<Policy>,
    others: &[&Template],
) -> Result<Template, TemplateError> {
    let in_file = |problems| error(path, problems);
    let text = fs::read_to_string(path).map_err(|e| in_file(vec![cannot_read(&e)]))?;
    let template =
        Template::parse(&text).and_then(|template| template.with_policy(policy.clone())).map_err(in_file)?;
    let mut problems: Vec<Problem> = ttl_problem(&template, ACK_WAIT).into_iter().collect();
    if others.iter().any(|other| other.name == template.name) {
        let message = format!("another file defines the template `{}`", template.name);
        problems.push(Problem::at("metadata.name", message));
    } else {
        problems.extend(others.iter().find_map(|other| template.name_conflict(other)));
    }
    if problems.is_empty() { Ok(template) } else { Err(in_file(problems)) }
}

/// The template, if the operator's limits and the consumer's `ack_wait` allow it.
///
/// # Errors
/// Its problems.
pub(crate) fn within_limits(
    parsed: Result<Template, Vec<Problem>>,
    policy: &Arc<Policy>,
) -> Result<Template, Vec<Problem>> {
    let template = parsed?.with_policy(policy.clone())?;
    ttl_problem(&template, ACK_WAIT).map_or(Ok(template), |problem| Err(vec![problem]))
}

/// A Job must not expire before its request is acked, since a redelivery looks for it.
pub(crate) fn ttl_problem(template: &Template, ack_wait: Duration) -> Option<Problem> {
    let limit = i32::try_from(ack_wait.as_secs()).unwrap_or(i32::MAX);
    let ttl = template.ttl_seconds.filter(|ttl| *ttl <= limit)?;
    let message = format!("expected more than {limit} (the consumer's ack_wait), found {ttl}");
    Some(Problem::at("spec.job.spec.ttlSecondsAfterFinished", message))
}

/// The template files of a folder, sorted by name: at least one.
///
/// # Errors
/// If the folder cannot be read or contains no template file.
pub(crate) fn template_files(folder: &Path) -> Result<Vec<PathBuf>, TemplateError> {
    let in_folder = |problem| error(folder, vec![problem]);
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| in_folder(cannot_read(&e)))? {
        let path = entry.map_err(|e| in_folder(cannot_read(&e)))?.path();
        if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
            && path.is_file()
        {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(in_folder(Problem::of_file("contains no template (no file ends in .yaml or .yml)")));
    }
    Ok(files)
}

fn cannot_read(error: &io::Error) -> Problem {
    Problem::of_file(format!("cannot be read: {error}"))
}

fn error(path: &Path, problems: Vec<Problem>) -> TemplateError {
    TemplateError { file: path.display().to_string(), problems }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_and_example_templates_are_valid() {
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
        let names = |folder: &str| -> Vec<String> {
            let templates = load(&deploy.join(folder), &Arc::default()).unwrap();
            templates.iter().map(|template| template.name.to_string()).collect()
        };
        assert_eq!(names("templates"), ["memory", "simple"]);
        assert_eq!(names("examples"), ["dump"]);
    }
}
