//! Parses the method and path of a Kubernetes API request. Pure.

use std::collections::HashMap;

use axum::http::Method;

use crate::{
    error::{ApiError, ApiResult},
    resource::{NAMESPACES, Resource},
};

/// An API call: a verb on a resource. [`Calls`](crate::faults::Calls) matches it.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The verb in the terms of RBAC: `get`, `list`, `watch`, `create`, `update`, `patch`,
    /// `delete`, `deletecollection`.
    pub(crate) verb: &'static str,
    pub(crate) resource: &'static Resource,
    /// Empty for all namespaces and for cluster-scoped resources.
    pub(crate) namespace: String,
    /// Empty for a collection.
    pub(crate) name: String,
    /// Empty for the object itself.
    pub(crate) subresource: String,
}

impl Call {
    /// Parses a path below `/api` or `/apis`.
    ///
    /// # Errors
    /// 404 for an unknown path, 405 for a method that the path does not support.
    pub(crate) fn parse(method: &Method, path: &str, is_watch: bool) -> ApiResult<Self> {
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let (group, version, rest) = match segments.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return Err(ApiError::path_not_found()),
        };
        let (namespace, plural, rest) = match rest {
            ["namespaces", name, sub @ ("status" | "finalize")] if group.is_empty() => {
                return Self::build(method, is_watch, &NAMESPACES, "", &[*name, *sub]);
            }
            ["namespaces", namespace, plural, rest @ ..] => (*namespace, *plural, rest),
            [plural, rest @ ..] => ("", *plural, rest),
            [] => return Err(ApiError::path_not_found()),
        };
        let resource = Resource::find(group, version, plural).ok_or_else(ApiError::path_not_found)?;
        let is_misplaced = !namespace.is_empty() && !resource.namespaced;
        let lacks_namespace = namespace.is_empty() && resource.namespaced && !rest.is_empty();
        if is_misplaced || lacks_namespace {
            return Err(ApiError::path_not_found());
        }
        Self::build(method, is_watch, resource, namespace, rest)
    }

    /// The call that an access review describes; `None` for an unknown verb or resource.
    pub(crate) fn from_review<'a>(attribute: impl Fn(&str) -> &'a str) -> Option<Self> {
        let verbs = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
        let version = if attribute("version").is_empty() { "v1" } else { attribute("version") };
        Some(Self {
            verb: verbs.into_iter().find(|verb| *verb == attribute("verb"))?,
            resource: Resource::find(attribute("group"), version, attribute("resource"))?,
            namespace: attribute("namespace").to_owned(),
            name: attribute("name").to_owned(),
            subresource: attribute("subresource").to_owned(),
        })
    }

    fn build(
        method: &Method,
        is_watch: bool,
        resource: &'static Resource,
        namespace: &str,
        rest: &[&str],
    ) -> ApiResult<Self> {
        let (name, subresource) = match rest {
            [] => ("", ""),
            [name] => (*name, ""),
            [name, subresource] => (*name, *subresource),
            _ => return Err(ApiError::path_not_found()),
        };
        let has_name = !name.is_empty();
        let verb = match method.as_str() {
            "GET" if has_name => "get",
            "GET" if is_watch => "watch",
            "GET" => "list",
            "POST" if !has_name || !subresource.is_empty() => "create",
            "PUT" if has_name => "update",
            "PATCH" if has_name => "patch",
            "DELETE" if has_name => "delete",
            "DELETE" => "deletecollection",
            _ => return Err(ApiError::method_not_allowed()),
        };
        let needs_namespace = resource.namespaced && namespace.is_empty();
        if needs_namespace && !["list", "watch"].contains(&verb) {
            return Err(ApiError::method_not_allowed());
        }
        Ok(Self {
            verb,
            resource,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: subresource.to_owned(),
        })
    }
}

/// Whether the query parameters turn a list into a watch.
pub(crate) fn is_watch(query: &HashMap<String, String>) -> bool {
    query.get("watch").is_some_and(|watch| ["true", "1"].contains(&watch.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: Method, path: &str) -> Result<String, u16> {
        let call = Call::parse(&method, path, path.ends_with("jobs")).map_err(|error| error.code)?;
        let all = [call.verb, call.resource.plural, &call.namespace, &call.name, &call.subresource];
        Ok(all.join(" ").trim_end().to_owned())
    }

    #[test]
    fn known_paths_are_parsed() {
        for (method, path, expected) in [
            (Method::GET, "/api/v1/namespaces", "list namespaces"),
            (Method::GET, "/api/v1/namespaces/a", "get namespaces  a"),
            (Method::PUT, "/api/v1/namespaces/a/finalize", "update namespaces  a finalize"),
            (Method::GET, "/api/v1/pods", "list pods"),
            (Method::POST, "/api/v1/namespaces/a/pods", "create pods a"),
            (Method::GET, "/api/v1/namespaces/a/pods/p/log", "get pods a p log"),
            (Method::GET, "/apis/batch/v1/namespaces/a/jobs", "watch jobs a"),
            (Method::PATCH, "/apis/batch/v1/namespaces/a/jobs/j/status", "patch jobs a j status"),
            (Method::DELETE, "/apis/batch/v1/namespaces/a/jobs", "deletecollection jobs a"),
        ] {
            assert_eq!(parse(method, path).as_deref(), Ok(expected), "{path}");
        }
    }

    #[test]
    fn unknown_paths_and_methods_are_rejected() {
        for (method, path, code) in [
            (Method::GET, "/healthz", 404),
            (Method::GET, "/apis/apps/v1/deployments", 404),
            (Method::GET, "/apis/batch/v1/jobs/j", 404),
            (Method::GET, "/api/v1/namespaces/a/namespaces", 404),
            (Method::GET, "/api/v1/namespaces/a/pods/p/log/x", 404),
            (Method::POST, "/apis/batch/v1/jobs", 405),
            (Method::DELETE, "/apis/batch/v1/jobs", 405),
            (Method::PUT, "/api/v1/namespaces/a/pods", 405),
        ] {
            assert_eq!(parse(method, path), Err(code), "{path}");
        }
    }
}
