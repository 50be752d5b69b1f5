//! Skips tests that this machine cannot run. Skips are counted, and fail on CI.

use std::io::Write;

use crate::paths;

/// Records that the test `name` is skipped: on stderr, and in the file that `make test` prints.
///
/// # Panics
/// With `CI=true`: no test may be skipped there.
pub fn skip(name: &str, reason: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{name} cannot run: {reason}");
    // The test harness captures `eprintln!`.
    let _ = writeln!(std::io::stderr(), "SKIPPED {name}: {reason}");
    let file = std::fs::OpenOptions::new().create(true).append(true).open(paths::skips());
    if let Ok(mut file) = file {
        let _ = writeln!(file, "{name}: {}", reason.replace('\n', " "));
    }
}

/// Records that the test `name` needs a real Kubernetes: on stderr, and in the file that `make
/// test` prints.
pub fn not_local(name: &str, reason: &str) {
    let _ = writeln!(std::io::stderr(), "ONLY ON KUBERNETES {name}: {reason}");
    let file = std::fs::OpenOptions::new().create(true).append(true).open(paths::not_local());
    if let Ok(mut file) = file {
        let _ = writeln!(file, "{name}: {reason}");
    }
}

/// Returns from a test that needs a real Kubernetes if the suite runs on the local cluster.
#[macro_export]
macro_rules! only_on_kubernetes {
    ($reason:expr) => {
        if $crate::kubernetes::is_local() {
            let thread = std::thread::current();
            $crate::skip::not_local(thread.name().unwrap_or("a test"), $reason);
            return;
        }
    };
}

/// Returns from a test that starts a local cluster if the suite runs on Kubernetes. It runs with
/// the suite on the local cluster.
#[macro_export]
macro_rules! only_on_local {
    ($reason:expr) => {
        if !$crate::kubernetes::is_local() {
            println!("runs only with TEST_CLUSTER=local: {}", $reason);
            return;
        }
    };
}

/// The value of an `Ok`; an `Err` skips the calling test with that reason.
///
/// ```text
/// let kubernetes = or_skip!(Kubernetes::shared().await);
/// ```
#[macro_export]
macro_rules! or_skip {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(reason) => {
                let thread = std::thread::current();
                $crate::skip::skip(thread.name().unwrap_or("a test"), &reason.to_string());
                return;
            }
        }
    };
}
