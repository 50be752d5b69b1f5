//! The Job that every side creates: the one of `deploy/templates/simple.yaml`, suspended.

use dispatcher_tests::{bare, paths, templates::without_limit};
use k8s_openapi::api::batch::v1::Job;
use serde_json::{Value, json};

/// The label with the number of the request, on the Jobs of all sides that know it.
pub(crate) const REQUEST: &str = "request";

/// The dispatcher's template.
pub(crate) fn template() -> Result<String, String> {
    let path = paths::workspace().join("deploy/templates/simple.yaml");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let spec = "    spec:\n      backoffLimit: 3\n";
    let labelled =
        format!("    metadata:\n      labels:\n        {REQUEST}: ${{foo}}\n{spec}      suspend: true\n");
    match text.contains(spec) {
        true => Ok(without_limit(&text).replacen(spec, &labelled, 1)),
        false => Err(format!("{}: expected {spec:?}", path.display())),
    }
}

/// The manifest of the template, with the parameters unset.
pub(crate) fn job() -> Result<Value, String> {
    let mut template: Value = serde_saphyr::from_str(&template()?).map_err(|error| error.to_string())?;
    let mut job = template.pointer_mut("/spec/job").map(Value::take).ok_or("the template has no job")?;
    let env = job.pointer_mut("/spec/template/spec/containers/0/env").ok_or("the job has no env")?;
    *env = json!([{"name": "FOO", "value": ""}, {"name": "SLEEP_SECONDS", "value": "15"}]);
    Ok(job)
}

/// The Job of a request, as the bare client creates it, without a name.
pub(crate) fn manifest_of(request: usize) -> Result<Value, String> {
    let mut job = job()?;
    if let Some(value) = job.pointer_mut("/spec/template/spec/containers/0/env/0/value") {
        *value = request.to_string().into();
    }
    let fields = job.as_object_mut().ok_or("the job is no object")?;
    fields.insert("metadata".to_owned(), json!({"labels": {REQUEST: request.to_string()}}));
    Ok(job)
}

/// The Job of a request with its name.
pub(crate) fn job_of(request: usize) -> Result<Job, String> {
    bare::named(&manifest_of(request)?, &format!("simple-job-{request}"))
}
