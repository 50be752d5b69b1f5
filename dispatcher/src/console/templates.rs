//! What the page shows about the templates: readiness, queue, Jobs and limit; and their schemas.

use std::sync::Arc;

use axum::{
    extract::{Query, State},
    http::StatusCode,
    response::Response,
};
use dispatcher_core::template::Template;
use serde::{Deserialize, Serialize};

use crate::{
    console::{
        answer::{Failure, json_response},
        state::{Backend, Console},
    },
    telemetry::metrics::QueueSample,
};

/// One template.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    name: String,
    /// Why the intake of the template is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    /// Absent until the queue was sampled.
    #[serde(skip_serializing_if = "Option::is_none")]
    queued: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_progress: Option<u64>,
    /// Absent until the watch has listed the Jobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    active: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u32>,
}

/// Sends the state of the templates to the viewers.
pub(super) fn send(console: &Console) {
    if let Some(backend) = console.0.backend.get() {
        console.0.live.set_templates(&statuses(backend));
    }
}

fn statuses(backend: &Backend) -> Vec<Status> {
    let components = backend.health.components();
    let counts = backend.limiter.counts();
    let mut templates = (backend.templates)();
    templates.sort_by(|a, b| a.name.cmp(&b.name));
    let status = |template: Arc<Template>| {
        let component = format!("intake {}", template.name);
        let problem = components.iter().find(|found| found.name == component);
        let sample: Option<QueueSample> = backend.metrics.queue(&template.name);
        let count = |counts: &Vec<_>| {
            let found = counts.iter().find(|(name, _)| *name == template.name);
            found.map_or(0, |(_, count)| *count)
        };
        Status {
            name: template.name.to_string(),
            problem: problem.and_then(|found| found.reason.clone()),
            queued: sample.map(|sample| sample.pending),
            in_progress: sample.map(|sample| sample.ack_pending),
            active: counts.as_ref().map(count),
            limit: template.max_active.map(std::num::NonZeroU32::get),
        }
    };
    templates.into_iter().map(status).collect()
}

/// The template of a call.
#[derive(Deserialize)]
pub(super) struct TemplateQuery {
    template: String,
}

impl TemplateQuery {
    /// # Errors
    /// 404 if no template has this name.
    pub(super) fn find(&self, backend: &Backend) -> Result<Arc<Template>, Failure> {
        let found =
            (backend.templates)().into_iter().find(|template| template.name.as_ref() == self.template);
        found.ok_or_else(|| Failure::new(StatusCode::NOT_FOUND, "NotFound", "no template has this name"))
    }
}

/// The JSON Schema of a template's requests.
pub(super) async fn schema(
    State(console): State<Console>,
    Query(query): Query<TemplateQuery>,
) -> Result<Response, Failure> {
    let template = query.find(console.backend()?)?;
    Ok(json_response(StatusCode::OK, &template.request_schema()))
}
