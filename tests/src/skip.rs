//! Tests that cannot run on a machine say so and are counted; on CI they fail.

use std::io::Write;

use crate::paths;

/// Notes that the test `name` is skipped and why: on stderr and as a line of the file that `make test` counts.
///
/// # Panics
/// With `CI=true`, where nothing may be skipped.
pub fn skip(name: &str, reason: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{name} cannot run: {reason}");
    // Not `eprintln!`: the test harness would keep it from the reader.
    let _ = writeln!(std::io::stderr(), "SKIPPED {name}: {reason}");
    let file = std::fs::OpenOptions::new().create(true).append(true).open(paths::skips());
    if let Ok(mut file) = file {
        let _ = writeln!(file, "{name}: {}", reason.replace('\n', " "));
    }
}

/// Notes that the test `name` has no meaning on the local cluster and why: on stderr and as a line of the file that
/// `make test` prints.
pub fn not_local(name: &str, reason: &str) {
    let _ = writeln!(std::io::stderr(), "ONLY ON KUBERNETES {name}: {reason}");
    let file = std::fs::OpenOptions::new().create(true).append(true).open(paths::not_local());
    if let Ok(mut file) = file {
        let _ = writeln!(file, "{name}: {reason}");
    }
}

/// Ends the calling test where the suite runs on the local cluster, with the reason why it can run on Kubernetes only.
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

/// Ends the calling test where the suite runs on Kubernetes, since it brings a local cluster of its own: it runs with the
/// suite on that one.
#[macro_export]
macro_rules! only_on_local {
    ($reason:expr) => {
        if !$crate::kubernetes::is_local() {
            println!("runs with TEST_CLUSTER=local only: {}", $reason);
            return;
        }
    };
}

/// The value of an `Ok`; with an `Err` the calling test is skipped with that reason.
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
