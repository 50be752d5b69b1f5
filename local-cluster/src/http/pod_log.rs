//! Serves the logs of containers.

use axum::{
    body::Body,
    http::{HeaderValue, header::CONTENT_TYPE},
    response::Response,
};
use serde_json::Value;

use super::{request::ApiRequest, state::State};
use crate::{
    error::{ApiError, ApiResult},
    logs::{LogError, LogRequest},
    object::{list, name, text, uid},
    resource::PODS,
    store::Key,
};

/// `GET pods/<name>/log`.
pub(super) async fn read(state: &State, request: &ApiRequest) -> ApiResult<Response> {
    let (namespace, pod_name) = (&request.call.namespace, &request.call.name);
    let pod = state.store.read(|inner| inner.get(&PODS, &Key::new(namespace, pod_name)))?;
    let container = container(&pod, request.parameter("container"))?;
    let number = |name| request.parameter(name).parse().ok();
    let request = LogRequest {
        namespace: namespace.clone(),
        pod: pod_name.clone(),
        uid: uid(&pod).to_owned(),
        container: container.to_owned(),
        follow: request.is_set("follow"),
        previous: request.is_set("previous"),
        tail_lines: number("tailLines"),
        limit_bytes: number("limitBytes"),
        since_seconds: number("sinceSeconds"),
        timestamps: request.is_set("timestamps"),
    };
    let logs = state.logs.get().ok_or_else(|| {
        ApiError::bad_request(format!("container \"{container}\" in pod \"{pod_name}\" is waiting to start"))
    })?;
    let stream = logs.read(request).await.map_err(|error| match error {
        LogError::NotReady(why) => ApiError::bad_request(why),
        LogError::NotFound(why) => ApiError { message: why, ..ApiError::from_code(404) },
    })?;
    let mut response = Response::new(Body::from_stream(stream));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// The requested container, or the only one of the pod.
fn container<'a>(pod: &'a Value, requested: &str) -> ApiResult<&'a str> {
    let names = |lists| list(pod, lists).iter().map(|container| text(container, "/name"));
    let pod_name = name(pod);
    let all: Vec<_> = names("/spec/containers").collect();
    match (all.as_slice(), requested) {
        ([only], "") => Ok(only),
        (_, "") => Err(ApiError::bad_request(format!(
            "a container name must be specified for pod {pod_name}, choose one of: [{}]",
            all.join(" ")
        ))),
        (_, requested) => names("/spec/initContainers")
            .chain(names("/spec/containers"))
            .find(|name| *name == requested)
            .ok_or_else(|| {
                ApiError::bad_request(format!("container {requested} is not valid for pod {pod_name}"))
            }),
    }
}
