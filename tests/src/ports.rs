//! Free ports on loopback.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the range that the kernel takes the ports of outgoing connections from: so a server that is killed finds its port
/// free when it comes back.
const FIRST: u32 = 20_000;
const COUNT: u32 = 12_000;
/// How many numbers a process has before it comes to those where the process with the next id starts.
const STRIDE: u32 = 61;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A port of 127.0.0.1 that nobody listens on, not given twice by this process within some thousand calls.
#[must_use]
pub fn free() -> u16 {
    let start = std::process::id().wrapping_mul(STRIDE);
    for _ in 0..COUNT {
        let number = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = (FIRST + number % COUNT) as u16;
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port among {FIRST}..{}", FIRST + COUNT);
}
