//! A line whenever nothing has happened for a while, so that a wait does not look like a hang.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::act_one::FAIL;
use crate::audience::Board;
use crate::screen::Screen;

/// How long nothing may be seen. For the reader's sake only.
const SILENCE: Duration = Duration::from_secs(8);
/// The template's `backoffLimit`, and the first attempt.
const ATTEMPTS: u32 = 4;

/// Until the failing Job has its outcome.
pub(crate) async fn tell(screen: Screen, mut board: watch::Receiver<Board>) {
    loop {
        match timeout(SILENCE, board.changed()).await {
            Ok(Ok(())) if !board.borrow_and_update().outcomes.contains_key(FAIL) => {}
            Ok(_) => return,
            Err(_) => screen.waiting(&waits(&board.borrow())),
        }
    }
}

fn waits(board: &Board) -> String {
    match board.statuses.get(FAIL).map_or(0, |status| status.failed) {
        0 => format!("{FAIL}: its first attempt is under way"),
        // The Job controller doubles the delay at each failure, from 10 s on.
        failed @ 1..ATTEMPTS => {
            let delay = 10 << (failed - 1);
            format!(
                "{FAIL}: {failed} of {ATTEMPTS} attempts have failed; Kubernetes waits {delay} s before the next"
            )
        }
        _ => format!("{FAIL}: all {ATTEMPTS} attempts have failed; Kubernetes is about to conclude"),
    }
}
