//! The supported resources.

/// A resource type: its API group, names and properties.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Resource {
    /// The API group; empty for the core group.
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) singular: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) short_names: &'static [&'static str],
    pub(crate) namespaced: bool,
    /// Whether the resource has a `/status` subresource. If so, an update of the object itself does
    /// not change its status.
    pub(crate) has_status: bool,
    /// The fields for field selectors, in addition to name and namespace.
    pub(crate) selectable_fields: &'static [&'static str],
}

const DEFAULTS: Resource = Resource {
    group: "",
    version: "v1",
    plural: "",
    singular: "",
    kind: "",
    short_names: &[],
    namespaced: true,
    has_status: false,
    selectable_fields: &[],
};

pub(crate) static NAMESPACES: Resource = Resource {
    plural: "namespaces",
    singular: "namespace",
    kind: "Namespace",
    short_names: &["ns"],
    namespaced: false,
    has_status: true,
    selectable_fields: &["status.phase"],
    ..DEFAULTS
};

pub(crate) static JOBS: Resource = Resource {
    group: "batch",
    plural: "jobs",
    singular: "job",
    kind: "Job",
    has_status: true,
    selectable_fields: &["status.successful"],
    ..DEFAULTS
};

pub(crate) static PODS: Resource = Resource {
    plural: "pods",
    singular: "pod",
    kind: "Pod",
    short_names: &["po"],
    has_status: true,
    selectable_fields: &[
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.phase",
    ],
    ..DEFAULTS
};

pub(crate) static EVENTS: Resource = Resource {
    plural: "events",
    singular: "event",
    kind: "Event",
    short_names: &["ev"],
    selectable_fields: &[
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
    ..DEFAULTS
};

pub(crate) static LEASES: Resource =
    Resource { group: "coordination.k8s.io", plural: "leases", singular: "lease", kind: "Lease", ..DEFAULTS };

pub(crate) static SERVICE_ACCOUNTS: Resource = Resource {
    plural: "serviceaccounts",
    singular: "serviceaccount",
    kind: "ServiceAccount",
    short_names: &["sa"],
    ..DEFAULTS
};

/// The API server answers each review and never stores it.
pub(crate) static ACCESS_REVIEWS: Resource = Resource {
    group: "authorization.k8s.io",
    plural: "selfsubjectaccessreviews",
    singular: "selfsubjectaccessreview",
    kind: "SelfSubjectAccessReview",
    namespaced: false,
    ..DEFAULTS
};

/// Not a resource; used in validation errors of request options.
pub(crate) static DELETE_OPTIONS: Resource =
    Resource { group: "meta.k8s.io", kind: "DeleteOptions", ..DEFAULTS };
/// See [`DELETE_OPTIONS`].
pub(crate) static LIST_OPTIONS: Resource = Resource { group: "meta.k8s.io", kind: "ListOptions", ..DEFAULTS };

/// All resources.
pub(crate) static ALL: [&Resource; 7] =
    [&NAMESPACES, &JOBS, &PODS, &EVENTS, &LEASES, &SERVICE_ACCOUNTS, &ACCESS_REVIEWS];

impl Resource {
    /// The resource of a path.
    pub(crate) fn find(group: &str, version: &str, plural: &str) -> Option<&'static Self> {
        ALL.into_iter().find(|r| r.group == group && r.version == version && r.plural == plural)
    }

    /// The resource of objects with this `apiVersion` and `kind`.
    pub(crate) fn find_kind(api_version: &str, kind: &str) -> Option<&'static Self> {
        ALL.into_iter().find(|r| r.api_version() == api_version && r.kind == kind)
    }

    /// The `apiVersion` of objects: `batch/v1`, `v1`.
    pub(crate) fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// The name in errors: `jobs.batch`, `pods`.
    pub(crate) fn qualified(&self) -> String {
        with_group(self.plural, self.group)
    }

    /// The kind in validation errors: `Job.batch`, `Pod`.
    pub(crate) fn qualified_kind(&self) -> String {
        with_group(self.kind, self.group)
    }
}

fn with_group(name: &str, group: &str) -> String {
    match group {
        "" => name.to_owned(),
        group => format!("{name}.{group}"),
    }
}
