//! Reads the CPU time of a process.

/// User and system time in seconds (proc(5): fields 14 and 15 of `/proc/<pid>/stat`, in ticks).
pub(crate) fn seconds(pid: u32) -> Result<f64, String> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    // The process name in parentheses may contain any character.
    let (_, fields) = stat.rsplit_once(')').ok_or_else(|| format!("{path}: {stat:?}"))?;
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}
