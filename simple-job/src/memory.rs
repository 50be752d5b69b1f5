//! Memory that is really there: allocated is not resident, and only what is resident is counted and killed for.

use std::hint::black_box;

const CHUNK: usize = 1 << 20;

/// Takes so many bytes and writes to each of them.
///
/// # Errors
/// Where the system gives no more: then it says so in place of killing.
pub(crate) fn take(bytes: u64) -> Result<Vec<Vec<u8>>, String> {
    let mut chunks: Vec<Vec<u8>> = Vec::new();
    let mut left = bytes;
    while left > 0 {
        let size = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let mut chunk = Vec::new();
        chunk
            .try_reserve_exact(size)
            .map_err(|error| format!("the system refuses memory after {} bytes: {error}", bytes - left))?;
        chunk.resize(size, 1);
        chunks.push(black_box(chunk));
        left -= size as u64;
    }
    Ok(chunks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    #[test]
    fn what_is_taken_is_resident() {
        let before = resident();
        let held = take((64 << 20) + 5).unwrap();
        assert_eq!(held.iter().map(Vec::len).sum::<usize>(), (64 << 20) + 5);
        assert!(resident() - before > 60 << 20);
        drop(held);
        assert_eq!(take(0), Ok(vec![]));
    }
}
