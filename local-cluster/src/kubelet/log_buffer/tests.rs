use futures::StreamExt;

use super::*;

async fn log(limit: usize, text: &[u8]) -> Arc<LogBuffer> {
    let log = LogBuffer::new(limit);
    log.fill(text).await;
    log
}

async fn read(log: &Arc<LogBuffer>, request: LogRequest) -> String {
    let pieces: Vec<Bytes> = log.read(&request).collect().await;
    String::from_utf8(pieces.concat()).unwrap()
}

#[tokio::test]
async fn log_keeps_every_byte_below_the_limit() {
    let log = log(100, b"a\n\nb").await;
    assert_eq!(read(&log, LogRequest::default()).await, "a\n\nb");
}

#[tokio::test]
async fn oldest_lines_are_dropped() {
    let log = log(5, b"aa\nbb\ncc\n").await;
    assert_eq!(read(&log, LogRequest::default()).await, "cc\n");
}

#[tokio::test]
async fn long_line_is_split() {
    let text = vec![b'x'; 3 * MAX_LINE_BYTES + 1];
    let log = log(usize::MAX, &text).await;
    assert_eq!(log.buffer().lines.len(), 4);
    assert_eq!(read(&log, LogRequest::default()).await.len(), text.len());
}

#[tokio::test]
async fn reader_receives_the_requested_tail_limit_and_timestamps() {
    let log = log(100, b"one\ntwo\nthree\n").await;
    let tail = LogRequest { tail_lines: Some(2), ..LogRequest::default() };
    assert_eq!(read(&log, tail.clone()).await, "two\nthree\n");
    assert_eq!(read(&log, LogRequest { limit_bytes: Some(6), ..tail.clone() }).await, "two\nth");
    let timed = read(&log, LogRequest { timestamps: true, ..tail }).await;
    let (time, text) = timed.split_once(' ').unwrap();
    assert!(time.parse::<Timestamp>().is_ok() && text.starts_with("two\n"), "{timed}");
    assert_eq!(read(&log, LogRequest { since_seconds: Some(60), ..LogRequest::default() }).await.len(), 14);
    assert_eq!(read(&log, LogRequest { tail_lines: Some(0), ..LogRequest::default() }).await, "");
}

#[tokio::test]
async fn follower_receives_lines_until_the_log_is_complete() {
    let log = log(100, b"one\n").await;
    let follow = LogRequest { follow: true, ..LogRequest::default() };
    let mut lines = Box::pin(log.read(&follow));
    assert_eq!(lines.next().await.unwrap(), "one\n");
    let (next, ()) = tokio::join!(lines.next(), log.fill(&b"two\n"[..]));
    assert_eq!(next.unwrap(), "two\n");
    log.end();
    assert_eq!(lines.next().await, None);
}
