//! The pages of the documentation that findings refer to. A test checks that they exist.

/// Errors of settings.
pub const STARTUP_ERRORS: &str = "docs/configuration.md#startup-errors";
/// Removed templates.
pub const REMOVING_TEMPLATES: &str = "docs/configuration.md#adding-and-removing-templates";
/// Replicas and the Lease.
pub const REPLICAS: &str = "docs/configuration.md#replicas";
/// Requirements of an installation.
pub const INSTALL: &str = "docs/install.md";
/// What the installation creates.
pub const OBJECTS: &str = "docs/install.md#objects";
/// The permissions in Kubernetes.
pub const RBAC: &str = "docs/install.md#permissions";
/// Templates.
pub const TEMPLATES: &str = "docs/templates.md";
/// `JobTemplate` objects.
pub const JOB_TEMPLATES: &str = "docs/templates.md#templates-as-objects";
/// Effects of a wrong clock.
pub const CLOCKS: &str = "docs/troubleshooting.md#clocks";
/// Missing streams.
pub const MISSING_STREAMS: &str = "docs/troubleshooting.md#missing-streams-and-consumers";
/// Requests that wait.
pub const WAITING_REQUESTS: &str = "docs/troubleshooting.md#requests-that-do-not-become-jobs";
/// The settings of streams and consumers.
pub const STREAMS: &str = "nats-config/README.md#streams-and-consumers";
/// The bytes that the streams reserve.
pub const STORE: &str = "nats-config/README.md#store";
/// Copies of the status events.
pub const COPIES: &str = "nats-config/README.md#copies-of-the-status-events";
/// The permissions in NATS.
pub const NATS_PERMISSIONS: &str = "nats-config/README.md#permissions";
/// TLS.
pub const TLS: &str = "nats-config/README.md#tls";

/// All of them.
pub const ALL: [&str; 16] = [
    STARTUP_ERRORS,
    REMOVING_TEMPLATES,
    REPLICAS,
    INSTALL,
    OBJECTS,
    RBAC,
    TEMPLATES,
    JOB_TEMPLATES,
    CLOCKS,
    MISSING_STREAMS,
    WAITING_REQUESTS,
    STREAMS,
    STORE,
    COPIES,
    NATS_PERMISSIONS,
    TLS,
];
