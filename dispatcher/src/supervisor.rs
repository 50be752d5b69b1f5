//! Named tasks in groups: the first one that ends by itself is reported, and groups stop in order.
//!
//! A group's tasks stop together: their shared token is cancelled, and tasks that are still running
//! at the group's deadline are aborted. Groups stop newest first. Dropping the supervisor aborts
//! every task.

use std::{borrow::Cow, collections::HashMap, time::Duration};

use tokio::{
    task::{AbortHandle, Id, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// The name of a task, for logs and errors.
pub(crate) type TaskName = Cow<'static, str>;

/// A task that should run until it is stopped ended by itself.
#[derive(Debug, thiserror::Error)]
#[error("task `{name}` ended: {reason}")]
pub(crate) struct TaskEnded {
    name: TaskName,
    reason: String,
}

/// What a supervised task returns.
pub(crate) trait TaskOutput {
    /// Why the task ended.
    fn reason(self) -> String;
}

impl TaskOutput for () {
    fn reason(self) -> String {
        "returned early".to_owned()
    }
}

impl TaskOutput for Result<(), String> {
    fn reason(self) -> String {
        match self {
            Ok(()) => ().reason(),
            Err(error) => error,
        }
    }
}

/// Runs named tasks in groups.
#[derive(Default)]
pub(crate) struct Supervisor {
    running: JoinSet<String>,
    tasks: HashMap<Id, Task>,
    groups: Vec<Group>,
}

struct Task {
    name: TaskName,
    group: usize,
    handle: AbortHandle,
}

struct Group {
    deadline: Duration,
    stop: CancellationToken,
}

/// Spawns tasks into one group.
pub(crate) struct Spawner<'a> {
    supervisor: &'a mut Supervisor,
    group: usize,
    stop: CancellationToken,
}

impl Supervisor {
    /// Opens a group whose tasks may take `deadline` to stop.
    pub(crate) fn group(&mut self, deadline: Duration) -> Spawner<'_> {
        let (group, stop) = (self.groups.len(), CancellationToken::new());
        self.groups.push(Group { deadline, stop: stop.clone() });
        Spawner { supervisor: self, group, stop }
    }

    /// Waits for the first task that ends by itself.
    pub(crate) async fn ended(&mut self) -> TaskEnded {
        match self.next().await {
            Some(ended) => ended,
            None => std::future::pending().await,
        }
    }

    /// Stops the newest group and returns the names of the tasks that missed its deadline.
    pub(crate) async fn stop_newest(&mut self) -> Vec<TaskName> {
        let Some(Group { deadline, stop }) = self.groups.pop() else { return vec![] };
        let group = self.groups.len();
        stop.cancel();
        if timeout(deadline, self.all_ended(group)).await.is_ok() {
            return vec![];
        }
        let late: Vec<&Task> = self.tasks.values().filter(|task| task.group == group).collect();
        late.iter().for_each(|task| task.handle.abort());
        let mut names: Vec<_> = late.into_iter().map(|task| task.name.clone()).collect();
        names.sort();
        self.all_ended(group).await;
        names
    }

    /// Stops all groups, newest first.
    pub(crate) async fn stop(mut self) {
        while !self.groups.is_empty() {
            let late = self.stop_newest().await;
            if !late.is_empty() {
                tracing::warn!(tasks = ?late, "aborted tasks that did not stop in time");
            }
        }
    }

    async fn all_ended(&mut self, group: usize) {
        while self.tasks.values().any(|task| task.group == group) && self.next().await.is_some() {}
    }

    async fn next(&mut self) -> Option<TaskEnded> {
        let (id, reason) = match self.running.join_next_with_id().await? {
            Ok(ended) => ended,
            Err(error) => (error.id(), error.to_string()),
        };
        let name = self.tasks.remove(&id).map_or(Cow::Borrowed("unknown"), |task| task.name);
        Some(TaskEnded { name, reason })
    }
}

impl Spawner<'_> {
    /// The token that is cancelled when the group stops.
    pub(crate) fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Spawns a task that ends after its token is cancelled.
    pub(crate) fn spawn<F>(&mut self, name: impl Into<TaskName>, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output: TaskOutput> + Send + 'static,
    {
        let task = task(self.stop.clone());
        let handle = self.supervisor.running.spawn(async move { task.await.reason() });
        let task = Task { name: name.into(), group: self.group, handle };
        self.supervisor.tasks.insert(task.handle.id(), task);
    }

    /// Spawns a task that is dropped when the group stops.
    pub(crate) fn spawn_until_stop(
        &mut self,
        name: impl Into<TaskName>,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.spawn(name, |stop| async move {
            stop.run_until_cancelled_owned(task).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(240);

    #[tokio::test]
    async fn groups_stop_newest_first() {
        let order = Arc::new(Mutex::new(vec![]));
        let mut supervisor = Supervisor::default();
        for name in ["a", "b", "c"] {
            let order = order.clone();
            supervisor.group(DEADLINE).spawn(name, |stop| async move {
                stop.cancelled().await;
                order.lock().unwrap().push(name);
            });
        }
        supervisor.stop().await;
        assert_eq!(*order.lock().unwrap(), ["c", "b", "a"]);
    }

    #[tokio::test]
    async fn only_tasks_that_miss_the_deadline_are_aborted_and_named() {
        let mut supervisor = Supervisor::default();
        let mut group = supervisor.group(Duration::from_millis(100));
        group.spawn("late", |_| std::future::pending::<()>());
        group.spawn_until_stop("prompt", std::future::pending());
        assert_eq!(supervisor.stop_newest().await, ["late"]);
        supervisor.stop().await;
    }

    #[tokio::test]
    async fn stopping_one_group_leaves_the_older_one_running() {
        let mut supervisor = Supervisor::default();
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        supervisor.group(DEADLINE).spawn("older", |stop| async move {
            stop.cancelled().await;
            drop(sender);
        });
        supervisor.group(DEADLINE).spawn_until_stop("newer", std::future::pending());
        assert!(supervisor.stop_newest().await.is_empty());
        let mut receiver = receiver;
        assert_eq!(receiver.try_recv(), Err(tokio::sync::oneshot::error::TryRecvError::Empty));
        supervisor.stop().await;
        assert!(receiver.await.is_err());
    }

    #[tokio::test]
    async fn a_task_that_ends_by_itself_is_reported_by_name() {
        let mut supervisor = Supervisor::default();
        let mut group = supervisor.group(DEADLINE);
        group.spawn_until_stop("other", std::future::pending());
        group.spawn("failing", |_| async { Err("no connection".to_owned()) });
        let ended = supervisor.ended().await.to_string();
        assert_eq!(ended, "task `failing` ended: no connection");
        supervisor.group(DEADLINE).spawn("panicking", |_| async { assert_eq!(1, 2, "broken") });
        let ended = supervisor.ended().await.to_string();
        assert!(ended.starts_with("task `panicking` ended:"), "{ended}");
        supervisor.group(DEADLINE).spawn("short", |_| std::future::ready(()));
        let ended = supervisor.ended().await.to_string();
        assert_eq!(ended, "task `short` ended: returned early");
        supervisor.stop().await;
    }
}
