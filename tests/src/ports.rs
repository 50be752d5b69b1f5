//! Free ports on loopback, given to one process of this machine at a time.

use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// Below the range that the kernel takes the ports of outgoing connections from: so a server that is killed finds its port
/// free when it comes back.
const FIRST: u32 = 20_000;
const COUNT: u32 = 12_000;

/// The ports of this process: each a locked file, since between the look at a port and its use another process may look too.
/// The kernel unlocks them at the end of the process.
static OURS: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A port of 127.0.0.1 that nobody listens on; this process keeps it to its end.
#[must_use]
pub fn free() -> u16 {
    let folder = std::env::temp_dir().join(format!("testbed-ports-{}", rustix::process::getuid().as_raw()));
    std::fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let start = SystemTime::UNIX_EPOCH.elapsed().map(|time| time.subsec_nanos()).unwrap_or_default();
    for number in 0..COUNT {
        let port = (FIRST + start.wrapping_add(number) % COUNT) as u16;
        let file = OpenOptions::new().create(true).append(true).open(folder.join(port.to_string()));
        let Ok(file) = file else { continue };
        // `OURS` keeps the file open; a second lock of the same process is refused as well.
        if file.try_lock().is_ok() && TcpListener::bind(("0.0.0.0", port)).is_ok() {
            OURS.lock().unwrap_or_else(PoisonError::into_inner).push(file);
            return port;
        }
    }
    panic!("no free port among {FIRST}..{}", FIRST + COUNT);
}
