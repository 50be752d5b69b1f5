//! Which versions of NATS and Kubernetes are supported.

/// The oldest nats-server with the required `JetStream` features (subject transforms).
pub const OLDEST_NATS: (u64, u64) = (2, 10);
/// The oldest Kubernetes (`ValidatingAdmissionPolicy`).
pub const OLDEST_KUBERNETES: (u64, u64) = (1, 30);

/// Whether a nats-server of this version is too old. A version that is no number is not.
#[must_use]
pub fn is_too_old(version: &str) -> bool {
    let mut numbers = version.split('.').map_while(|part| part.parse::<u64>().ok());
    matches!((numbers.next(), numbers.next()), (Some(major), Some(minor)) if (major, minor) < OLDEST_NATS)
}

/// Whether the server is a release of 2.10 whose consumers can skip a stored message (nats-server
/// pull request 6526).
#[must_use]
pub fn skips_messages(version: &str) -> bool {
    let patch = version.strip_prefix("2.10.").and_then(|rest| rest.split('-').next());
    patch.and_then(|patch| patch.parse::<u64>().ok()).is_some_and(|patch| patch < 26)
}

/// Whether a Kubernetes of this version is too old. Some providers append `+` to the minor version.
#[must_use]
pub fn is_kubernetes_too_old(major: &str, minor: &str) -> bool {
    let number = |text: &str| text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().ok();
    number(major).zip(number(minor)).is_some_and(|version| version < OLDEST_KUBERNETES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_server_is_refused() {
        assert!(is_too_old("2.9.25"));
        for version in ["2.10.0", "2.15.1", "3.0.0-dev", "unknown"] {
            assert!(!is_too_old(version), "{version}");
        }
    }

    #[test]
    fn servers_that_skip_messages_are_known() {
        for version in ["2.10.0", "2.10.25", "2.10.25-RC.1"] {
            assert!(skips_messages(version), "{version}");
        }
        for version in ["2.10.26", "2.10.29", "2.11.0", "2.15.1", "3.0.0-dev", "unknown"] {
            assert!(!skips_messages(version), "{version}");
        }
    }

    #[test]
    fn kubernetes_1_30_is_the_oldest() {
        assert!(is_kubernetes_too_old("1", "29") && is_kubernetes_too_old("1", "27+"));
        for (major, minor) in [("1", "30"), ("1", "33+"), ("2", "0"), ("", "")] {
            assert!(!is_kubernetes_too_old(major, minor), "{major}.{minor}");
        }
    }
}
