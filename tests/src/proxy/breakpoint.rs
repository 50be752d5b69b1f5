//! Breakpoints: hold the nth matching call or message, so that the test decides what happens to it.

use std::fmt::Debug;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio::time::timeout;

use crate::wait::TIMEOUT;

/// A breakpoint. Dropping it releases the held call or message.
#[derive(Debug)]
pub struct Breakpoint {
    what: String,
    point: Arc<Point>,
}

impl Breakpoint {
    /// Waits until it holds something.
    ///
    /// # Panics
    /// If nothing arrives in time.
    pub async fn reached(&self) {
        let mut stage = self.point.stage.subscribe();
        // The channel stays open: `self` has its sender.
        let reached = timeout(TIMEOUT, stage.wait_for(|stage| *stage != Stage::Armed)).await;
        assert!(reached.is_ok(), "timed out after {TIMEOUT:?}: {}", self.what);
    }

    /// Releases the held call or message, or disarms the breakpoint.
    pub fn release(self) {}

    /// Breaks the connection; the held call or message is never forwarded.
    pub fn cut(self) {
        self.point.stage.send_replace(Stage::Cut);
    }
}

impl Drop for Breakpoint {
    fn drop(&mut self) {
        self.point.stage.send_if_modified(|stage| {
            let is_open = matches!(stage, Stage::Armed | Stage::Reached);
            if is_open {
                *stage = Stage::Released;
            }
            is_open
        });
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Armed,
    Reached,
    Released,
    Cut,
}

/// The proxy's side of a breakpoint.
#[derive(Debug)]
pub(super) struct Point {
    stage: watch::Sender<Stage>,
}

impl Point {
    /// Notifies the test that something is held.
    pub(super) fn reach(&self) {
        self.stage.send_if_modified(|stage| {
            let is_armed = *stage == Stage::Armed;
            if is_armed {
                *stage = Stage::Reached;
            }
            is_armed
        });
    }

    /// Waits for the release.
    ///
    /// # Errors
    /// If it was cut.
    pub(super) async fn released(&self) -> io::Result<()> {
        let mut stage = self.stage.subscribe();
        let ended = stage.wait_for(|stage| matches!(stage, Stage::Released | Stage::Cut)).await;
        match ended.map(|stage| *stage) {
            Ok(Stage::Released) => Ok(()),
            _ => Err(io::ErrorKind::ConnectionReset.into()),
        }
    }

    /// Holds the caller until the release.
    ///
    /// # Errors
    /// If it was cut.
    pub(super) async fn hold(&self) -> io::Result<()> {
        self.reach();
        self.released().await
    }

    fn is_armed(&self) -> bool {
        *self.stage.borrow() == Stage::Armed
    }
}

/// Whether a breakpoint holds before or after the matching call or message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Before,
    After,
}

/// A breakpoint and how many matches remain.
struct Rule<P> {
    pattern: P,
    side: Side,
    left: u32,
    point: Arc<Point>,
}

/// All breakpoints of a proxy. `P` is a pattern.
pub(super) struct Points<P>(Mutex<Vec<Rule<P>>>);

impl<P> Default for Points<P> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<P: Debug> Points<P> {
    /// Sets a breakpoint at the `nth` match from now on, counted from 1.
    pub(super) fn set(&self, side: Side, pattern: P, nth: u32) -> Breakpoint {
        let point = Arc::new(Point { stage: watch::Sender::new(Stage::Armed) });
        let what = format!("breakpoint {side:?} match {nth} of {pattern:?}");
        self.rules().push(Rule { pattern, side, left: nth.max(1), point: point.clone() });
        Breakpoint { what, point }
    }

    /// Counts something that `is` a match; returns the breakpoints that hold it.
    pub(super) fn hit(&self, side: Side, is: impl Fn(&P) -> bool) -> Vec<Arc<Point>> {
        let mut rules = self.rules();
        rules.retain(|rule| rule.point.is_armed());
        let mut met = Vec::new();
        for rule in rules.iter_mut().filter(|rule| rule.side == side && is(&rule.pattern)) {
            rule.left -= 1;
            if rule.left == 0 {
                met.push(rule.point.clone());
            }
        }
        rules.retain(|rule| rule.left > 0);
        met
    }

    fn rules(&self) -> std::sync::MutexGuard<'_, Vec<Rule<P>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nth_match_is_held_until_the_release() {
        let points = Points::<char>::default();
        let (second, other) = (points.set(Side::Before, 'a', 2), points.set(Side::After, 'a', 1));
        let hit = |side, text| points.hit(side, |pattern| *pattern == text);
        assert!(hit(Side::Before, 'b').is_empty());
        assert!(hit(Side::Before, 'a').is_empty());
        let held = hit(Side::Before, 'a');
        assert_eq!(held.len(), 1);
        let holding = tokio::spawn({
            let point = held[0].clone();
            async move { point.hold().await }
        });
        second.reached().await;
        second.release();
        holding.await.unwrap().unwrap();
        assert!(hit(Side::Before, 'a').is_empty(), "a breakpoint holds once");
        other.release();
        assert!(hit(Side::After, 'a').is_empty(), "a disarmed breakpoint holds nothing");
    }

    #[tokio::test]
    async fn cut_match_is_never_forwarded() {
        let points = Points::<()>::default();
        let breakpoint = points.set(Side::After, (), 1);
        let held = points.hit(Side::After, |()| true);
        breakpoint.cut();
        assert!(held[0].hold().await.is_err());
    }
}
