//! The control groups of a testbed's containers, in cgroup v1 or v2.

use std::path::{Path, PathBuf};
use std::time::Duration;

use dispatcher_tests::wait;

const CGROUPS: &str = "/sys/fs/cgroup";

/// The name of the control group, after the testbed's folder.
pub(crate) fn name(folder: &Path) -> String {
    folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The folders of a control group: one per hierarchy in v1, one in v2.
fn folders(group: &str) -> Vec<PathBuf> {
    let root = Path::new(CGROUPS);
    if root.join("cgroup.controllers").exists() {
        return vec![root.join(group)];
    }
    // Some hierarchies have aliases as symbolic links.
    let hierarchies = std::fs::read_dir(root).into_iter().flatten().flatten();
    let hierarchies = hierarchies.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    hierarchies.map(|entry| entry.path().join(group)).collect()
}

/// Creates the control groups. Two kubelets with a common one would delete each other's pods.
pub(crate) fn make(folder: &Path) -> Result<(), String> {
    for path in folders(&name(folder)) {
        std::fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        for setting in ["cpuset.cpus", "cpuset.mems"] {
            let above = path.parent().map(|parent| parent.join(setting));
            if let Some(value) = above.and_then(|above| std::fs::read(above).ok()) {
                let _ = std::fs::write(path.join(setting), value);
            }
        }
    }
    Ok(())
}

/// Deletes the control groups after their processes have ended, which takes the kernel a moment.
pub(crate) async fn remove(folder: &Path) {
    let group = name(folder);
    let gone = wait::try_until("control groups to be free", Duration::from_secs(5), || {
        let left: Vec<_> = folders(&group).into_iter().filter(|path| !remove_group(path)).collect();
        async move { if left.is_empty() { Ok(()) } else { Err(left) } }
    });
    if let Err(error) = gone.await {
        eprintln!("testbed: {error}");
    }
}

fn remove_group(path: &Path) -> bool {
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_group(&entry.path());
        }
    }
    match std::fs::remove_dir(path) {
        Ok(()) => true,
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}
