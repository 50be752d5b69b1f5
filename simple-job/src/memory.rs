//! Allocates resident memory: only resident memory counts towards the limit of a container.

use std::hint::black_box;

const CHUNK: usize = 1 << 20;

/// Allocates this number of bytes and writes all of them.
///
/// # Errors
/// If the system refuses the allocation.
pub(crate) fn allocate(bytes: u64) -> Result<Vec<Vec<u8>>, String> {
    let mut chunks: Vec<Vec<u8>> = Vec::new();
    let mut left = bytes;
    while left > 0 {
        let size = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let mut chunk = Vec::new();
        chunk
            .try_reserve_exact(size)
            .map_err(|error| format!("cannot allocate more than {} bytes: {error}", bytes - left))?;
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
    fn allocated_memory_is_resident() {
        let before = resident();
        let memory = allocate((64 << 20) + 5).unwrap();
        assert_eq!(memory.iter().map(Vec::len).sum::<usize>(), (64 << 20) + 5);
        assert!(resident() - before > 60 << 20);
        drop(memory);
        assert_eq!(allocate(0), Ok(vec![]));
    }
}
