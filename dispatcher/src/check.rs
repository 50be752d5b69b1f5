//! `dispatcher check`: validates templates and renders the Job of a request. The rules are the same
//! as when `dispatcher run` starts, but no cluster is needed.

use std::path::{Path, PathBuf};

use dispatcher_core::{
    contract::{rejection::Rejection, trace::TraceContext},
    request::{Envelope, Identity, Request, job},
    template::{Template, TemplateError},
};

use crate::{cli::Check, templates};

/// The result of a check.
#[derive(Debug, Default)]
pub struct Report {
    /// For stdout: one line for each valid template, or the rendered Job as JSON.
    pub lines: Vec<String>,
    /// For stderr: one line for each problem, with file and field.
    pub problems: Vec<String>,
    /// For stderr: one line for each unknown field, with its file.
    pub warnings: Vec<String>,
}

impl Report {
    fn add(&mut self, error: &TemplateError) {
        self.problems.extend(error.problems.iter().map(|problem| format!("{}: {problem}", error.file)));
    }
}

/// Checks the given files and folders.
#[must_use]
pub fn check(settings: &Check) -> Report {
    let mut report = Report::default();
    let policy = settings.limits.policy();
    let mut valid: Vec<(PathBuf, Template)> = Vec::new();
    for file in files(&settings.files, &mut report) {
        let others: Vec<&Template> = valid.iter().map(|(_, template)| template).collect();
        match templates::load_file(&file, &policy, &others) {
            Ok(template) => {
                let warnings = template.warnings.iter();
                let lines: Vec<_> =
                    warnings.map(|warning| format!("{}: {warning}", file.display())).collect();
                let is_valid = !settings.strict || lines.is_empty();
                if settings.strict { &mut report.problems } else { &mut report.warnings }.extend(lines);
                if is_valid {
                    valid.push((file, template));
                }
            }
            Err(error) => report.add(&error),
        }
    }
    let (files, templates): (Vec<_>, Vec<_>) = valid.into_iter().unzip();
    let valid: Vec<_> = files.into_iter().zip(templates::reserve_prefixes(templates)).collect();
    match (&settings.render, valid.as_slice()) {
        (None, valid) => {
            report.lines = valid.iter().map(|(file, template)| ok_line(file, template)).collect();
        }
        (Some(_), _) if !report.problems.is_empty() => {}
        (Some(request), [(_, template)]) => match render(template, request) {
            Ok(job) => report.lines.push(job),
            Err(rejection) => report.problems.push(format!("the request is rejected: {rejection}")),
        },
        (Some(_), valid) => {
            report.problems.push(format!("--render: expected one template, found {}", valid.len()));
        }
    }
    report
}

fn files(given: &[PathBuf], report: &mut Report) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for path in given {
        if path.is_dir() {
            match templates::template_files(path) {
                Ok(found) => files.extend(found),
                Err(error) => report.add(&error),
            }
        } else {
            files.push(path.clone());
        }
    }
    files
}

fn ok_line(file: &Path, template: &Template) -> String {
    format!("ok {} (template {})", file.display(), template.name)
}

/// The Job as the dispatcher would create it, except for the request id and sequence.
fn render(template: &Template, request: &str) -> Result<String, Rejection> {
    let envelope = Envelope {
        payload: request.as_bytes(),
        message_id: Some("check"),
        stream: "",
        sequence: 0,
        stored_nanos: 0,
    };
    let identity = Identity::of(&envelope).map_err(|(_, rejection)| rejection)?;
    let request = Request::parse(template, identity, envelope.payload)?;
    let job = job::build(&request, template, &TraceContext::default())?;
    Ok(serde_json::to_string_pretty(&job).unwrap_or_default())
}

#[cfg(test)]
mod tests;
