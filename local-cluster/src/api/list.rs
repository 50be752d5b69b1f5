//! List. All pages of a list show the same version.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use serde_json::Value;

use crate::{
    error::{ApiError, ApiResult, Cause},
    resource::{LIST_OPTIONS, Resource},
    selector::Selector,
    store::{Key, StoreState},
};

/// The parameters of a list.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListOptions {
    pub(crate) selector: Selector,
    /// 0 for no limit.
    pub(crate) limit: usize,
    /// The `continue` token; empty for the first page.
    pub(crate) token: String,
    pub(crate) version: String,
    /// `Exact` or `NotOlderThan`; empty means `NotOlderThan`.
    pub(crate) version_match: String,
}

/// A page of a list.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) items: Vec<Arc<Value>>,
    pub(crate) version: u64,
    /// Empty on the last page.
    pub(crate) token: String,
    pub(crate) remaining: usize,
}

/// Lists the objects of a namespace, or of all namespaces if `namespace` is empty.
///
/// # Errors
/// 400 for a bad token or version, 410 for a version below the history, 504 for a future version.
pub(crate) fn list(
    state: &StoreState,
    resource: &Resource,
    namespace: &str,
    options: &ListOptions,
) -> ApiResult<Page> {
    let resource_store = state.resource_store(resource)?;
    let now = state.version();
    let (version, start) = resolve_version(now, options)?;
    let past;
    let objects = if version == now {
        resource_store.objects()
    } else {
        past = resource_store.snapshot_at(version).ok_or_else(|| expired(options))?;
        &past
    };
    Ok(page(objects, namespace, options, version, start.as_ref()))
}

/// The version to list, and the key after which the page starts.
fn resolve_version(now: u64, options: &ListOptions) -> ApiResult<(u64, Option<Key>)> {
    if !options.token.is_empty() {
        return parse_token(&options.token)
            .map(|(version, key)| (version, Some(key)))
            .ok_or_else(|| ApiError::bad_request("continue key is not valid"));
    }
    if options.version.is_empty() && !options.version_match.is_empty() {
        let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
        let cause = Cause::forbidden("resourceVersionMatch", why);
        return Err(ApiError::invalid(&LIST_OPTIONS, "", &[cause]));
    }
    let requested = parse_version(&options.version)?;
    if requested > now {
        return Err(ApiError::version_too_large(requested, now));
    }
    match options.version_match.as_str() {
        "Exact" => Ok((requested, None)),
        _ => Ok((now, None)),
    }
}

fn expired(options: &ListOptions) -> ApiError {
    match options.token.is_empty() {
        true => ApiError::expired("The resourceVersion for the provided list is too old."),
        false => ApiError::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list \
             without the continue parameter.",
        ),
    }
}

fn page(
    objects: &BTreeMap<Key, Arc<Value>>,
    namespace: &str,
    options: &ListOptions,
    version: u64,
    start: Option<&Key>,
) -> Page {
    let from = match start {
        Some(key) => Bound::Excluded(key.clone()),
        None => Bound::Included(Key::new(namespace, "")),
    };
    let mut matching = objects
        .range((from, Bound::Unbounded))
        .take_while(|(key, _)| namespace.is_empty() || key.namespace == namespace)
        .filter(|(_, object)| options.selector.matches(object));
    let limit = if options.limit == 0 { usize::MAX } else { options.limit };
    let (mut items, mut last) = (Vec::new(), None);
    for (key, object) in matching.by_ref().take(limit) {
        items.push(object.clone());
        last = Some(key);
    }
    let remaining = matching.count();
    let token = last.filter(|_| remaining > 0).map(|key| format!("{version}/{}/{}", key.namespace, key.name));
    Page { items, version, token: token.unwrap_or_default(), remaining }
}

fn parse_token(token: &str) -> Option<(u64, Key)> {
    let (version, key) = token.split_once('/')?;
    let (namespace, name) = key.split_once('/')?;
    Some((version.parse().ok()?, Key::new(namespace, name)))
}

/// Parses a resourceVersion; 0 if it is empty.
pub(crate) fn parse_version(version: &str) -> ApiResult<u64> {
    match version {
        "" => Ok(0),
        text => text.parse().map_err(|_| {
            ApiError::bad_request(format!("resourceVersion: Invalid value: {text:?}: must be a number"))
        }),
    }
}
