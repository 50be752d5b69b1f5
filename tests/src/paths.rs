//! Where things are: this repository's files, built programs, and the cache that `tests/setup` fills.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// As in `tests/setup`.
const KUBERNETES_VERSION: &str = "v1.37.2";
/// As in `tests/setup`.
const NACK_VERSION: &str = "v0.23.0";
/// As in `tests/setup`.
const PROMETHEUS_OPERATOR_VERSION: &str = "v0.85.0";
/// As in `tests/setup`.
pub const NATS_VERSION: &str = "2.15.1";

/// The root of the repository.
#[must_use]
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in a workspace").to_owned()
}

/// The folder of what is downloaded and built once per machine.
#[must_use]
pub fn cache() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache");
    base.unwrap_or_else(home).join("dispatcher")
}

/// A program of this workspace, built beside the running one.
pub fn built(name: &str) -> Result<PathBuf, String> {
    let exe = std::env::current_exe().map_err(|error| format!("own path: {error}"))?;
    let folders = exe.ancestors().skip(1).take(2);
    folders.map(|folder| folder.join(name)).find(|path| path.is_file()).ok_or_else(|| {
        format!("no program `{name}` beside {}; `cargo build` makes it, `make test` does that", exe.display())
    })
}

/// The one binary with all components of Kubernetes and `kubectl`; the component is its first argument.
pub fn kubernetes() -> Result<PathBuf, String> {
    let module = workspace().join("tests/kubernetes");
    let mut hash = Sha256::new();
    for file in ["go.mod", "go.sum", "main.go"] {
        let path = module.join(file);
        hash.update(std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?);
    }
    let digest: String = hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    cached(&format!("kubernetes-{KUBERNETES_VERSION}-{digest}"))
}

/// A program of Prometheus: `prometheus`, `promtool`. That of the `PATH` where there is one.
pub fn prometheus(name: &str) -> Result<PathBuf, String> {
    program(name).or_else(|_| cached(&format!("prometheus/{name}")))
}

/// The controller of NACK, `jetstream-controller`, or `crds.yaml`, its CRDs.
pub fn nack(name: &str) -> Result<PathBuf, String> {
    cached(&format!("nack-{NACK_VERSION}/{name}"))
}

/// The CRDs of the Prometheus operator, a file for each.
pub fn prometheus_operator_crds() -> Result<PathBuf, String> {
    let path = cache().join(format!("prometheus-operator-crds-{PROMETHEUS_OPERATOR_VERSION}"));
    let missing = || format!("{} is missing; `make setup` gets it", path.display());
    path.is_dir().then(|| path.clone()).ok_or_else(missing)
}

/// The NATS server.
pub fn nats_server() -> Result<PathBuf, String> {
    cached(&format!("nats-server-{NATS_VERSION}"))
}

fn cached(name: &str) -> Result<PathBuf, String> {
    let path = cache().join(name);
    let missing = || format!("{} is missing; `make setup` gets it", path.display());
    path.is_file().then(|| path.clone()).ok_or_else(missing)
}

/// An image saved by `tests/images/build`.
pub fn image(name: &str) -> Result<PathBuf, String> {
    let path = workspace().join("target/images").join(format!("{name}.tar"));
    let missing = || format!("{} is missing; `make test-images` builds it", path.display());
    path.is_file().then(|| path.clone()).ok_or_else(missing)
}

/// A program on the `PATH`, or where Debian keeps those of the system.
pub fn program(name: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let found = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| format!("no program `{name}` here; `make setup` installs it (as root, on Debian)"))
}

/// The library that gives a program a wall clock of its own.
pub fn faketime() -> Result<PathBuf, String> {
    let architecture = std::env::consts::ARCH;
    let path = PathBuf::from(format!("/usr/lib/{architecture}-linux-gnu/faketime/libfaketime.so.1"));
    let missing = || format!("{} is missing; `make setup` installs it (as root, on Debian)", path.display());
    path.is_file().then(|| path.clone()).ok_or_else(missing)
}

/// The file with one line per skipped test.
#[must_use]
pub fn not_local() -> PathBuf {
    workspace().join("target/only-on-kubernetes")
}

/// The file with a line for each test that was skipped.
#[must_use]
pub fn skips() -> PathBuf {
    workspace().join("target/skipped-tests")
}

/// A new folder with a short path (sockets live in it; their paths are limited to 108 bytes).
pub fn temp_dir(name: &str) -> Result<tempfile::TempDir, String> {
    let prefix = format!("testbed-{name}-");
    tempfile::Builder::new()
        .prefix(&prefix)
        .tempdir_in("/tmp")
        .map_err(|error| format!("temporary folder: {error}"))
}

/// The last lines of a log, for the message of a failure.
#[must_use]
pub fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
