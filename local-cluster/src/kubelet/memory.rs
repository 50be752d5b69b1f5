//! Memory limits: checks the resident memory of containers periodically, and kills the processes of
//! a container above its limit.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustix::process::Pid;
use tokio::{task::spawn_blocking, time::sleep};

use super::process::kill;

/// The limits of all containers.
#[derive(Clone, Default)]
pub(super) struct MemoryLimiter {
    limits: Arc<Mutex<HashMap<Pid, Limit>>>,
}

struct Limit {
    bytes: u64,
    exceeded: Arc<AtomicBool>,
}

/// The limit of one container, enforced until it is dropped.
pub(super) struct MemoryLimit {
    memory: MemoryLimiter,
    group: Pid,
    exceeded: Arc<AtomicBool>,
}

impl MemoryLimiter {
    /// Limits the processes of `group` and their descendants.
    pub(super) fn limit(&self, group: Pid, bytes: u64) -> MemoryLimit {
        let exceeded = Arc::new(AtomicBool::new(false));
        let limit = Limit { bytes, exceeded: exceeded.clone() };
        self.locked(|limits| limits.insert(group, limit));
        MemoryLimit { memory: self.clone(), group, exceeded }
    }

    fn locked<T>(&self, work: impl FnOnce(&mut HashMap<Pid, Limit>) -> T) -> T {
        work(&mut self.limits.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Enforces the limits until it is dropped.
    pub(super) async fn run(self, interval: Duration) {
        loop {
            sleep(interval).await;
            if self.locked(|limits| limits.is_empty()) {
                continue;
            }
            let memory = self.clone();
            match spawn_blocking(move || memory.enforce()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "memory limits not enforced"),
                Err(error) => tracing::error!(%error, "memory check failed"),
            }
        }
    }

    fn enforce(&self) -> io::Result<()> {
        let entries = process_stats()?;
        self.locked(|limits| {
            for (group, limit) in limits {
                if usage(&entries, group.as_raw_pid()) > limit.bytes {
                    limit.exceeded.store(true, Ordering::Release);
                    kill(*group);
                }
            }
        });
        Ok(())
    }
}

impl MemoryLimit {
    /// Whether the processes were killed because they exceeded the limit.
    pub(super) fn was_exceeded(&self) -> bool {
        self.exceeded.load(Ordering::Acquire)
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        self.memory.locked(|limits| limits.remove(&self.group));
    }
}

/// The relevant fields of `/proc/<pid>/stat`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct ProcessStat {
    id: i32,
    parent: i32,
    group: i32,
    /// Resident memory in bytes.
    resident: u64,
}

/// All processes, without those that end during the read.
fn process_stats() -> io::Result<Vec<ProcessStat>> {
    let page = rustix::param::page_size() as u64;
    let names = fs::read_dir("/proc")?.flatten().map(|entry| entry.path());
    let processes = names.filter(|path| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit))
    });
    let stats = processes.filter_map(|path| fs::read_to_string(path.join("stat")).ok());
    Ok(stats.filter_map(|stat| parse(&stat, page)).collect())
}

/// Parses `/proc/<pid>/stat`. The program name in parentheses may contain any character.
fn parse(stat: &str, page: u64) -> Option<ProcessStat> {
    let (id, rest) = stat.split_once(" (")?;
    let (_, rest) = rest.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(1);
    Some(ProcessStat {
        id: id.parse().ok()?,
        parent: fields.next()?.parse().ok()?,
        group: fields.next()?.parse().ok()?,
        resident: fields.nth(18)?.parse::<u64>().ok()?.saturating_mul(page),
    })
}

/// The resident memory of a process group and of all descendants of its members.
fn usage(entries: &[ProcessStat], group: i32) -> u64 {
    let mut members: HashSet<i32> =
        entries.iter().filter(|entry| entry.group == group).map(|entry| entry.id).collect();
    loop {
        let before = members.len();
        let children: Vec<i32> =
            entries.iter().filter(|entry| members.contains(&entry.parent)).map(|entry| entry.id).collect();
        members.extend(children);
        if members.len() == before {
            break;
        }
    }
    entries.iter().filter(|entry| members.contains(&entry.id)).map(|entry| entry.resident).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_parsed_for_any_program_name() {
        let stat = "42 (a) b (c)) S 7 41 41 0 -1 4194560 98 0 0 0 0 0 0 0 20 0 1 0 84 2883584 256 18446744073709551615";
        assert_eq!(parse(stat, 4096), Some(ProcessStat { id: 42, parent: 7, group: 41, resident: 1 << 20 }));
        assert_eq!(parse("42", 4096), None);
    }

    #[test]
    fn own_process_is_listed() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(process_stats().unwrap().iter().any(|entry| entry.id == own && entry.resident > 0));
    }

    #[test]
    fn usage_includes_descendants_in_other_groups() {
        let entry = |id, parent, group| ProcessStat { id, parent, group, resident: 1 };
        let entries =
            [entry(10, 1, 10), entry(11, 10, 10), entry(12, 11, 12), entry(13, 12, 12), entry(14, 1, 14)];
        assert_eq!((usage(&entries, 10), usage(&entries, 12), usage(&entries, 99)), (4, 2, 0));
    }
}
