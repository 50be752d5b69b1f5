//! Deletes what a testbed leaves behind when its processes have ended: a folder, control groups and
//! a network bridge.
//!
//! The guard is the outer process of a testbed (module `guard`). It deletes these when it ends. If
//! it is killed, the next guard to start deletes them.

use std::fs::File;
use std::path::Path;

use dispatcher_tests::paths;
use tempfile::TempDir;

use crate::{control_groups, docker};

/// The lock file in the folder. The guard holds the lock while it runs.
const LOCK: &str = "guard.lock";

/// Creates a folder and locks it until the returned file is dropped. First deletes the folders of
/// killed guards.
pub(crate) async fn new_folder(name: &str) -> Result<(TempDir, File), String> {
    sweep().await;
    let folder = paths::temp_dir(name)?;
    let failed = |error: std::io::Error| format!("{}: {error}", folder.path().display());
    // The lock file gets its name only after it is locked. Otherwise a concurrent `sweep` could
    // take the lock first and delete the folder.
    let new = folder.path().join("new.lock");
    let lock = File::create(&new).map_err(failed)?;
    lock.try_lock().map_err(|error| format!("{}: {error}", new.display()))?;
    std::fs::rename(&new, folder.path().join(LOCK)).map_err(failed)?;
    Ok((folder, lock))
}

async fn sweep() {
    for entry in std::fs::read_dir("/tmp").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("testbed-kubernetes-") && !name.starts_with("testbed-docker-") {
            continue;
        }
        let lock = File::open(entry.path().join(LOCK));
        if lock.is_ok_and(|lock| lock.try_lock().is_ok()) {
            remove(&entry.path()).await;
        }
    }
}

/// Deletes the folder, control groups and bridge of a guard.
pub(crate) async fn remove(folder: &Path) {
    docker::remove_bridge(folder).await;
    control_groups::remove(folder).await;
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            eprintln!("testbed: delete {}: {error}", folder.display());
        }
        _ => {}
    }
}
