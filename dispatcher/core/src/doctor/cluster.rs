//! The API server, the namespace, and its objects that decide what happens to Jobs.

use std::cmp::Ordering;

use crate::{
    doctor::{Finding, Section, links},
    template::compare_quantities,
    versions,
};

const S: Section = Section::Kubernetes;

/// The API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// Its version.
    Version {
        /// For example `1`.
        major: String,
        /// For example `33`.
        minor: String,
        /// For example `v1.33.2`.
        text: String,
    },
    /// The kubeconfig cannot be used.
    NoConfiguration(String),
    /// It does not answer, or with an error.
    Unreachable(String),
}

impl Server {
    /// Whether this is the cluster of `dispatcher dev`, which ignores `ServiceAccounts`, Secrets and
    /// `PriorityClasses`.
    #[must_use]
    pub fn is_local_cluster(&self) -> bool {
        matches!(self, Self::Version { text, .. } if text.ends_with("-local-cluster"))
    }
}

/// The finding about the API server.
#[must_use]
pub fn server(server: &Server) -> Finding {
    let subject = "API server";
    match server {
        Server::Version { major, minor, text } if versions::is_kubernetes_too_old(major, minor) => {
            let (major, minor) = versions::OLDEST_KUBERNETES;
            let message = format!("Kubernetes {text} is not supported ({major}.{minor} or newer is needed)");
            S.error(subject, message).advise("update the cluster").see(links::INSTALL)
        }
        Server::Version { text, .. } => S.ok(subject, format!("answers (Kubernetes {text})")),
        Server::NoConfiguration(error) => S
            .error(subject, error)
            .advise("set KUBECONFIG to a readable kubeconfig, or run in a pod with a ServiceAccount token")
            .see(links::STARTUP_ERRORS),
        Server::Unreachable(error) => S
            .error(subject, error)
            .advise(
                "check the server address in the kubeconfig (KUBECONFIG), its certificate authority, and that a \
                 NetworkPolicy or firewall permits the connection",
            )
            .see(links::STARTUP_ERRORS),
    }
}

/// The namespace of the Jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespace {
    /// It exists.
    Active,
    /// It is being deleted.
    Terminating,
    /// It does not exist.
    Missing,
    /// The credentials are refused (401).
    Unauthorized(String),
    /// It may not be read (403).
    Forbidden(String),
    /// No answer, or another error.
    Unknown(String),
}

/// The finding about the namespace with this name.
#[must_use]
pub fn namespace(state: &Namespace, name: &str) -> Finding {
    let subject = format!("namespace {name}");
    match state {
        Namespace::Active => S.ok(subject, "exists"),
        Namespace::Terminating => S
            .error(subject, "is being deleted: no Job can be created")
            .advise(format!(
                "wait until it is gone, then `kubectl create namespace {name}` and apply the Role again"
            ))
            .see(links::OBJECTS),
        Namespace::Missing => S
            .error(subject, "does not exist")
            .advise(format!("`kubectl create namespace {name}`, or correct DISPATCHER_NAMESPACE"))
            .see(links::OBJECTS),
        Namespace::Unauthorized(error) => S
            .error(subject, format!("the API server rejects the credentials: {error}"))
            .advise("renew the token or certificate of the kubeconfig (KUBECONFIG)")
            .see(links::STARTUP_ERRORS),
        Namespace::Forbidden(error) => S
            .error(subject, format!("may not be read: {error}"))
            .advise(format!(
                "apply the Role and RoleBinding of deploy/base/rbac.yaml in the namespace {name}, or correct \
                 DISPATCHER_NAMESPACE"
            ))
            .see(links::RBAC),
        Namespace::Unknown(error) => {
            S.error(subject, error).advise("check the API server").see(links::STARTUP_ERRORS)
        }
    }
}

/// The `CustomResourceDefinition` of `JobTemplate` objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Crd {
    /// It serves the version that the dispatcher uses.
    Served,
    /// It serves other versions only.
    Other(Vec<String>),
    /// It does not exist.
    Missing,
    /// No answer, or an error.
    Unknown(String),
}

/// The finding about the `CustomResourceDefinition`, whose version should be `api_version`.
#[must_use]
pub fn crd(crd: &Crd, api_version: &str) -> Finding {
    let subject = "CustomResourceDefinition of JobTemplates";
    let apply = "`kubectl apply -f deploy/base/crd.yaml`";
    match crd {
        Crd::Served => S.ok(subject, format!("serves {api_version}")),
        Crd::Other(versions) => S
            .error(subject, format!("serves {}, and not {api_version}", versions.join(", ")))
            .advise(format!("{apply} of this version of the dispatcher"))
            .see(links::JOB_TEMPLATES),
        Crd::Missing => S
            .error(subject, "is not installed, and DISPATCHER_JOB_TEMPLATES is on")
            .advise(format!("{apply}, or unset DISPATCHER_JOB_TEMPLATES"))
            .see(links::JOB_TEMPLATES),
        Crd::Unknown(error) => S.skipped(subject, error),
    }
}

/// The admission policy of the dispatcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// A binding denies Jobs of this namespace.
    Denies(String),
    /// A binding selects this namespace, and only warns or audits.
    Audits(String),
    /// No binding selects this namespace.
    Missing,
    /// The bindings may not be read. The shipped Role does not permit it.
    Forbidden,
    /// No answer, or an error.
    Unknown(String),
}

/// The finding about the admission policy.
#[must_use]
pub fn admission(state: &Admission) -> Finding {
    let subject = "admission policy";
    let apply = "apply deploy/base/admission.yaml: it limits what a compromised dispatcher can create";
    match state {
        Admission::Denies(binding) => S.ok(subject, format!("{binding} denies forbidden Jobs")),
        Admission::Audits(binding) => S
            .warning(subject, format!("{binding} denies nothing: `Deny` is not among its validationActions"))
            .advise(format!("set `validationActions: [Deny]` of {binding}"))
            .see(links::OBJECTS),
        Admission::Missing => {
            S.warning(subject, "no ValidatingAdmissionPolicyBinding selects this namespace").advise(apply).see(links::OBJECTS)
        }
        Admission::Forbidden => S.skipped(
            subject,
            "the Role of the dispatcher does not permit to read it. An administrator sees it with `kubectl get \
             validatingadmissionpolicybindings`",
        ),
        Admission::Unknown(error) => S.skipped(subject, error),
    }
}

/// One resource of a `ResourceQuota` that is exhausted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exhausted {
    /// The quota.
    pub quota: String,
    /// The resource, such as `count/jobs.batch`.
    pub resource: String,
    /// Its limit.
    pub hard: String,
}

/// Whether a quantity has reached its limit.
#[must_use]
pub fn is_reached(used: &str, hard: &str) -> bool {
    compare_quantities(used, hard).is_some_and(Ordering::is_ge)
}

/// The quotas of the namespace, as far as they can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Quotas {
    /// Those that are exhausted, of this number.
    Read(usize, Vec<Exhausted>),
    /// They may not be read. The shipped Role does not permit it.
    Forbidden,
    /// No answer, or an error.
    Unknown(String),
}

/// The findings about the quotas of the namespace with this name.
#[must_use]
pub fn quotas(state: &Quotas, namespace: &str) -> Vec<Finding> {
    let subject = "quotas";
    match state {
        Quotas::Read(count, exhausted) if exhausted.is_empty() => {
            vec![S.ok(subject, format!("none of {count} is exhausted"))]
        }
        Quotas::Read(_, exhausted) => {
            let finding = |Exhausted { quota, resource, hard }: &Exhausted| {
                let message = format!("{resource} is exhausted (limit: {hard}): requests or pods wait");
                let advice = format!(
                    "raise it (`kubectl --namespace {namespace} edit resourcequota {quota}`), or shorten \
                     ttlSecondsAfterFinished of the templates, since finished Jobs count"
                );
                S.warning(format!("quota {quota}"), message).advise(advice).see(links::OBJECTS)
            };
            exhausted.iter().map(finding).collect()
        }
        Quotas::Forbidden => vec![S.skipped(
            subject,
            format!(
                "the Role of the dispatcher does not permit to read them. An administrator sees them with \
                 `kubectl --namespace {namespace} describe quota`"
            ),
        )],
        Quotas::Unknown(error) => vec![S.skipped(subject, error)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Severity;

    fn text(error: &str) -> String {
        error.to_owned()
    }

    /// The severity and the advice.
    fn judged(finding: Finding) -> (Severity, String) {
        (finding.severity, finding.advice.unwrap_or_default())
    }

    fn assert_judged(finding: Finding, severity: Severity, advice: &str) {
        let (found, text) = judged(finding);
        assert!(found == severity && text.contains(advice), "{found:?}: {text}");
    }

    #[test]
    fn api_server_must_answer_and_be_new_enough() {
        let version = |minor: &str| Server::Version {
            major: text("1"),
            minor: text(minor),
            text: format!("v1.{minor}.0"),
        };
        assert_judged(server(&version("33")), Severity::Ok, "");
        assert!(!version("33").is_local_cluster());
        assert_judged(server(&version("29")), Severity::Error, "update the cluster");
        assert_judged(server(&Server::NoConfiguration(text("x"))), Severity::Error, "set KUBECONFIG");
        assert_judged(server(&Server::Unreachable(text("x"))), Severity::Error, "server address");
    }

    #[test]
    fn namespace_must_exist_and_be_readable() {
        assert_judged(namespace(&Namespace::Active, "jobs"), Severity::Ok, "");
        for (state, advice) in [
            (Namespace::Missing, "kubectl create namespace jobs"),
            (Namespace::Terminating, "wait until it is gone"),
            (Namespace::Unauthorized(text("x")), "renew the token"),
            (Namespace::Forbidden(text("x")), "RoleBinding of deploy/base/rbac.yaml"),
            (Namespace::Unknown(text("x")), "check the API server"),
        ] {
            assert_judged(namespace(&state, "jobs"), Severity::Error, advice);
        }
    }

    #[test]
    fn definition_of_job_templates_must_serve_the_version() {
        let of = |state| crd(&state, "natsjobs.dev/v1alpha1");
        assert_judged(of(Crd::Served), Severity::Ok, "");
        assert_judged(of(Crd::Missing), Severity::Error, "kubectl apply -f deploy/base/crd.yaml");
        assert_judged(of(Crd::Other(vec![text("v9")])), Severity::Error, "of this version");
        assert_judged(of(Crd::Unknown(text("x"))), Severity::Skipped, "");
    }

    #[test]
    fn admission_policy_must_deny() {
        assert_judged(admission(&Admission::Denies(text("b"))), Severity::Ok, "");
        assert_judged(
            admission(&Admission::Audits(text("b"))),
            Severity::Warning,
            "validationActions: [Deny]",
        );
        assert_judged(admission(&Admission::Missing), Severity::Warning, "deploy/base/admission.yaml");
        assert_judged(admission(&Admission::Forbidden), Severity::Skipped, "");
    }

    #[test]
    fn quantities_are_compared_by_value() {
        assert!(is_reached("20k", "20k") && is_reached("20000", "20k") && is_reached("2Gi", "1Gi"));
        assert!(!is_reached("19999", "20k") && !is_reached("0", "500") && !is_reached("x", "x"));
    }

    #[test]
    fn exhausted_quota_is_a_warning_with_its_limit() {
        let exhausted =
            Exhausted { quota: text("jobs"), resource: text("count/jobs.batch"), hard: text("20k") };
        let found = quotas(&Quotas::Read(1, vec![exhausted]), "jobs").remove(0);
        assert!(found.message.contains("count/jobs.batch is exhausted (limit: 20k)"));
        assert_judged(found, Severity::Warning, "edit resourcequota jobs");
        assert_judged(quotas(&Quotas::Read(2, vec![]), "jobs").remove(0), Severity::Ok, "");
        assert_judged(quotas(&Quotas::Forbidden, "jobs").remove(0), Severity::Skipped, "");
    }
}
