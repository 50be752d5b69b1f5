//! The control groups that a testbed's containers run in, of version 1 or 2.

use std::path::{Path, PathBuf};
use std::time::Duration;

use dispatcher_tests::wait;

const CGROUPS: &str = "/sys/fs/cgroup";

/// The control group of a testbed, named after its folder.
pub(crate) fn name(folder: &Path) -> String {
    folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The folders of a control group: one per hierarchy in version 1, one in version 2.
fn folders(group: &str) -> Vec<PathBuf> {
    let root = Path::new(CGROUPS);
    if root.join("cgroup.controllers").exists() {
        return vec![root.join(group)];
    }
    // Some hierarchies have further names, as symbolic links.
    let hierarchies = std::fs::read_dir(root).into_iter().flatten().flatten();
    let hierarchies = hierarchies.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    hierarchies.map(|entry| entry.path().join(group)).collect()
}

/// Two kubelets under one control group would each remove the other's pods; so each has its own.
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

/// Removes the control groups, whose processes have ended. The kernel may need a moment for that.
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
