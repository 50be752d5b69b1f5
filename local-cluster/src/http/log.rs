//! Logs of containers.

use axum::{
    body::Body,
    http::{HeaderValue, header::CONTENT_TYPE},
    response::Response,
};

use super::{State, verbs::Asked};
use crate::{
    error::{ApiError, ApiResult},
    logs::{LogError, LogRequest},
    object::{list, text, uid},
    resource::PODS,
    store::Key,
};

/// `GET pods/<name>/log`.
pub(super) async fn read(state: &State, asked: &Asked) -> ApiResult<Response> {
    let (namespace, name) = (&asked.call.namespace, &asked.call.name);
    let pod = state.store.read(|inner| inner.get(&PODS, &Key::new(namespace, name)))?;
    let container = container(&pod, asked.parameter("container"))?;
    let number = |name| asked.parameter(name).parse().ok();
    let request = LogRequest {
        namespace: namespace.clone(),
        pod: name.clone(),
        uid: uid(&pod).to_owned(),
        container: container.to_owned(),
        follow: asked.is_set("follow"),
        previous: asked.is_set("previous"),
        tail_lines: number("tailLines"),
        limit_bytes: number("limitBytes"),
        since_seconds: number("sinceSeconds"),
        timestamps: asked.is_set("timestamps"),
    };
    let logs = state.logs.get().ok_or_else(|| {
        ApiError::bad_request(format!("container \"{container}\" in pod \"{name}\" is waiting to start"))
    })?;
    let stream = logs.read(request).await.map_err(|error| match error {
        LogError::NotReady(why) => ApiError::bad_request(why),
        LogError::NotFound(why) => ApiError { message: why, ..ApiError::of_code(404) },
    })?;
    let mut response = Response::new(Body::from_stream(stream));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// The container that is meant.
fn container<'a>(pod: &'a serde_json::Value, asked: &str) -> ApiResult<&'a str> {
    let names = |lists| list(pod, lists).iter().map(|container| text(container, "/name"));
    let pod_name = crate::object::name(pod);
    let all: Vec<_> = names("/spec/containers").collect();
    match (all.as_slice(), asked) {
        ([only], "") => Ok(only),
        (_, "") => Err(ApiError::bad_request(format!(
            "a container name must be specified for pod {pod_name}, choose one of: [{}]",
            all.join(" ")
        ))),
        (_, asked) => names("/spec/initContainers")
            .chain(names("/spec/containers"))
            .find(|name| *name == asked)
            .ok_or_else(|| {
                ApiError::bad_request(format!("container {asked} is not valid for pod {pod_name}"))
            }),
    }
}
