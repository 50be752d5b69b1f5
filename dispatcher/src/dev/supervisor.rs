//! What runs, as a list: no part ends unseen, and all are stopped in the opposite order of their start.

use std::time::Duration;

use tokio::{
    task::{Id, JoinError, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::dev::DevError;

/// How long a part may take until it works.
const START: Duration = Duration::from_secs(60);

/// The parts that run. Dropping it ends them all at once.
#[derive(Default)]
pub(super) struct Parts {
    tasks: JoinSet<Result<(), String>>,
    parts: Vec<Part>,
}

struct Part {
    name: &'static str,
    id: Id,
    stop: CancellationToken,
    patience: Duration,
}

impl Parts {
    /// Starts a part, which ends when it is told to; `patience` is how long that may take.
    pub(super) fn start<F>(
        &mut self,
        name: &'static str,
        patience: Duration,
        part: impl FnOnce(CancellationToken) -> F,
    ) where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let id = self.tasks.spawn(part(stop.clone())).id();
        self.parts.push(Part { name, id, stop, patience });
    }

    /// The end of the first part that ends by itself.
    pub(super) async fn any_ended(&mut self) -> DevError {
        let Some(ended) = self.tasks.join_next_with_id().await else {
            return DevError::Ended("nothing runs".to_owned());
        };
        let id = id_of(&ended);
        let name = self.parts.iter().find(|part| part.id == id).map_or("a part", |part| part.name);
        self.parts.retain(|part| part.id != id);
        DevError::Ended(match ended {
            Ok((_, Err(error))) => format!("{name}: {error}"),
            Ok((_, Ok(()))) => format!("{name}: has ended by itself"),
            Err(error) => format!("{name}: has died: {error}"),
        })
    }

    /// The value that comes once `what` works, unless a part ends before.
    ///
    /// # Errors
    /// The part that ended, or that it took too long.
    pub(super) async fn until<T>(
        &mut self,
        what: &str,
        works: impl Future<Output = T>,
    ) -> Result<T, DevError> {
        tokio::select! {
            value = timeout(START, works) => value
                .map_err(|_| DevError::Ended(format!("{what} does not work after {} s", START.as_secs()))),
            ended = self.any_ended() => Err(ended),
        }
    }

    /// Stops the parts, the last one first; one that takes longer than its patience is ended.
    pub(super) async fn stop(mut self) {
        while let Some(part) = self.parts.pop() {
            part.stop.cancel();
            let ended = async {
                while let Some(ended) = self.tasks.join_next_with_id().await {
                    if id_of(&ended) == part.id {
                        return;
                    }
                    // Another one ended before its turn.
                    self.parts.retain(|other| other.id != id_of(&ended));
                }
            };
            let _ = timeout(part.patience, ended).await;
        }
    }
}

fn id_of(ended: &Result<(Id, Result<(), String>), JoinError>) -> Id {
    match ended {
        Ok((id, _)) => *id,
        Err(error) => error.id(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(240);

    #[tokio::test]
    async fn parts_stop_in_the_opposite_order_of_their_start() {
        let order = Arc::new(Mutex::new(vec![]));
        let mut parts = Parts::default();
        for name in ["a", "b", "c"] {
            let order = order.clone();
            parts.start(name, PATIENCE, |stop| async move {
                stop.cancelled().await;
                order.lock().unwrap().push(name);
                Ok(())
            });
        }
        parts.stop().await;
        assert_eq!(*order.lock().unwrap(), ["c", "b", "a"]);
    }

    #[tokio::test]
    async fn a_part_that_does_not_stop_holds_nobody_up() {
        let mut parts = Parts::default();
        parts.start("deaf", Duration::ZERO, |_| std::future::pending());
        parts.stop().await;
    }

    #[tokio::test]
    async fn a_part_that_ends_by_itself_is_named() {
        let mut parts = Parts::default();
        parts.start("other", PATIENCE, |stop| async move {
            stop.cancelled().await;
            Ok(())
        });
        parts.start("ill", PATIENCE, |_| async { Err("is ill".to_owned()) });
        assert_eq!(parts.any_ended().await.to_string(), "ill: is ill");
        parts.start("dead", PATIENCE, |_| async { panic!("by a test") });
        assert!(parts.any_ended().await.to_string().starts_with("dead: has died"));
        parts.stop().await;
    }
}
