//! CPU time and memory of processes, from `/proc` (proc(5)).

use rustix::param::clock_ticks_per_second;

/// User and system time of all the processes since their start, in seconds.
pub(crate) fn cpu_seconds(pids: &[u32]) -> Result<f64, String> {
    pids.iter().map(|pid| cpu(*pid)).sum()
}

fn cpu(pid: u32) -> Result<f64, String> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    // The name, in parentheses, may contain spaces.
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    let ticks: f64 = ticks.sum::<Result<_, _>>().map_err(|error| format!("{path}: {error}"))?;
    Ok(ticks / clock_ticks_per_second() as f64)
}

/// The resident memory of all the processes, in MiB.
pub(crate) fn memory_mib(pids: &[u32]) -> Result<f64, String> {
    pids.iter().map(|pid| resident(*pid)).sum()
}

fn resident(pid: u32) -> Result<f64, String> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: Option<f64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.map(|kib| kib / 1024.0).ok_or_else(|| format!("{path}: no VmRSS"))
}
