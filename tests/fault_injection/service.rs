//! Runs the dispatcher as a library, in a runtime that can be dropped at any moment.

use clap::Parser;
use dispatcher::app::{RunError, run_with};
use dispatcher::cli::{Cli, Command, Config};
use dispatcher_tests::wait::TIMEOUT;
use local_cluster::LocalCluster;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A running dispatcher.
pub(crate) struct Service {
    stop: CancellationToken,
    running: JoinHandle<Result<(), RunError>>,
    /// `None` only during the drop.
    runtime: Option<Runtime>,
}

impl Service {
    /// Starts it; does not wait until it is ready.
    pub(crate) fn start(cluster: &LocalCluster, namespace: &str, settings: &[&str]) -> Self {
        let config = config(namespace, settings);
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let stop = CancellationToken::new();
        // A client belongs to the runtime in which it is created.
        let client = {
            let _within = runtime.enter();
            cluster.client(namespace)
        };
        let running = runtime.spawn(run_with(client, config, stop.clone()));
        Self { stop, running, runtime: Some(runtime) }
    }

    /// Drops all of its tasks, each at some await point. Returns once its port is free, as after the
    /// end of a process.
    pub(crate) async fn crash(mut self) {
        let runtime = self.runtime.take().expect("the service runs");
        // Waits for the threads of the runtime, which is forbidden in another runtime.
        let dropped = tokio::task::spawn_blocking(|| runtime.shutdown_timeout(TIMEOUT));
        dropped.await.expect("the dispatcher can be dropped");
    }

    /// Stops it gracefully.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        (&mut self.running)
            .await
            .expect("the dispatcher does not panic")
            .expect("the dispatcher stops gracefully");
    }

    /// Panics if it has stopped by itself.
    pub(crate) fn assert_runs(&self) {
        assert!(!self.running.is_finished(), "the dispatcher has stopped by itself");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Dropping a runtime blocks, which is forbidden in another runtime.
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

fn config(namespace: &str, settings: &[&str]) -> Config {
    let fixed = ["dispatcher", "run", "--namespace", namespace, "--identity", "one"];
    let Command::Run(config) = Cli::parse_from(fixed.iter().chain(settings)).command else { panic!("run") };
    *config
}
