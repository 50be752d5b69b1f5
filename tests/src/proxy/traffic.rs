//! Counts the calls of a client to the API server, and the bytes of its watches.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use futures::StreamExt;
use http::{Method, Uri};

/// What passed a proxy since its start.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// The number of calls by verb and resource, such as `create jobs`.
    pub calls: BTreeMap<String, u64>,
    /// The bytes of the answers to watches.
    pub watch_bytes: u64,
}

impl Traffic {
    /// What passed since an earlier state.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |call: &String| earlier.calls.get(call).copied().unwrap_or_default();
        let calls = self.calls.iter().map(|(call, count)| (call.clone(), count - before(call)));
        Self {
            calls: calls.filter(|(_, count)| *count > 0).collect(),
            watch_bytes: self.watch_bytes - earlier.watch_bytes,
        }
    }
}

/// The counters of a proxy.
#[derive(Clone, Default)]
pub(super) struct Counters(Arc<Mutex<Traffic>>);

impl Counters {
    pub(super) fn read(&self) -> Traffic {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts a call; returns whether it is a watch.
    pub(super) fn count(&self, method: &Method, uri: &Uri) -> bool {
        let (verb, resource) = parse(method, uri);
        let mut traffic = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *traffic.calls.entry(format!("{verb} {resource}")).or_default() += 1;
        verb == "watch"
    }

    /// A body that counts its bytes as they pass.
    pub(super) fn count_watch(&self, body: Body) -> Body {
        let traffic = self.0.clone();
        Body::from_stream(body.into_data_stream().inspect(move |part| {
            let bytes = part.as_ref().map_or(0, |bytes| bytes.len() as u64);
            traffic.lock().unwrap_or_else(PoisonError::into_inner).watch_bytes += bytes;
        }))
    }
}

/// The verb in the terms of RBAC, and the resource.
fn parse<'a>(method: &Method, uri: &'a Uri) -> (&'static str, &'a str) {
    let mut rest = uri.path().split('/').skip_while(|part| *part != "namespaces").skip(2);
    let (resource, named) = (rest.next().unwrap_or("others"), rest.next().is_some());
    let has = |parameter: &str| uri.query().is_some_and(|query| query.split('&').any(|p| p == parameter));
    let verb = match method.as_str() {
        "POST" => "create",
        "PATCH" => "patch",
        "PUT" => "update",
        "DELETE" => "delete",
        _ if has("watch=true") || has("watch=1") => "watch",
        _ if named => "get",
        _ => "list",
    };
    (verb, resource)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_verb_and_resource() {
        let counters = Counters::default();
        for (method, uri, watch) in [
            (Method::POST, "/apis/batch/v1/namespaces/n/jobs?", false),
            (Method::GET, "/apis/batch/v1/namespaces/n/jobs?&watch=true&allowWatchBookmarks=true", true),
            (Method::GET, "/apis/batch/v1/namespaces/n/jobs?labelSelector=a", false),
            (Method::GET, "/apis/batch/v1/namespaces/n/jobs/a", false),
            (Method::PATCH, "/apis/batch/v1/namespaces/n/jobs/a?", false),
            (Method::PUT, "/apis/coordination.k8s.io/v1/namespaces/n/leases/l", false),
            (Method::GET, "/version", false),
        ] {
            assert_eq!(counters.count(&method, &uri.parse().unwrap()), watch, "{uri}");
        }
        let before = counters.read();
        let expected = [
            "create jobs",
            "get jobs",
            "list jobs",
            "list others",
            "patch jobs",
            "update leases",
            "watch jobs",
        ];
        assert_eq!(before.calls.keys().map(String::as_str).collect::<Vec<_>>(), expected);
        counters.count(&Method::DELETE, &"/api/v1/namespaces/n/pods/p".parse().unwrap());
        assert_eq!(counters.read().since(&before).calls, BTreeMap::from([("delete pods".to_owned(), 1)]));
    }

    #[tokio::test]
    async fn bytes_of_a_watch_are_counted_as_they_pass() {
        let counters = Counters::default();
        let body = counters.count_watch(Body::from("12345"));
        assert_eq!(counters.read().watch_bytes, 0);
        assert_eq!(axum::body::to_bytes(body, 100).await.unwrap(), "12345");
        assert_eq!(counters.read().watch_bytes, 5);
    }
}
