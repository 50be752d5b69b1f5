//! The resources that there are.

/// A resource: where it lives and what it is called.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Resource {
    /// The API group; empty for `v1`.
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) singular: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) short: &'static [&'static str],
    pub(crate) namespaced: bool,
    /// Whether the status is a subresource, which an ordinary update leaves alone.
    pub(crate) has_status: bool,
    /// The fields that a field selector may name, beside name and namespace.
    pub(crate) fields: &'static [&'static str],
}

const PLAIN: Resource = Resource {
    group: "",
    version: "v1",
    plural: "",
    singular: "",
    kind: "",
    short: &[],
    namespaced: true,
    has_status: false,
    fields: &[],
};

pub(crate) static NAMESPACES: Resource = Resource {
    plural: "namespaces",
    singular: "namespace",
    kind: "Namespace",
    short: &["ns"],
    namespaced: false,
    has_status: true,
    fields: &["status.phase"],
    ..PLAIN
};

pub(crate) static JOBS: Resource = Resource {
    group: "batch",
    plural: "jobs",
    singular: "job",
    kind: "Job",
    has_status: true,
    fields: &["status.successful"],
    ..PLAIN
};

pub(crate) static PODS: Resource = Resource {
    plural: "pods",
    singular: "pod",
    kind: "Pod",
    short: &["po"],
    has_status: true,
    fields: &[
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.phase",
    ],
    ..PLAIN
};

pub(crate) static EVENTS: Resource = Resource {
    plural: "events",
    singular: "event",
    kind: "Event",
    short: &["ev"],
    fields: &[
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "type",
    ],
    ..PLAIN
};

pub(crate) static LEASES: Resource =
    Resource { group: "coordination.k8s.io", plural: "leases", singular: "lease", kind: "Lease", ..PLAIN };

pub(crate) static SERVICE_ACCOUNTS: Resource = Resource {
    plural: "serviceaccounts",
    singular: "serviceaccount",
    kind: "ServiceAccount",
    short: &["sa"],
    ..PLAIN
};

/// Only created, never kept.
pub(crate) static ACCESS_REVIEWS: Resource = Resource {
    group: "authorization.k8s.io",
    plural: "selfsubjectaccessreviews",
    singular: "selfsubjectaccessreview",
    kind: "SelfSubjectAccessReview",
    namespaced: false,
    ..PLAIN
};

/// No resource: what errors of their options name.
pub(crate) static DELETE_OPTIONS: Resource =
    Resource { group: "meta.k8s.io", kind: "DeleteOptions", ..PLAIN };
/// See [`DELETE_OPTIONS`].
pub(crate) static LIST_OPTIONS: Resource = Resource { group: "meta.k8s.io", kind: "ListOptions", ..PLAIN };

/// Every resource.
pub(crate) static ALL: [&Resource; 7] =
    [&NAMESPACES, &JOBS, &PODS, &EVENTS, &LEASES, &SERVICE_ACCOUNTS, &ACCESS_REVIEWS];

impl Resource {
    /// The resource at a path.
    pub(crate) fn find(group: &str, version: &str, plural: &str) -> Option<&'static Self> {
        ALL.into_iter().find(|r| r.group == group && r.version == version && r.plural == plural)
    }

    /// The resource that an `apiVersion` and a `kind` name.
    pub(crate) fn of_kind(api_version: &str, kind: &str) -> Option<&'static Self> {
        ALL.into_iter().find(|r| r.api_version() == api_version && r.kind == kind)
    }

    /// As objects write it: `batch/v1`, `v1`.
    pub(crate) fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// As errors write it: `jobs.batch`, `pods`.
    pub(crate) fn qualified(&self) -> String {
        qualify(self.plural, self.group)
    }

    /// As errors of validation write it: `Job.batch`, `Pod`.
    pub(crate) fn qualified_kind(&self) -> String {
        qualify(self.kind, self.group)
    }
}

fn qualify(name: &str, group: &str) -> String {
    match group {
        "" => name.to_owned(),
        group => format!("{name}.{group}"),
    }
}
