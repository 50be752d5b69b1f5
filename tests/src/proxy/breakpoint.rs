//! Breakpoints: the nth call or message of a sort is held, and the test says what becomes of it.

use std::fmt::Debug;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio::time::timeout;

use crate::wait::TIMEOUT;

/// One call or message that is held, or will be. Dropped, it lets go on what it holds.
#[derive(Debug)]
pub struct Breakpoint {
    what: String,
    point: Arc<Point>,
}

impl Breakpoint {
    /// Waits until it holds something.
    ///
    /// # Panics
    /// When nothing comes.
    pub async fn reached(&self) {
        let mut stage = self.point.stage.subscribe();
        // It cannot be closed: `self` holds the sender.
        let reached = timeout(TIMEOUT, stage.wait_for(|stage| *stage != Stage::Armed)).await;
        assert!(reached.is_ok(), "waited {TIMEOUT:?} in vain for {}", self.what);
    }

    /// Lets it go on. One that holds nothing yet will hold nothing.
    pub fn release(self) {}

    /// Never lets it go on: its connection breaks, and what was held is not passed on, neither then nor later.
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

/// A breakpoint as the proxy sees it.
#[derive(Debug)]
pub(super) struct Point {
    stage: watch::Sender<Stage>,
}

impl Point {
    /// Tells whoever waits that something is held.
    pub(super) fn reach(&self) {
        self.stage.send_if_modified(|stage| {
            let is_armed = *stage == Stage::Armed;
            if is_armed {
                *stage = Stage::Reached;
            }
            is_armed
        });
    }

    /// Returns once what is held may go on.
    ///
    /// # Errors
    /// When it never may.
    pub(super) async fn released(&self) -> io::Result<()> {
        let mut stage = self.stage.subscribe();
        let ended = stage.wait_for(|stage| matches!(stage, Stage::Released | Stage::Cut)).await;
        match ended.map(|stage| *stage) {
            Ok(Stage::Released) => Ok(()),
            _ => Err(io::ErrorKind::ConnectionReset.into()),
        }
    }

    /// Holds the caller.
    ///
    /// # Errors
    /// When it may never go on.
    pub(super) async fn hold(&self) -> io::Result<()> {
        self.reach();
        self.released().await
    }

    fn is_armed(&self) -> bool {
        *self.stage.borrow() == Stage::Armed
    }
}

/// On which side of what it matches a breakpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Before,
    After,
}

/// A breakpoint, and how many matches it is away.
struct Rule<P> {
    pattern: P,
    side: Side,
    left: u32,
    point: Arc<Point>,
}

/// All breakpoints of a proxy; `P` says what they match.
pub(super) struct Points<P>(Mutex<Vec<Rule<P>>>);

impl<P> Default for Points<P> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<P: Debug> Points<P> {
    /// A breakpoint at the `nth` match from now on; the first is 1.
    pub(super) fn set(&self, side: Side, pattern: P, nth: u32) -> Breakpoint {
        let point = Arc::new(Point { stage: watch::Sender::new(Stage::Armed) });
        let what = format!("what is held {side:?} number {nth} of {pattern:?}");
        self.rules().push(Rule { pattern, side, left: nth.max(1), point: point.clone() });
        Breakpoint { what, point }
    }

    /// Counts one that `is` a match; the breakpoints at which it is to be held.
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
    async fn the_nth_match_is_held_until_it_is_released() {
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
        assert!(hit(Side::Before, 'a').is_empty(), "it holds once");
        other.release();
        assert!(hit(Side::After, 'a').is_empty(), "one that was released early holds nothing");
    }

    #[tokio::test]
    async fn what_is_cut_never_goes_on() {
        let points = Points::<()>::default();
        let breakpoint = points.set(Side::After, (), 1);
        let held = points.hit(Side::After, |()| true);
        breakpoint.cut();
        assert!(held[0].hold().await.is_err());
    }
}
