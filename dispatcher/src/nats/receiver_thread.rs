//! A thread for connections that clients can fill with messages.
//!
//! The client library reads from a connection for as long as there is something to read. A flood of
//! large messages would occupy every worker of the runtime, and delay everything else. The operating
//! system shares the processors fairly between this thread and those workers.

use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::JoinError,
};
use tokio_util::task::AbortOnDropHandle;

/// The thread. It ends when this is dropped.
pub(crate) struct ReceiverThread {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl ReceiverThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the operating system starts no thread.
    pub(crate) fn start() -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("nats receiver")
            .enable_all()
            .build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    /// Runs `task` on the thread. The tasks that it spawns run there too.
    ///
    /// # Errors
    /// If the task panics.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, JoinError> {
        AbortOnDropHandle::new(self.handle.spawn(task)).await
    }
}

impl Drop for ReceiverThread {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tasks_that_never_yield_do_not_delay_other_threads() {
        let receiver = ReceiverThread::start().unwrap();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let busy = receiver.handle.spawn(async move { released.recv() });
        tokio::spawn(async {}).await.unwrap();
        release.send(()).unwrap();
        assert!(busy.await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn spawned_tasks_run_on_the_thread_until_it_is_dropped() {
        let receiver = ReceiverThread::start().unwrap();
        let name = || std::thread::current().name().map(str::to_owned);
        let inner = receiver.run(async move { tokio::spawn(async move { name() }).await.unwrap() }).await;
        assert_eq!(inner.unwrap().as_deref(), Some("nats receiver"));
        assert!(receiver.run(async { panic!("broken") }).await.is_err());
        let endless = receiver.handle.spawn(std::future::pending::<()>());
        drop(receiver);
        assert!(endless.await.unwrap_err().is_cancelled());
    }
}
