//! The create of a Job, its dry run, and its reversal.

use dispatcher_core::{
    contract::{
        job::{JobObject, LABEL_TEMPLATE},
        names::TemplateName,
        object::used_metadata,
    },
    request::{canary::canary_of, error::CallError},
};
use hyper::header::{ACCEPT, CONTENT_TYPE};
use k8s_openapi::api::batch::v1::Job;
use kube::{
    Resource,
    api::{DeleteParams, ListParams, ObjectMeta, Preconditions},
    core::{Request, Status, object::NotUsed, response::StatusDetails},
};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::kube::{JobClient, call};

/// Asks for the metadata alone: the API server itself sets the status of a created Job to `{}`. One
/// that cannot answer so sends the whole Job.
const METADATA_ONLY: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
/// By default, the API server looks for unknown fields in each Job. The check of a template does that
/// once.
const NO_WARNINGS: &str = "fieldValidation=Ignore";
/// The kind of the API server's errors.
const STATUS: &str = "Status";

impl JobClient {
    /// Creates a Job. It is JSON, since the type `Job` would drop the fields that it does not know.
    ///
    /// # Errors
    /// [`CallError`]. After [`CallError::DeadlineExceeded`] and [`CallError::Transport`] the Job
    /// may exist.
    pub(crate) async fn create(&self, job: &Value) -> Result<JobObject, CallError> {
        self.post(job, false).await
    }

    /// Creates a Job without storing it. The API server authorizes, admits and validates it.
    ///
    /// # Errors
    /// [`CallError`].
    pub(crate) async fn create_dry_run(&self, job: &Value) -> Result<JobObject, CallError> {
        self.post(job, true).await
    }

    /// A Job of the template as it was created, if one exists.
    ///
    /// # Errors
    /// [`CallError`].
    pub(crate) async fn find_canary(&self, template: &TemplateName) -> Result<Option<Value>, CallError> {
        let params = ListParams::default().labels(&format!("{LABEL_TEMPLATE}={template}")).limit(1);
        let request = Request::new(Job::url_path(&(), Some(&self.namespace)))
            .list(&params)
            .map_err(|e| CallError::Transport(e.to_string()))?;
        let found: Value = call(self.client.request(request)).await?;
        Ok(found.pointer("/items/0").cloned().map(canary_of))
    }

    /// Deletes a Job if it has this uid, and its pods in the background.
    ///
    /// # Errors
    /// [`CallError`]: 404 if the Job does not exist, 409 if it has another uid.
    pub(crate) async fn delete_uid(&self, name: &str, uid: &str) -> Result<(), CallError> {
        let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        let params = DeleteParams::background().preconditions(preconditions);
        call(self.api.delete(name, &params)).await.map(drop)
    }

    async fn post(&self, job: &Value, dry_run: bool) -> Result<JobObject, CallError> {
        let failed = |e: &dyn std::error::Error| CallError::Transport(e.to_string());
        let body = serde_json::to_vec(job).map_err(|e| failed(&e))?;
        let path = Job::url_path(&(), Some(&self.namespace));
        let path = format!("{path}?{NO_WARNINGS}{}", if dry_run { "&dryRun=All" } else { "" });
        let request = hyper::Request::post(path)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, METADATA_ONLY)
            .body(body)
            .map_err(|e| failed(&e))?;
        match call(self.client.request_text(request)).await {
            Ok(text) => created(&text),
            Err(error) => Err(restored(error)),
        }
    }
}

/// The used fields of the answer to a create: of a Job, of its metadata alone, or of a `Status`.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    kind: String,
    #[serde(deserialize_with = "used_metadata")]
    metadata: ObjectMeta,
    #[serde(default)]
    status: Value,
}

impl From<Answer> for JobObject {
    fn from(Answer { metadata, status, .. }: Answer) -> Self {
        let status = if status.is_null() { Value::Object(Map::new()) } else { status };
        Self { metadata, spec: NotUsed {}, status: Some(status) }
    }
}

/// The created Job. A webhook can choose a code above 599, which the client library takes for a
/// success.
fn created(text: &str) -> Result<JobObject, CallError> {
    match serde_json::from_str::<Answer>(text) {
        Ok(answer) if answer.kind != STATUS => Ok(answer.into()),
        result => match (status_of(text), result) {
            (Some(status), _) => Err(CallError::Status(Box::new(status))),
            (None, Ok(_)) => Err(CallError::Transport("the answer is not a Job".to_owned())),
            (None, Err(error)) => Err(CallError::Transport(format!("the answer is not a Job: {error}"))),
        },
    }
}

/// The error with the API server's own status, if the client library could not decode it: a
/// webhook chooses the details, and they can be invalid. Other answers come from a proxy.
fn restored(error: CallError) -> CallError {
    match error {
        CallError::Status(status) if status.reason == "Failed to parse error data" => {
            match status_of(&status.message) {
                Some(found) => CallError::Status(Box::new(found)),
                None => CallError::Transport(format!("HTTP {} without a Kubernetes status", status.code)),
            }
        }
        other => other,
    }
}

/// The fields of a `Status` that decide its class. The others may be invalid.
fn status_of(text: &str) -> Option<Status> {
    let value: Value = serde_json::from_str(text).ok()?;
    if value.get("kind")?.as_str()? != STATUS {
        return None;
    }
    let field = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let code = value.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
    let details = StatusDetails {
        name: field("/details/name"),
        group: field("/details/group"),
        kind: field("/details/kind"),
        uid: String::new(),
        causes: Vec::new(),
        retry_after_seconds: 0,
    };
    let status = Status::failure(&field("/message"), &field("/reason")).with_details(details);
    Some(status.with_code(code.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use dispatcher_core::request::error::{CreateFailure, classify};
    use serde_json::json;

    use super::*;

    fn denial(code: u64) -> String {
        let message = "admission webhook \"a.b\" denied the request: no";
        let details = json!({"name": "a", "retryAfterSeconds": -1, "causes": "none"});
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
               "reason": "x", "code": code, "details": details})
        .to_string()
    }

    #[test]
    fn status_is_an_error_whatever_its_code() {
        for code in [400, 666, 999] {
            let error = created(&denial(code)).unwrap_err();
            assert_eq!(error.code(), u16::try_from(code).ok());
            assert_eq!(classify(&error, "a"), CreateFailure::Refused);
        }
        let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a"}, "spec": {}});
        assert_eq!(created(&job.to_string()).unwrap().metadata.name.as_deref(), Some("a"));
        for answer in ["", "<html>", "null", "[]", "{}", r#"{"kind":"Job"}"#] {
            assert!(matches!(created(answer), Err(CallError::Transport(_))), "{answer}");
        }
    }

    #[test]
    fn answer_with_the_metadata_alone_and_the_whole_job_give_the_same_state() {
        let metadata = json!({"name": "a", "namespace": "n", "uid": "u", "resourceVersion": "7",
                              "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"l": "1"}, "annotations": {"b": "2"},
                              "managedFields": [{"fieldsV1": {"f:spec": {}}, "manager": "unknown"}]});
        let whole =
            json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {}, "status": {}});
        let part =
            json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata});
        let [whole, part] = [whole, part].map(|answer| created(&answer.to_string()).unwrap());
        assert_eq!((&whole.metadata, &whole.status), (&part.metadata, &part.status));
        assert_eq!(part.status, Some(json!({})));
        let meta = part.metadata;
        let texts = [meta.name, meta.namespace, meta.uid, meta.resource_version].map(Option::unwrap);
        assert_eq!(texts, ["a", "n", "u", "7"]);
        assert!(meta.creation_timestamp.is_some() && meta.labels.is_some() && meta.annotations.is_some());
    }

    /// The error for an HTTP answer, as the client library and `restored` give it.
    fn error_of(http: u16, text: &str) -> CallError {
        if http >= 600 {
            return created(text).unwrap_err();
        }
        let unparsed = || Status::failure(text, "Failed to parse error data").with_code(http);
        let status = serde_json::from_str(text).unwrap_or_else(|_| unparsed());
        restored(CallError::Status(Box::new(status)))
    }

    /// Answers of kube-apiserver 1.37.2 to creates of the Jobs `simple-job-a` and `taken`. The
    /// denied Jobs quote text and the webhook chooses details that mean something else elsewhere.
    #[test]
    fn recorded_answers_of_a_real_api_server_are_classified() {
        for line in include_str!("recorded_answers.jsonl").lines() {
            let recorded: Value = serde_json::from_str(line).unwrap();
            let http = u16::try_from(recorded["http"].as_u64().unwrap()).unwrap();
            let name = if recorded["class"] == "exists" { "taken" } else { "simple-job-a" };
            let class = classify(&error_of(http, &recorded["answer"].to_string()), name);
            assert_eq!(class.label(), recorded["class"], "{line}");
        }
    }

    #[test]
    fn denial_with_invalid_details_is_a_denial_and_a_page_of_a_proxy_is_none() {
        let unparsed = |text: &str, code| {
            let status = Status::failure(text, "Failed to parse error data").with_code(code);
            restored(CallError::Status(Box::new(status)))
        };
        assert_eq!(classify(&unparsed(&denial(409), 409), "a"), CreateFailure::Refused);
        for code in [400, 401, 403, 404, 503] {
            let page = unparsed("<html>admission webhook \"a\" denied</html>", code);
            assert_eq!(classify(&page, "a"), CreateFailure::Transient, "{code}");
        }
    }
}
