//! The end of a log that is read as a stream, with bounded memory.
//!
//! The API cuts at a byte limit from the start of the selected lines, so that a limit would cut off
//! the end of a long line. So the reader asks for lines only, and for fewer if these are too long.

use std::collections::VecDeque;

/// The bytes of one read beyond which the reader asks for fewer lines.
const MAX_READ_BYTES: u64 = 4 * 1024 * 1024;
/// The bytes of the last read, for one line. A runtime may store lines of any length.
const MAX_LAST_READ_BYTES: u64 = 64 * 1024 * 1024;
/// The factor by which each further read has fewer lines.
const FEWER: u32 = 4;

/// Reads the end of a log: the number of lines to ask for, and the last bytes of the answer.
#[derive(Debug)]
pub struct LogTailReader {
    lines: u32,
    capacity: usize,
    last: VecDeque<u8>,
    read: u64,
}

/// The log has more bytes than the reader accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

impl LogTailReader {
    /// Reads at most `lines` lines, and keeps enough for a tail of `bytes` bytes.
    #[must_use]
    pub fn new(lines: u32, bytes: usize) -> Self {
        // Twice the tail: the escaped text is never shorter than the log, except for carriage
        // returns and the line feeds at its end.
        let capacity = bytes.saturating_mul(2).saturating_add(1024);
        Self { lines: lines.max(1), capacity, last: VecDeque::new(), read: 0 }
    }

    /// The number of lines to ask for.
    #[must_use]
    pub fn lines(&self) -> u32 {
        self.lines
    }

    /// Adds the next bytes of the log.
    ///
    /// # Errors
    /// [`TooLong`] if the read has to stop.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        self.read = self.read.saturating_add(bytes.len() as u64);
        let limit = if self.lines > 1 { MAX_READ_BYTES } else { MAX_LAST_READ_BYTES };
        if self.read > limit {
            return Err(TooLong);
        }
        let skipped = bytes.len().saturating_sub(self.capacity);
        self.last.extend(bytes.iter().skip(skipped));
        let excess = self.last.len().saturating_sub(self.capacity);
        self.last.drain(..excess);
        Ok(())
    }

    /// Starts again with fewer lines. Returns whether there are fewer.
    pub fn shorten(&mut self) -> bool {
        let fewer = self.lines > 1;
        self.lines = (self.lines / FEWER).max(1);
        self.last.clear();
        self.read = 0;
        fewer
    }

    /// The last bytes of the log. They start with a whole character.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        let is_continuation = |byte: &&u8| **byte & 0xC0 == 0x80;
        if self.read > self.last.len() as u64 {
            let partial = self.last.iter().take(3).take_while(is_continuation).count();
            self.last.drain(..partial);
        }
        self.last.into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::contract::text;

    /// The last lines of a log, as a kubelet selects them: empty lines count.
    fn last_lines(log: &[u8], lines: usize) -> &[u8] {
        let all: Vec<&[u8]> = log.split_inclusive(|byte| *byte == b'\n').collect();
        let size: usize = all.iter().rev().take(lines).map(|line| line.len()).sum();
        &log[log.len() - size..]
    }

    /// Reads a log whose server answers with the last lines.
    fn read(log: &[u8], lines: u32, bytes: usize, chunk: usize) -> Option<Vec<u8>> {
        let mut reader = LogTailReader::new(lines, bytes);
        loop {
            let answer = last_lines(log, reader.lines() as usize);
            if answer.chunks(chunk).all(|chunk| reader.push(chunk).is_ok()) {
                return Some(reader.finish());
            }
            if !reader.shorten() {
                return None;
            }
        }
    }

    fn tail(log: &[u8], lines: u32, bytes: usize) -> Option<String> {
        text::tail(&read(log, lines, bytes, 8192)?, lines as usize, bytes)
    }

    #[test]
    fn end_of_the_log_follows_a_long_line() {
        let mut log = b"start\n".to_vec();
        log.extend(vec![b'p'; 300_000]);
        log.extend(b"\nFATAL: disk full\n");
        assert!(tail(&log, 20, 4096).unwrap().ends_with("pppp\nFATAL: disk full"));
    }

    #[test]
    fn last_line_that_is_longer_than_the_tail_is_cut_at_its_start() {
        let mut log = vec![b'p'; 9_000_000];
        log.extend(b"end");
        let tail = tail(&log, 20, 100).unwrap();
        assert!(tail.ends_with("pppend") && tail.len() == 100, "{tail}");
    }

    #[test]
    fn long_lines_before_the_end_are_not_read_in_full() {
        let mut log: Vec<u8> =
            std::iter::repeat_n([vec![b'x'; 9999], vec![b'\n']].concat(), 1000).flatten().collect();
        log.extend(b"FATAL: disk full\n");
        assert!(tail(&log, 1000, 16_384).unwrap().ends_with("xxx\nFATAL: disk full"));
    }

    #[test]
    fn line_without_an_end_is_given_up() {
        let mut reader = LogTailReader::new(1, 4096);
        let chunk = vec![b'x'; 1024 * 1024];
        let pushed = (0..1000).take_while(|_| reader.push(&chunk).is_ok()).count();
        assert_eq!(pushed as u64, MAX_LAST_READ_BYTES / (1024 * 1024));
        assert!(!reader.shorten(), "there are no fewer lines than one");
    }

    proptest! {
        #[test]
        fn tail_of_a_stream_is_the_tail_of_the_last_lines(
            log in "(?s)(.{0,40}\n{0,3}\r?\u{1F600}?){0,60}", chunk in 1usize..50, lines in 1u32..30, bytes in 1usize..600,
        ) {
            let found = read(log.as_bytes(), lines, bytes, chunk).unwrap();
            prop_assert_eq!(
                text::tail(&found, lines as usize, bytes),
                text::tail(last_lines(log.as_bytes(), lines as usize), lines as usize, bytes)
            );
        }

        #[test]
        fn memory_is_bounded(chunks in prop::collection::vec(0usize..100_000, 0..50)) {
            let mut reader = LogTailReader::new(5, 4096);
            for size in chunks {
                let _ = reader.push(&vec![0; size]);
                prop_assert!(reader.last.len() <= reader.capacity);
            }
        }
    }
}
