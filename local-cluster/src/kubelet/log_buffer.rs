//! The log of one container run: the most recent bytes, with the time of each line.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{Bytes, BytesMut};
use futures::{Stream, stream};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::watch,
};

use crate::logs::LogRequest;

/// Longer lines are split, as container runtimes do.
const MAX_LINE_BYTES: usize = 16 * 1024;

/// A bounded log for any number of readers. A slow reader misses the lines that were dropped.
pub(super) struct LogBuffer {
    buffer: Mutex<Buffer>,
    /// Notifies about each line and about the end.
    changed: watch::Sender<()>,
    limit: usize,
}

#[derive(Default)]
struct Buffer {
    lines: VecDeque<Line>,
    bytes: usize,
    /// The sequence number of the oldest line.
    first: u64,
    ended: bool,
}

#[derive(Clone)]
struct Line {
    at: Timestamp,
    text: Bytes,
}

impl LogBuffer {
    /// An empty log that keeps the last `limit` bytes.
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { buffer: Mutex::default(), changed: watch::Sender::new(()), limit })
    }

    fn buffer(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, text: Bytes) {
        let mut buffer = self.buffer();
        buffer.bytes += text.len();
        buffer.lines.push_back(Line { at: Timestamp::now(), text });
        while buffer.bytes > self.limit {
            let Some(dropped) = buffer.lines.pop_front() else { break };
            buffer.bytes -= dropped.text.len();
            buffer.first += 1;
        }
        drop(buffer);
        self.changed.send_replace(());
    }

    /// Marks the log as complete.
    pub(super) fn end(&self) {
        self.buffer().ended = true;
        self.changed.send_replace(());
    }

    /// Appends the lines of `output` until it ends.
    pub(super) async fn fill(&self, mut output: impl AsyncRead + Unpin) {
        let mut pending = BytesMut::with_capacity(MAX_LINE_BYTES);
        while let Ok(1..) = output.read_buf(&mut pending).await {
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                self.push(pending.split_to(end + 1).freeze());
            }
            while pending.len() >= MAX_LINE_BYTES {
                self.push(pending.split_to(MAX_LINE_BYTES).freeze());
            }
        }
        if !pending.is_empty() {
            self.push(pending.freeze());
        }
    }

    /// The requested lines. With `follow`, the stream continues until the log is complete.
    pub(super) fn read(self: &Arc<Self>, request: &LogRequest) -> impl Stream<Item = Bytes> + use<> {
        let reader = Reader {
            next: self.start(request),
            left: request.limit_bytes.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
            follow: request.follow,
            timestamps: request.timestamps,
            changed: self.changed.subscribe(),
            log: self.clone(),
        };
        stream::unfold(reader, async |mut reader| {
            let text = reader.next().await?;
            Some((text, reader))
        })
    }

    fn start(&self, request: &LogRequest) -> u64 {
        let buffer = self.buffer();
        let since = request.since_seconds.and_then(|seconds| {
            Timestamp::now().checked_sub(SignedDuration::from_secs(i64::try_from(seconds).ok()?)).ok()
        });
        let older = buffer.lines.iter().take_while(|line| since.is_some_and(|since| line.at < since)).count();
        let (count, older) = (buffer.lines.len() as u64, older as u64);
        let skipped = request.tail_lines.map_or(0, |tail| count.saturating_sub(tail));
        buffer.first + skipped.max(older)
    }
}

struct Reader {
    log: Arc<LogBuffer>,
    changed: watch::Receiver<()>,
    next: u64,
    left: Option<usize>,
    follow: bool,
    timestamps: bool,
}

impl Reader {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.changed.mark_unchanged();
            let (line, ended) = self.poll_line();
            if let Some(line) = line {
                return self.format(&line);
            }
            if ended || !self.follow || self.changed.changed().await.is_err() {
                return None;
            }
        }
    }

    /// The next line, and whether the log is complete.
    fn poll_line(&mut self) -> (Option<Line>, bool) {
        let buffer = self.log.buffer();
        self.next = self.next.max(buffer.first);
        let index = usize::try_from(self.next - buffer.first).unwrap_or(usize::MAX);
        let line = buffer.lines.get(index).cloned();
        self.next += u64::from(line.is_some());
        (line, buffer.ended)
    }

    /// Formats a line; `None` once the byte limit is reached.
    fn format(&mut self, line: &Line) -> Option<Bytes> {
        let mut text = match self.timestamps {
            true => Bytes::from([format!("{:.9} ", line.at).as_bytes(), &line.text].concat()),
            false => line.text.clone(),
        };
        if let Some(left) = &mut self.left {
            if *left == 0 {
                return None;
            }
            text.truncate(*left);
            *left -= text.len();
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests;
