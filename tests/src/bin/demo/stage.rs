//! Starts what the demo runs on, saying what and how long each took.

use std::time::Instant;

use dispatcher_tests::{Dispatcher, Kubernetes, Namespace, Nats};

use crate::screen::Screen;

/// How long a Job of the demo sleeps; the shipped template says 15.
const SLEEP_SECONDS: &str = "2";

/// Everything that runs; it ends with the demo.
pub(crate) struct Stage {
    pub(crate) nats: Nats,
    pub(crate) namespace: Namespace,
    pub(crate) dispatcher: Dispatcher,
}

impl Stage {
    pub(crate) async fn set(screen: &Screen) -> Result<Self, String> {
        let start = Instant::now();
        screen.doing("Kubernetes: etcd, API server, controllers, containerd, kubelet ");
        let kubernetes = Kubernetes::shared().await.map_err(|error| impossible(&error))?;
        screen.done(start.elapsed());

        let start = Instant::now();
        screen.doing("NATS with JetStream ");
        let nats = Nats::start().await;
        screen.done(start.elapsed());

        let start = Instant::now();
        screen.doing("dispatcher, with the rights that deploy/ gives it ");
        let namespace = kubernetes.namespace().await;
        let dispatcher = Dispatcher::builder(&nats, &namespace).sleep_seconds(SLEEP_SECONDS);
        let dispatcher = dispatcher.try_start().await.map_err(|error| format!("the dispatcher: {error}"))?;
        screen.done(start.elapsed());

        screen.plain("\n  To look on from another terminal while this runs:");
        screen.plain(&format!("    nats --server {} sub 'jobs.>'", nats.url));
        let kubeconfig = kubernetes.kubeconfig_path().display();
        screen.plain(&format!(
            "    kubectl --kubeconfig {kubeconfig} --namespace {} get jobs --watch",
            namespace.name
        ));
        Ok(Self { nats, namespace, dispatcher })
    }
}

/// The message where this machine cannot run the demo.
fn impossible(error: &str) -> String {
    format!(
        "no Kubernetes can run here: {error}\n\
         The demo runs real containers on a Kubernetes of its own. It needs Linux (Debian), root, and Go to build\n\
         Kubernetes once; `make demo` gets everything else. Or TEST_KUBECONFIG names a cluster that has the image\n\
         of simple-job."
    )
}
