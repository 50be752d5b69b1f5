//! CPU time, memory and CPU affinity of a process, from the operating system.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

/// User and system time of all threads that run, in nanoseconds (proc(5): `schedstat`). The time of
/// threads that have ended is missing: measure processes that keep their threads.
///
/// # Errors
/// If there is no such process.
pub fn cpu_time(pid: u32) -> Result<Duration, String> {
    let mut nanos = 0;
    for thread in threads(pid)? {
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{}/schedstat", thread?));
        let running = text.unwrap_or_default().split(' ').next().and_then(|text| text.parse::<u64>().ok());
        nanos += running.unwrap_or_default();
    }
    Ok(Duration::from_nanos(nanos))
}

/// Resident memory in MiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Now.
    pub now: f64,
    /// The largest since the start or the last [`reset_peak`].
    pub peak: f64,
}

/// The resident memory (proc(5): `VmRSS` and `VmHWM` of `/proc/<pid>/status`).
///
/// # Errors
/// If there is no such process.
pub fn memory(pid: u32) -> Result<Memory, String> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let field = |name: &str| -> Option<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
    };
    let (now, peak) = field("VmRSS").zip(field("VmHWM")).ok_or_else(|| format!("{path}: {status}"))?;
    Ok(Memory { now, peak })
}

/// Lets [`Memory::peak`] start again.
///
/// # Errors
/// If there is no such process.
pub fn reset_peak(pid: u32) -> Result<(), String> {
    let path = format!("/proc/{pid}/clear_refs");
    std::fs::write(&path, "5").map_err(|error| format!("{path}: {error}"))
}

/// Binds all threads of a process, and the threads and processes that they start, to these CPUs.
///
/// # Errors
/// If there is no such process or CPU.
pub fn pin(pid: u32, cpus: Range<usize>) -> Result<(), String> {
    let mut set = CpuSet::new();
    cpus.for_each(|cpu| set.set(cpu));
    for thread in threads(pid)? {
        let thread = thread?;
        match sched_setaffinity(Pid::from_raw(thread), &set) {
            // The thread has ended meanwhile.
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => return Err(format!("thread {thread} of process {pid}: {error}")),
        }
    }
    Ok(())
}

/// The threads of a process. Each of them may end meanwhile.
fn threads(pid: u32) -> Result<impl Iterator<Item = Result<i32, String>>, String> {
    let folder = format!("/proc/{pid}/task");
    let entries = std::fs::read_dir(&folder).map_err(|error| format!("{folder}: {error}"))?;
    Ok(entries.map(move |entry| {
        let name = entry.map_err(|error| format!("{folder}: {error}"))?.file_name();
        name.to_string_lossy().parse().map_err(|error| format!("{folder}/{}: {error}", name.display()))
    }))
}

/// The id, in the namespace of this process, of a descendant of `ancestor` whose id in its own
/// namespace is `inner`.
#[must_use]
pub fn outer_pid(ancestor: u32, inner: u32) -> Option<u32> {
    let statuses: BTreeMap<u32, Status> = std::fs::read_dir("/proc")
        .ok()?
        .filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            Some((pid, Status::parse(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)?))
        })
        .collect();
    let descends = |pid: &u32| {
        let parent = |pid: &u32| statuses.get(pid).map(|status| status.parent);
        std::iter::successors(Some(*pid), parent).any(|pid| pid == ancestor)
    };
    statuses.iter().filter(|(_, status)| status.inner == inner).map(|(pid, _)| *pid).find(descends)
}

/// What `/proc/<pid>/status` tells about ids (proc(5)).
#[derive(Debug, PartialEq, Eq)]
struct Status {
    parent: u32,
    /// The id in the innermost namespace.
    inner: u32,
}

impl Status {
    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        let inner = field("NSpid:")?.split_whitespace().last()?.parse().ok()?;
        Some(Self { parent: field("PPid:")?.trim().parse().ok()?, inner })
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn cpu_time_of_this_process_grows_with_its_work() {
        let pid = std::process::id();
        let before = cpu_time(pid).unwrap();
        let mut sum = 0_u64;
        while cpu_time(pid).unwrap() < before + Duration::from_millis(1) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(cpu_time(pid).unwrap() > before);
        assert!(cpu_time(u32::MAX).is_err());
    }

    #[test]
    fn pid_of_a_descendant_is_found_by_its_pid_in_its_own_namespace() {
        let own = std::process::id();
        let inner = Status::parse(&std::fs::read_to_string("/proc/self/status").unwrap()).unwrap().inner;
        assert_eq!(outer_pid(own, inner), Some(own));
        assert_eq!(outer_pid(u32::MAX, inner), None);
        let status = Status::parse("Name:\ta\nPPid:\t7\nNSpid:\t4711\t12\n");
        assert_eq!(status, Some(Status { parent: 7, inner: 12 }));
    }

    #[test]
    fn process_is_bound_to_a_cpu_until_it_may_use_all_again() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let allowed = |pid: u32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t")).unwrap().to_owned()
        };
        pin(child.id(), 0..1).unwrap();
        let bound = allowed(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(bound, "0");
        assert!(pin(u32::MAX, 0..1).is_err());
    }

    #[test]
    fn memory_has_a_peak_that_is_not_below_the_current_value() {
        let memory = memory(std::process::id()).unwrap();
        assert!(memory.now > 0.1 && memory.peak >= memory.now, "{memory:?}");
    }
}
