//! Paths of repository files, built programs, and the cache of `tests/setup`.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// As in `tests/setup`.
const KUBERNETES_VERSION: &str = "v1.37.2";
/// As in `tests/setup`.
const OLDEST_KUBERNETES_VERSION: &str = "v1.30.14";
/// As in `tests/setup`.
const ETCD_VERSION: &str = "v3.6.16";
/// As in `tests/setup`.
const NATS_CLI_VERSION: &str = "v0.5.0";
/// As in `tests/setup`.
const NACK_VERSION: &str = "v0.23.0";
/// As in `tests/setup`.
const KUEUE_VERSION: &str = "v0.17.0";
/// As in `tests/setup`.
const ACTIONLINT_VERSION: &str = "v1.7.12";
/// As in `tests/setup`.
const HELM_VERSION: &str = "v4.3.1";
/// As in `tests/setup`.
const ARGO_EVENTS_VERSION: &str = "v1.9.11";
/// As in `tests/setup`.
const KEDA_VERSION: &str = "v2.21.0";
/// As in `tests/setup`.
const PROMETHEUS_OPERATOR_VERSION: &str = "v0.85.0";
/// As in `tests/setup` and in `dispatcher/core/Cargo.toml`.
const GUNGRAUN_VERSION: &str = "0.20.0";
/// As in `tests/setup`.
pub const NATS_VERSION: &str = "2.15.1";
/// As in `tests/setup`: the oldest release that the dispatcher supports.
pub const OLDEST_NATS_VERSION: &str = "2.10.26";
/// The versions that tests of the server's behaviour run on.
pub const NATS_VERSIONS: [&str; 2] = [OLDEST_NATS_VERSION, NATS_VERSION];

/// The root of the repository.
#[must_use]
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package has a parent folder").to_owned()
}

/// The cache of downloads and builds, shared by all checkouts.
#[must_use]
pub fn cache() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache");
    base.unwrap_or_else(home).join("dispatcher")
}

/// A program of this workspace, next to the running one.
pub fn built(name: &str) -> Result<PathBuf, String> {
    let exe = std::env::current_exe().map_err(|error| format!("path of this program: {error}"))?;
    let folders = exe.ancestors().skip(1).take(2);
    folders
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| format!("`{name}` is missing next to {}; build it with `cargo build`", exe.display()))
}

/// The binary with all components of Kubernetes and `kubectl`. The first argument selects one.
/// `TEST_KUBERNETES=oldest` selects the oldest supported version.
pub fn kubernetes() -> Result<PathBuf, String> {
    let (folder, version) = match is_oldest_kubernetes() {
        true => ("tests/kubernetes-oldest", OLDEST_KUBERNETES_VERSION),
        false => ("tests/kubernetes", KUBERNETES_VERSION),
    };
    let digest = module_hash(folder)?;
    cached(&format!("kubernetes-{version}-{digest}"))
}

/// Whether the tests run on the oldest supported Kubernetes.
///
/// # Panics
/// If `TEST_KUBERNETES` has another value.
#[must_use]
pub fn is_oldest_kubernetes() -> bool {
    match std::env::var("TEST_KUBERNETES").as_deref() {
        Ok("oldest") => true,
        Ok("") | Err(_) => false,
        Ok(other) => panic!("TEST_KUBERNETES={other}: allowed is `oldest`"),
    }
}

/// For a test that the oldest supported Kubernetes cannot run.
///
/// # Errors
/// The reason, on the oldest Kubernetes.
pub fn needs_a_newer_kubernetes(reason: &str) -> Result<(), String> {
    if is_oldest_kubernetes() { Err(format!("{OLDEST_KUBERNETES_VERSION} {reason}")) } else { Ok(()) }
}

/// The start of the hash over a Go module with one source file, as in `tests/setup`.
fn module_hash(folder: &str) -> Result<String, String> {
    let module = workspace().join(folder);
    let mut hash = Sha256::new();
    for file in ["go.mod", "go.sum", "main.go"] {
        let path = module.join(file);
        hash.update(std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?);
    }
    Ok(hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect())
}

/// The Sensor and the `EventSource` of Argo Events.
pub fn argo_events() -> Result<PathBuf, String> {
    let digest = module_hash("tests/peers/argo-events")?;
    peer(&format!("argo-events-{ARGO_EVENTS_VERSION}-{digest}"))
}

/// KEDA's operator (`operator`) or its CRDs (`crds`).
pub fn keda(name: &str) -> Result<PathBuf, String> {
    peer(&format!("keda-{KEDA_VERSION}/{name}"))
}

fn peer(name: &str) -> Result<PathBuf, String> {
    present(cache().join(name), Path::exists, "tests/setup peers")
}

/// etcd.
pub fn etcd() -> Result<PathBuf, String> {
    cached(&format!("etcd-{ETCD_VERSION}"))
}

/// The linter of GitHub workflows.
pub fn actionlint() -> Result<PathBuf, String> {
    cached(&format!("actionlint-{ACTIONLINT_VERSION}"))
}

/// A program of Prometheus: `prometheus` or `promtool`, from the `PATH` or the cache.
pub fn prometheus(name: &str) -> Result<PathBuf, String> {
    program(name).or_else(|_| cached(&format!("prometheus/{name}")))
}

/// NACK's controller (`jetstream-controller`) or its CRDs (`crds.yaml`).
pub fn nack(name: &str) -> Result<PathBuf, String> {
    cached(&format!("nack-{NACK_VERSION}/{name}"))
}

/// The `nats` CLI.
pub fn nats_cli() -> Result<PathBuf, String> {
    cached(&format!("nats-cli-{NATS_CLI_VERSION}"))
}

/// Kueue's controller (`kueue`), its CRDs (`crds`) or its webhooks (`webhooks.yaml`).
pub fn kueue(name: &str) -> Result<PathBuf, String> {
    present(cache().join(format!("kueue-{KUEUE_VERSION}/{name}")), Path::exists, "tests/setup kueue")
}

/// Helm.
pub fn helm() -> Result<PathBuf, String> {
    cached(&format!("helm-{HELM_VERSION}"))
}

/// The program that runs the benchmark of instructions under callgrind.
pub fn gungraun_runner() -> Result<PathBuf, String> {
    cached(&format!("gungraun-{GUNGRAUN_VERSION}/bin/gungraun-runner"))
}

/// The CRDs of the Prometheus operator, one per file.
pub fn prometheus_operator_crds() -> Result<PathBuf, String> {
    let name = format!("prometheus-operator-crds-{PROMETHEUS_OPERATOR_VERSION}");
    present(cache().join(name), Path::is_dir, "make setup")
}

/// The NATS server.
pub fn nats_server() -> Result<PathBuf, String> {
    nats_server_of(NATS_VERSION)
}

/// The NATS server of a version.
pub fn nats_server_of(version: &str) -> Result<PathBuf, String> {
    cached(&format!("nats-server-{version}"))
}

fn cached(name: &str) -> Result<PathBuf, String> {
    present(cache().join(name), Path::is_file, "make setup")
}

/// The path, if something of the expected kind is there. Otherwise the error names the command that
/// makes it.
fn present(path: PathBuf, is_there: fn(&Path) -> bool, command: &str) -> Result<PathBuf, String> {
    let missing = || format!("{} is missing; run `{command}`", path.display());
    is_there(&path).then(|| path.clone()).ok_or_else(missing)
}

/// An image that `tests/images/build` has saved.
pub fn image(name: &str) -> Result<PathBuf, String> {
    let path = workspace().join("target/images").join(format!("{name}.tar"));
    present(path, Path::is_file, "make test-images")
}

/// A program on the `PATH` or in Debian's system folders.
pub fn program(name: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let found = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| format!("`{name}` is missing; run `make setup` (as root, on Debian)"))
}

/// The library that changes the clock of a process.
pub fn faketime() -> Result<PathBuf, String> {
    let architecture = std::env::consts::ARCH;
    let path = PathBuf::from(format!("/usr/lib/{architecture}-linux-gnu/faketime/libfaketime.so.1"));
    let missing = || format!("{} is missing; run `make setup` (as root, on Debian)", path.display());
    path.is_file().then(|| path.clone()).ok_or_else(missing)
}

/// The list of tests that need a real Kubernetes.
#[must_use]
pub fn not_local() -> PathBuf {
    workspace().join("target/only-on-kubernetes")
}

/// The list of skipped tests.
#[must_use]
pub fn skips() -> PathBuf {
    workspace().join("target/skipped-tests")
}

/// A new folder with a short path: paths of sockets are limited to 108 bytes.
pub fn temp_dir(name: &str) -> Result<tempfile::TempDir, String> {
    let prefix = format!("testbed-{name}-");
    tempfile::Builder::new()
        .prefix(&prefix)
        .tempdir_in("/tmp")
        .map_err(|error| format!("temporary folder: {error}"))
}

/// The last lines of a log.
#[must_use]
pub fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
