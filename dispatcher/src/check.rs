//! `dispatcher check`: the templates held to every rule of a start, without a cluster; and the Job of a request.

use std::path::{Path, PathBuf};

use k8s_openapi::api::batch::v1::Job;

use crate::{cli::Check, templates};
use dispatcher_core::{
    contract::{rejection::Rejection, trace::TraceContext},
    request::{Envelope, Identity, Request, job},
    template::{Template, TemplateError, files_of},
};

/// What a check has found.
#[derive(Debug, Default)]
pub struct Report {
    /// For stdout: a line for each template that is one, or the Job as JSON.
    pub lines: Vec<String>,
    /// For stderr: a line for each problem, with file and field.
    pub problems: Vec<String>,
}

impl Report {
    fn of_error(&mut self, error: &TemplateError) {
        self.problems.extend(error.problems.iter().map(|problem| format!("{}: {problem}", error.file)));
    }
}

/// Checks files and folders.
pub fn check(settings: &Check) -> Report {
    let mut report = Report::default();
    let policy = settings.limits.policy();
    let mut good: Vec<(PathBuf, Template)> = Vec::new();
    for file in files(&settings.files, &mut report) {
        let others: Vec<&Template> = good.iter().map(|(_, template)| template).collect();
        match templates::load_file(&file, &policy, &others) {
            Ok(template) => good.push((file, template)),
            Err(error) => report.of_error(&error),
        }
    }
    match (&settings.render, good.as_slice()) {
        (None, good) => {
            report.lines = good.iter().map(|(file, template)| ok(file, template)).collect();
        }
        (Some(_), _) if !report.problems.is_empty() => {}
        (Some(request), [(_, template)]) => match render(template, request) {
            Ok(job) => report.lines.push(job),
            Err(rejection) => report.problems.push(format!("the request is rejected: {rejection}")),
        },
        (Some(_), good) => {
            report.problems.push(format!("--render: found {} templates, allowed is one", good.len()));
        }
    }
    report
}

fn files(given: &[PathBuf], report: &mut Report) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for path in given {
        if path.is_dir() {
            match files_of(path) {
                Ok(found) => files.extend(found),
                Err(error) => report.of_error(&error),
            }
        } else {
            files.push(path.clone());
        }
    }
    files
}

fn ok(file: &Path, template: &Template) -> String {
    format!("ok {} (template {})", file.display(), template.name)
}

/// The Job as the dispatcher would create it, but for the identity of the request.
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
    let job: Job = job::build(&request, template, &TraceContext::default())?;
    Ok(serde_json::to_string_pretty(&job).unwrap_or_default())
}

#[cfg(test)]
mod tests;
