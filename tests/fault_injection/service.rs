//! The dispatcher in this process: the library's own service, in a runtime that can be taken away from it at any moment.

use clap::Parser;
use dispatcher::app::{RunError, run_with};
use dispatcher::cli::{Cli, Command, Config};
use local_cluster::LocalCluster;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A running dispatcher.
pub(crate) struct Service {
    stop: CancellationToken,
    running: JoinHandle<Result<(), RunError>>,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

impl Service {
    /// Starts it; it is at work some milliseconds later.
    pub(crate) fn start(cluster: &LocalCluster, namespace: &str, settings: &[&str]) -> Self {
        let config = config(namespace, settings);
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let stop = CancellationToken::new();
        // The client belongs to the runtime that it is made in.
        let client = {
            let _within = runtime.enter();
            cluster.client(namespace)
        };
        let running = runtime.spawn(run_with(client, config, stop.clone()));
        Self { stop, running, runtime: Some(runtime) }
    }

    /// Ends it without a word to it, at whichever await point each of its tasks is.
    pub(crate) fn crash(self) {}

    /// Asks it to end, and waits for that.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        (&mut self.running).await.expect("it does not panic").expect("it ends as asked");
    }

    /// Stops the test where it has ended by itself.
    pub(crate) fn assert_runs(&self) {
        assert!(!self.running.is_finished(), "the dispatcher has ended by itself");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Dropping a runtime waits, which the test's runtime does not allow.
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

fn config(namespace: &str, settings: &[&str]) -> Config {
    let fixed =
        ["dispatcher", "run", "--namespace", namespace, "--admin-addr", "127.0.0.1:0", "--identity", "one"];
    let Command::Run(config) = Cli::parse_from(fixed.iter().chain(settings)).command else { panic!("run") };
    *config
}
