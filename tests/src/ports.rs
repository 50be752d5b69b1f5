//! Reserves free loopback ports, each for one process of the machine.

use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// Below the ephemeral range, so that no outgoing connection takes the port of a killed server.
const FIRST: u32 = 20_000;
const COUNT: u32 = 12_000;

/// A locked file per reserved port of this process. The kernel releases them at its exit.
static RESERVED: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// Reserves an unused port until this process exits.
#[must_use]
pub fn free() -> u16 {
    let folder = std::env::temp_dir().join(format!("testbed-ports-{}", rustix::process::getuid().as_raw()));
    std::fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let start = SystemTime::UNIX_EPOCH.elapsed().map(|time| time.subsec_nanos()).unwrap_or_default();
    for number in 0..COUNT {
        let port = (FIRST + start.wrapping_add(number) % COUNT) as u16;
        let file = OpenOptions::new().create(true).append(true).open(folder.join(port.to_string()));
        let Ok(file) = file else { continue };
        // Also fails if this process has reserved the port.
        if file.try_lock().is_ok() && TcpListener::bind(("0.0.0.0", port)).is_ok() {
            RESERVED.lock().unwrap_or_else(PoisonError::into_inner).push(file);
            return port;
        }
    }
    panic!("no free port among {FIRST}..{}", FIRST + COUNT);
}
