//! A dispatcher at work under load, and under the eyes of a recorder that judges the promises at the end.

use std::time::Duration;

use dispatcher_tests::checker::{Recorder, assert_kept};
use dispatcher_tests::dispatcher::Builder;
use dispatcher_tests::{Dispatcher, until};
use futures::{StreamExt, stream};
use kube::api::ListParams;
use serde_json::json;

use crate::controller::Controller;
use crate::world::{PATIENCE, World, finished, managed_template};

/// Longer than `ack_wait`: what was not acknowledged comes again only then.
pub(crate) const REST: Duration = Duration::from_secs(300);

/// A dispatcher at work under the eyes of a recorder.
pub(crate) struct Run {
    pub(crate) world: World,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) recorder: Recorder,
    _controller: Controller,
    pub(crate) folder: tempfile::TempDir,
}

impl Run {
    pub(crate) async fn start() -> Result<Self, String> {
        Ok(Self::of(World::start().await?).await)
    }

    pub(crate) async fn of(world: World) -> Self {
        world.make_streams_without_deduplication().await;
        let (folder, templates) = managed_template();
        let dispatcher = world.dispatcher().templates(templates).start().await;
        let client = world.nats.client().await;
        let recorder =
            Recorder::start(client, world.namespace.client.clone(), &world.namespace.name).await.unwrap();
        recorder.expect_ttl("simple", Some(600));
        let controller = Controller::start(world.namespace.jobs.clone());
        Self { world, dispatcher, recorder, _controller: controller, folder }
    }

    /// Another replica beside the first.
    pub(crate) async fn replica(&self) -> Dispatcher {
        self.next_replica().start().await
    }

    /// The same, not started yet.
    pub(crate) fn next_replica(&self) -> Builder {
        self.world.dispatcher().templates(self.folder.path())
    }

    /// Requests at once, each with an identity, every tenth of a Job that fails and every twentieth a bad one.
    pub(crate) async fn load(&self, from: usize, count: usize) {
        let requests = (from..from + count).map(|n| async move {
            let value = match n % 20 {
                7 => json!(7),
                3 | 13 => json!(format!("fail-{n}")),
                _ => json!(format!("{n}")),
            };
            let payload = json!({ "foo": value }).to_string();
            // Without an answer after a minute it is recorded as such; the check takes either end.
            let _ = self.recorder.publish("simple", payload, Some(&format!("request-{n}"))).await;
        });
        stream::iter(requests).buffer_unordered(64).collect::<Vec<()>>().await;
    }

    /// One request with a name; waits for the event `type_` as the last of its Job.
    pub(crate) async fn request(&self, name: &str, type_: &str) {
        let payload = json!({"foo": "x", "name": name}).to_string();
        self.recorder.publish("simple", payload, Some(&format!("of-{name}"))).await.unwrap();
        self.world.until_last(name, type_).await;
    }

    pub(crate) async fn finish(self) {
        let history = self.recorder.finish(REST).await.unwrap();
        assert!(!history.requests.is_empty());
        assert_kept(&history);
    }

    pub(crate) async fn jobs(&self) -> usize {
        self.world.namespace.jobs.list(&ListParams::default()).await.map_or(0, |list| list.items.len())
    }

    pub(crate) async fn until_jobs(&self, count: usize) {
        until(&format!("{count} Jobs"), PATIENCE, || async {
            let found = self.jobs().await;
            if found >= count { Ok(()) } else { Err(found) }
        })
        .await;
    }

    /// Says of Jobs that wait that they are complete.
    pub(crate) async fn end(&self, names: &[&str]) {
        for name in names {
            self.world.set_status(name, finished("Complete", 0, "CompletionsReached", "done")).await;
        }
    }

    /// Waits until `/readyz` says no, for this reason.
    pub(crate) async fn until_not_ready(&self, why: &str) {
        until(&format!("not ready, with the reason {why:?}"), PATIENCE, || async {
            let answer = self.dispatcher.get("/readyz").await?;
            if answer.0 == 503 && answer.1.contains(why) { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await;
    }

    pub(crate) async fn until_ready(&self) {
        until("ready again", PATIENCE, || async {
            let answer = self.dispatcher.get("/readyz").await?;
            if answer.0 == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await;
    }
}
