//! The logs of the containers of all existing pods.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{FutureExt, StreamExt, future::BoxFuture};

use super::log_buffer::LogBuffer;
use crate::logs::{LogError, LogRequest, LogStream, Logs};

/// By the pod's uid and the container's name.
type Runs = HashMap<String, HashMap<String, Run>>;

struct Run {
    current: Arc<LogBuffer>,
    previous: Option<Arc<LogBuffer>>,
}

/// The current and the previous log of each container.
#[derive(Clone, Default)]
pub(super) struct RunLogs(Arc<Mutex<Runs>>);

impl RunLogs {
    fn locked<T>(&self, work: impl FnOnce(&mut Runs) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Starts the log of a new run. The log of the last run becomes the `previous` one.
    pub(super) fn begin(&self, uid: &str, container: &str, limit: usize) -> Arc<LogBuffer> {
        let log = LogBuffer::new(limit);
        self.locked(|runs| {
            let containers = runs.entry(uid.to_owned()).or_default();
            let previous = containers.remove(container).map(|run| run.current);
            containers.insert(container.to_owned(), Run { current: log.clone(), previous });
        });
        log
    }

    /// Drops the logs of a removed pod.
    pub(super) fn remove(&self, uid: &str) {
        self.locked(|runs| runs.remove(uid));
    }

    fn find(&self, request: &LogRequest) -> Result<Arc<LogBuffer>, LogError> {
        let LogRequest { pod, container, .. } = request;
        self.locked(|runs| {
            let run = runs.get(&request.uid).and_then(|containers| containers.get(container));
            match (run, request.previous) {
                (Some(run), false) => Ok(run.current.clone()),
                (None, false) => Err(LogError::NotReady(format!(
                    "container \"{container}\" in pod \"{pod}\" is waiting to start: ContainerCreating"
                ))),
                (run, true) => run.and_then(|run| run.previous.clone()).ok_or_else(|| {
                    LogError::NotReady(format!(
                        "previous terminated container \"{container}\" in pod \"{pod}\" not found"
                    ))
                }),
            }
        })
    }
}

impl Logs for RunLogs {
    fn read(&self, request: LogRequest) -> BoxFuture<'static, Result<LogStream, LogError>> {
        let found = self.find(&request).map(|log| log.read(&request).map(Ok).boxed());
        async move { found }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn previous_log_is_readable_until_the_pod_is_removed() {
        let run_logs = RunLogs::default();
        let request = |previous| LogRequest {
            uid: "u".into(),
            container: "c".into(),
            previous,
            ..LogRequest::default()
        };
        assert!(matches!(run_logs.find(&request(false)), Err(LogError::NotReady(_))));
        let first = run_logs.begin("u", "c", 10);
        assert!(matches!(run_logs.find(&request(true)), Err(LogError::NotReady(_))));
        let second = run_logs.begin("u", "c", 10);
        assert!(Arc::ptr_eq(&run_logs.find(&request(true)).unwrap(), &first));
        assert!(Arc::ptr_eq(&run_logs.find(&request(false)).unwrap(), &second));
        run_logs.remove("u");
        assert!(run_logs.find(&request(false)).is_err());
    }
}
