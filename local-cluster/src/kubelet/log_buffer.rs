//! What a container wrote: the last so many bytes of it, with the time of each line, for any number of readers.

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

use crate::LogRequest;

/// A longer line is kept in pieces, as container runtimes do.
const MAX_LINE_BYTES: usize = 16 * 1024;

/// See the module. A reader that is slower than the writer misses what was dropped meanwhile.
pub(super) struct LogBuffer {
    kept: Mutex<Buffer>,
    /// Changes with each line and at the end.
    changed: watch::Sender<()>,
    limit: usize,
}

#[derive(Default)]
struct Buffer {
    lines: VecDeque<Line>,
    bytes: usize,
    /// The number of the first line that is kept.
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
        Arc::new(Self { kept: Mutex::default(), changed: watch::Sender::new(()), limit })
    }

    fn buffer(&self) -> MutexGuard<'_, Buffer> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, text: Bytes) {
        let mut kept = self.buffer();
        kept.bytes += text.len();
        kept.lines.push_back(Line { at: Timestamp::now(), text });
        while kept.bytes > self.limit {
            let Some(dropped) = kept.lines.pop_front() else { break };
            kept.bytes -= dropped.text.len();
            kept.first += 1;
        }
        drop(kept);
        self.changed.send_replace(());
    }

    /// Nothing more will be written.
    pub(super) fn end(&self) {
        self.buffer().ended = true;
        self.changed.send_replace(());
    }

    /// Takes in what `output` yields, line by line, to its end.
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

    /// The lines that are asked for; with `follow` also those to come.
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
            let piece = reader.next().await?;
            Some((piece, reader))
        })
    }

    fn start(&self, request: &LogRequest) -> u64 {
        let kept = self.buffer();
        let since = request.since_seconds.and_then(|seconds| {
            Timestamp::now().checked_sub(SignedDuration::from_secs(i64::try_from(seconds).ok()?)).ok()
        });
        let older = kept.lines.iter().take_while(|line| since.is_some_and(|since| line.at < since)).count();
        let (count, older) = (kept.lines.len() as u64, older as u64);
        let skipped = request.tail_lines.map_or(0, |tail| count.saturating_sub(tail));
        kept.first + skipped.max(older)
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
                return self.piece(&line);
            }
            if ended || !self.follow || self.changed.changed().await.is_err() {
                return None;
            }
        }
    }

    /// The next line, and whether there will be no more.
    fn poll_line(&mut self) -> (Option<Line>, bool) {
        let kept = self.log.buffer();
        self.next = self.next.max(kept.first);
        let index = usize::try_from(self.next - kept.first).unwrap_or(usize::MAX);
        let line = kept.lines.get(index).cloned();
        self.next += u64::from(line.is_some());
        (line, kept.ended)
    }

    /// The line as it was asked for; `None` once the limit is reached.
    fn piece(&mut self, line: &Line) -> Option<Bytes> {
        let mut piece = match self.timestamps {
            true => Bytes::from([format!("{:.9} ", line.at).as_bytes(), &line.text].concat()),
            false => line.text.clone(),
        };
        if let Some(left) = &mut self.left {
            if *left == 0 {
                return None;
            }
            piece.truncate(*left);
            *left -= piece.len();
        }
        Some(piece)
    }
}

#[cfg(test)]
mod tests;
