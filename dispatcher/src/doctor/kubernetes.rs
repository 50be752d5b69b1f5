//! Facts about the cluster: the API server, the namespace and its objects, and the permissions.

use std::{path::Path, time::Duration};

use axum::http::{Request, header::DATE};
use dispatcher_core::{
    doctor::{
        cluster::{Admission, Crd, Exhausted, Namespace, Quotas, Server, is_reached},
        lease::Lease,
        rbac::{Access, Permission, Place},
    },
    election::DURATION,
    request::error::CallError,
    template::{API_VERSION, KIND},
};
use futures::{StreamExt, stream};
use k8s_openapi::{
    api::{
        admissionregistration::v1::ValidatingAdmissionPolicyBinding,
        authorization::v1::{
            ResourceAttributes, ResourceRule, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
            SelfSubjectRulesReview, SelfSubjectRulesReviewSpec,
        },
        coordination::v1,
        core::v1::{Namespace as NamespaceObject, ResourceQuota},
    },
    apimachinery::pkg::apis::meta::v1::APIGroup,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, PostParams},
    client::Body,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use time::{OffsetDateTime, PrimitiveDateTime, macros::format_description};
use tokio::time::sleep;

use crate::{kube::call_within, retry::with_deadline};

/// The deadline of one call.
pub(super) const DEADLINE: Duration = Duration::from_secs(4);
/// The deadline of the client's own preparations, such as a program that prints a token.
const CONNECT_DEADLINE: Duration = Duration::from_secs(8);
/// How many calls are in flight.
const CONCURRENT: usize = 8;
/// The time between two reads of a Lease: longer than the interval of its renewals.
const NEXT_RENEWAL: Duration = Duration::from_secs(4);
/// The largest answer to `GET /version`, in bytes.
const MAX_VERSION: usize = 64 * 1024;

/// The facts about a cluster that answers.
pub(super) struct Cluster {
    pub(super) namespace: Namespace,
    /// The uid of the namespace, if it is known.
    pub(super) uid: Option<String>,
    pub(super) lease: Lease,
    pub(super) crd: Option<Crd>,
    pub(super) admission: Admission,
    pub(super) quotas: Quotas,
    pub(super) access: Vec<(Permission, Access)>,
    pub(super) rules: Result<Vec<ResourceRule>, String>,
}

/// The time of the API server, and of this machine when it answered.
pub(super) type Clock = Option<(OffsetDateTime, OffsetDateTime)>;

/// Asks the API server for its version and time.
pub(super) async fn connect(kubeconfig: Option<&Path>) -> (Server, Clock, Option<Client>) {
    let client = match with_deadline(CONNECT_DEADLINE, crate::kube::connect(kubeconfig)).await {
        Ok(Ok(client)) => client,
        Ok(Err(error)) => return (Server::NoConfiguration(error), None, None),
        Err(error) => return (Server::NoConfiguration(error.to_string()), None, None),
    };
    match with_deadline(DEADLINE, version(&client)).await {
        Ok(Ok((server, clock))) => (server, clock, Some(client)),
        Ok(Err(error)) => (Server::Unreachable(error), None, None),
        Err(error) => (Server::Unreachable(error.to_string()), None, None),
    }
}

async fn version(client: &Client) -> Result<(Server, Clock), String> {
    let request = Request::get("/version").body(Body::empty()).map_err(|error| error.to_string())?;
    let answer = client.send(request).await.map_err(|error| crate::kube::chain(&error))?;
    let here = OffsetDateTime::now_utc();
    let date = answer.headers().get(DATE).and_then(|date| date.to_str().ok()).and_then(parse_date);
    let clock = date.map(|time| (time, here));
    if !answer.status().is_success() {
        let status = answer.status();
        return Err(format!("GET /version: {status}"));
    }
    let body = axum::body::to_bytes(axum::body::Body::new(answer.into_body()), MAX_VERSION).await;
    let body: Value = serde_json::from_slice(&body.map_err(|error| error.to_string())?)
        .map_err(|error| format!("GET /version: unexpected answer: {error}"))?;
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok((Server::Version { major: text("major"), minor: text("minor"), text: text("gitVersion") }, clock))
}

/// A date of HTTP: `Sat, 28 Nov 2026 12:09:05 GMT`.
fn parse_date(text: &str) -> Option<OffsetDateTime> {
    let format = format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    PrimitiveDateTime::parse(text, format).ok().map(PrimitiveDateTime::assume_utc)
}

impl Cluster {
    /// Reads everything.
    pub(super) async fn read(client: &Client, place: &Place, server_clock: Clock) -> Self {
        let crd = async { if place.job_templates { Some(crd(client).await) } else { None } };
        let ((namespace, uid), lease, crd, admission, quotas, access, rules) = tokio::join!(
            namespace(client, &place.namespace),
            lease(client, place, server_clock),
            crd,
            admission(client, &place.namespace),
            quotas(client, &place.namespace),
            access(client, place),
            rules(client, &place.namespace),
        );
        Self { namespace, uid, lease, crd, admission, quotas, access, rules }
    }
}

async fn namespace(client: &Client, name: &str) -> (Namespace, Option<String>) {
    let api: Api<NamespaceObject> = Api::all(client.clone());
    let found = match call_within(DEADLINE, api.get(name)).await {
        Ok(namespace) => namespace,
        Err(error) => {
            let text = error.to_string();
            let state = match error.code() {
                Some(404) => Namespace::Missing,
                Some(401) => Namespace::Unauthorized(text),
                Some(403) => Namespace::Forbidden(text),
                _ => Namespace::Unknown(text),
            };
            return (state, None);
        }
    };
    let is_terminating = found.metadata.deletion_timestamp.is_some();
    (if is_terminating { Namespace::Terminating } else { Namespace::Active }, found.uid())
}

async fn lease(client: &Client, place: &Place, server_clock: Clock) -> Lease {
    let api: Api<v1::Lease> = Api::namespaced(client.clone(), &place.lease_namespace);
    let read = async || call_within(DEADLINE, api.get_opt(&place.lease)).await;
    let first = match read().await {
        Ok(Some(lease)) => lease,
        Ok(None) => return Lease::Missing,
        Err(error) => return Lease::Unknown(error.to_string()),
    };
    let holder =
        |lease: &v1::Lease| lease.spec.as_ref()?.holder_identity.clone().filter(|name| !name.is_empty());
    let Some(name) = holder(&first) else { return Lease::Released };
    let skew = server_clock.map(|(there, here)| there - here).unwrap_or_default();
    let age = |lease: &v1::Lease| -> Option<Duration> {
        let renewed = lease.spec.as_ref()?.renew_time.as_ref()?.0;
        let renewed = OffsetDateTime::from_unix_timestamp_nanos(renewed.as_nanosecond()).ok()?;
        Some((OffsetDateTime::now_utc() + skew - renewed).try_into().unwrap_or_default())
    };
    if age(&first).is_some_and(|age| age < DURATION) {
        return Lease::Held { holder: name, age: age(&first), is_renewed: true };
    }
    // The clock of the holder may be wrong: a renewal counts, not its time.
    sleep(NEXT_RENEWAL).await;
    match read().await {
        Ok(Some(second)) => {
            let is_renewed =
                second.resource_version() != first.resource_version() && holder(&second).is_some();
            Lease::Held { holder: holder(&second).unwrap_or(name), age: age(&second), is_renewed }
        }
        Ok(None) => Lease::Missing,
        Err(error) => Lease::Unknown(error.to_string()),
    }
}

async fn crd(client: &Client) -> Crd {
    let (group, version) = API_VERSION.split_once('/').unwrap_or_default();
    let request = Request::get(format!("/apis/{group}")).body(Vec::new());
    let Ok(request) = request else { return Crd::Unknown(format!("not a path: {group}")) };
    match call_within(DEADLINE, client.request::<APIGroup>(request)).await {
        Ok(found) => {
            let versions: Vec<_> = found.versions.into_iter().map(|served| served.version).collect();
            if !versions.iter().any(|served| served == version) {
                return Crd::Other(versions);
            }
            Crd::Served
        }
        Err(error) if error.code() == Some(404) => Crd::Missing,
        Err(error) => Crd::Unknown(format!("{KIND}: {error}")),
    }
}

async fn list<K>(api: Api<K>) -> Result<Vec<K>, CallError>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    /// More than a namespace has, and few enough for one answer.
    const LIMIT: u32 = 500;
    let params = ListParams::default().limit(LIMIT);
    call_within(DEADLINE, api.list(&params)).await.map(|found| found.items)
}

async fn admission(client: &Client, namespace: &str) -> Admission {
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
    let bindings = match list(bindings).await {
        Ok(bindings) => bindings,
        Err(error) if error.code() == Some(403) => return Admission::Forbidden,
        Err(error) => return Admission::Unknown(error.to_string()),
    };
    let selects = |binding: &&ValidatingAdmissionPolicyBinding| {
        let selector = binding.spec.as_ref()?.match_resources.as_ref()?.namespace_selector.as_ref()?;
        Some(selector.match_labels.as_ref()?.get("kubernetes.io/metadata.name")? == namespace)
    };
    let denies = |binding: &&ValidatingAdmissionPolicyBinding| {
        let actions = binding.spec.as_ref().and_then(|spec| spec.validation_actions.as_ref());
        actions.is_some_and(|actions| actions.iter().any(|action| action == "Deny"))
    };
    let selecting: Vec<_> = bindings.iter().filter(|binding| selects(binding) == Some(true)).collect();
    match (selecting.iter().copied().find(denies), selecting.first()) {
        (Some(binding), _) => Admission::Denies(binding.name_any()),
        (None, Some(binding)) => Admission::Audits(binding.name_any()),
        (None, None) => Admission::Missing,
    }
}

async fn quotas(client: &Client, namespace: &str) -> Quotas {
    let quotas: Vec<ResourceQuota> = match list(Api::namespaced(client.clone(), namespace)).await {
        Ok(quotas) => quotas,
        Err(error) if error.code() == Some(403) => return Quotas::Forbidden,
        Err(error) => return Quotas::Unknown(error.to_string()),
    };
    let exhausted = quotas.iter().flat_map(|quota| {
        let (hard, used) = quota.status.clone().map(|status| (status.hard, status.used)).unwrap_or_default();
        let (hard, used) = (hard.unwrap_or_default(), used.unwrap_or_default());
        let full = hard.into_iter().filter(move |(resource, hard)| {
            used.get(resource).is_some_and(|used| is_reached(&used.0, &hard.0))
        });
        let quota = quota.name_any();
        full.map(move |(resource, hard)| Exhausted { quota: quota.clone(), resource, hard: hard.0 })
    });
    Quotas::Read(quotas.len(), exhausted.collect())
}

async fn access(client: &Client, place: &Place) -> Vec<(Permission, Access)> {
    let permissions = dispatcher_core::doctor::rbac::permissions(place);
    let reviews = stream::iter(permissions).map(|permission| async {
        let access = review(client, &permission).await;
        (permission, access)
    });
    reviews.buffered(CONCURRENT).collect().await
}

async fn review(client: &Client, permission: &Permission) -> Access {
    let (resource, subresource) = match permission.rule.resource.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
        None => (permission.rule.resource, None),
    };
    let attributes = ResourceAttributes {
        namespace: Some(permission.namespace.clone()),
        verb: Some(permission.verb.to_owned()),
        group: Some(permission.rule.group.to_owned()),
        resource: Some(resource.to_owned()),
        subresource,
        name: permission.name.clone(),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec {
        resource_attributes: Some(attributes),
        ..SelfSubjectAccessReviewSpec::default()
    };
    let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    match create(client, &review).await {
        Ok(answer) if answer.status.as_ref().is_some_and(|status| status.allowed) => Access::Allowed,
        Ok(_) => Access::Denied,
        Err(error) => Access::Unknown(error.to_string()),
    }
}

async fn rules(client: &Client, namespace: &str) -> Result<Vec<ResourceRule>, String> {
    let spec = SelfSubjectRulesReviewSpec { namespace: Some(namespace.to_owned()) };
    let review = SelfSubjectRulesReview { spec, ..SelfSubjectRulesReview::default() };
    let answer = create(client, &review).await.map_err(|error| error.to_string())?;
    Ok(answer.status.map(|status| status.resource_rules).unwrap_or_default())
}

/// A review. It is a question, and nothing is stored.
async fn create<K>(client: &Client, review: &K) -> Result<K, CallError>
where
    K: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
{
    call_within(DEADLINE, Api::<K>::all(client.clone()).create(&PostParams::default(), review)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn date_of_http_is_parsed() {
        let date = parse_date("Sat, 28 Nov 2026 12:09:05 GMT").unwrap();
        assert_eq!(date, time::macros::datetime!(2026-11-28 12:09:05 UTC));
        assert_eq!(parse_date("yesterday"), None);
    }
}
