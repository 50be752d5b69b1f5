//! A control group whose processes run only while a processor would be idle, so that they take
//! nothing from others. The policy `SCHED_IDLE` alone has that effect only within a control group.

use std::path::{Path, PathBuf};

/// The hierarchies of the CPU controller: of version 1, and of version 2.
const ROOTS: [&str; 2] = ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup"];

/// The control group. It is removed when this is dropped, if its processes have ended.
#[derive(Debug)]
pub struct IdleGroup(PathBuf);

impl IdleGroup {
    /// A group with this process.
    ///
    /// # Errors
    /// If this user or kernel cannot create it.
    pub fn with(pid: u32) -> Result<Self, String> {
        let root = ROOTS.iter().find(|root| Path::new(root).join("cgroup.procs").exists());
        let group = Self(Path::new(root.ok_or("no control groups")?).join(format!("idle-{pid}")));
        std::fs::create_dir(&group.0).map_err(|error| format!("{}: {error}", group.0.display()))?;
        let write = |file: &str, value: &str| {
            let path = group.0.join(file);
            std::fs::write(&path, value).map_err(|error| format!("{}: {error}", path.display()))
        };
        write("cpu.idle", "1")?;
        write("cgroup.procs", &pid.to_string())?;
        Ok(group)
    }
}

impl Drop for IdleGroup {
    fn drop(&mut self) {
        // A group with processes stays.
        let _ = std::fs::remove_dir(&self.0);
    }
}
