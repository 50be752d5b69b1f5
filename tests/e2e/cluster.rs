//! Three NATS servers, and streams with three replicas.

use dispatcher_tests::{Kubernetes, Nats, or_skip, until};
use serde_json::Value;

use crate::run::Run;
use crate::world::{PATIENCE, World};

async fn run() -> Result<Run, String> {
    let namespace = Kubernetes::shared().await?.namespace().await;
    Ok(Run::of(World::of(Nats::cluster().await, namespace).await).await)
}

/// `NATS_URL` names all three; the streams have the replicas that the operator gave them, and a restart keeps them.
#[tokio::test(flavor = "multi_thread")]
async fn streams_with_three_replicas_are_taken_as_they_are() {
    let run = or_skip!(run().await);
    run.request("wait-a", "ADDED").await;
    assert_eq!(run.dispatcher.terminate().await, Some(0));
    run.dispatcher.restart().await;
    for stream in ["JOBS", "JOB_STATUS", "JOB_REJECTED", "KV_JOB_CANCELS"] {
        let found = run.world.jetstream.get_stream(stream).await.unwrap();
        assert_eq!(found.cached_info().config.num_replicas, 3, "{stream}");
    }
    let asked = run.world.client.request("$JS.API.CONSUMER.INFO.JOBS.dispatcher-simple", "".into()).await;
    let info: Value = serde_json::from_slice(&asked.unwrap().payload).unwrap();
    assert_eq!(info["cluster"]["replicas"].as_array().map(Vec::len), Some(2), "{info}");
    run.end(&["wait-a"]).await;
    run.finish().await;
}

/// A first server that is not there, or takes connections and does not answer, keeps nobody from the others.
#[tokio::test(flavor = "multi_thread")]
async fn it_starts_with_one_of_three_servers_frozen() {
    let run = or_skip!(run().await);
    assert_eq!(run.dispatcher.terminate().await, Some(0));
    let frozen = run.world.nats.stream_leader("JOBS").await;
    frozen.stop().await;
    until("the dispatcher to start", PATIENCE, || run.world.dispatcher().try_start()).await;
    frozen.cont().await;
}
