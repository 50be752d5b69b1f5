//! The Lease: whether a replica leads.

use std::time::Duration;

use crate::doctor::{Finding, Section, consumers::duration, links};

const S: Section = Section::Kubernetes;

/// What two reads of the Lease showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lease {
    /// It does not exist.
    Missing,
    /// No replica holds it.
    Released,
    /// A replica holds it.
    Held {
        /// The replica.
        holder: String,
        /// The time since its last renewal, by the clock of the API server.
        age: Option<Duration>,
        /// Whether the renewal is recent, or the Lease changed between the reads.
        is_renewed: bool,
    },
    /// No answer, or an error.
    Unknown(String),
}

/// The finding about the Lease with this name.
#[must_use]
pub fn finding(lease: &Lease, name: &str, namespace: &str) -> Finding {
    let subject = format!("Lease {name}");
    let start = format!(
        "if a dispatcher should run, look at its pods: `kubectl get pods --all-namespaces --selector \
         app.kubernetes.io/name=dispatcher`. Replicas must have the same DISPATCHER_LEASE_NAME and namespace \
         ({namespace})"
    );
    match lease {
        Lease::Missing => S
            .warning(subject, "does not exist: no dispatcher has started here, so nothing is published")
            .advise(start)
            .see(links::REPLICAS),
        Lease::Released => S
            .warning(subject, "has no holder: no dispatcher is running, so nothing is published")
            .advise(start)
            .see(links::REPLICAS),
        Lease::Held { holder, age, is_renewed: true } => {
            let age = age.map(|age| format!(", renewed {} ago", duration(age))).unwrap_or_default();
            S.ok(subject, format!("{holder} is the leader{age}"))
        }
        Lease::Held { holder, age, is_renewed: false } => {
            let age = age.map(|age| format!(" for {}", duration(age))).unwrap_or_default();
            let message = format!("{holder} holds it and has not renewed it{age}: no replica is the leader");
            S.warning(subject, message).advise(start).see(links::REPLICAS)
        }
        Lease::Unknown(error) => S.skipped(subject, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Severity;

    #[test]
    fn only_a_renewed_lease_is_ok() {
        let held = |is_renewed| Lease::Held {
            holder: "dispatcher-0".to_owned(),
            age: Some(Duration::from_secs(300)),
            is_renewed,
        };
        let of = |lease| finding(&lease, "dispatcher", "jobs");
        assert_eq!(of(held(true)).message, "dispatcher-0 is the leader, renewed 5 min ago");
        assert_eq!(of(held(true)).severity, Severity::Ok);
        for lease in [Lease::Missing, Lease::Released, held(false)] {
            let found = of(lease);
            assert_eq!(found.severity, Severity::Warning);
            assert!(found.advice.unwrap().contains("look at its pods"));
        }
        assert_eq!(of(Lease::Unknown("x".to_owned())).severity, Severity::Skipped);
    }
}
