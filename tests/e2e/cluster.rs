//! Three NATS servers, and streams with three replicas.

use async_nats::jetstream::{self, consumer::DeliverPolicy};
use dispatcher::nats::scan::scan;
use dispatcher_tests::{Kubernetes, Nats, or_skip, until};
use futures::{StreamExt, stream};
use serde_json::Value;

use dispatcher_tests::load_test::LoadTest as Run;
use dispatcher_tests::test_env::TestEnv as World;
use dispatcher_tests::wait::TIMEOUT as PATIENCE;

async fn run() -> Result<Run, String> {
    let namespace = Kubernetes::shared().await?.namespace().await;
    Ok(Run::new(World::new(Nats::cluster().await, namespace).await).await)
}

/// `NATS_URL` names all three; the streams have the replicas that the operator gave them, and a restart keeps them.
#[tokio::test(flavor = "multi_thread")]
async fn streams_with_three_replicas_are_taken_as_they_are() {
    let run = or_skip!(run().await);
    run.request("wait-a", "ADDED").await;
    assert_eq!(run.dispatcher.terminate().await, Some(0));
    run.dispatcher.restart().await;
    for stream in ["JOBS", "JOB_STATUS", "JOB_REJECTED", "KV_JOB_CANCELS"] {
        let found = run.env.jetstream.get_stream(stream).await.unwrap();
        assert_eq!(found.cached_info().config.num_replicas, 3, "{stream}");
    }
    let asked = run.env.client.request("$JS.API.CONSUMER.INFO.JOBS.dispatcher-simple", "".into()).await;
    let info: Value = serde_json::from_slice(&asked.unwrap().payload).unwrap();
    assert_eq!(info["cluster"]["replicas"].as_array().map(Vec::len), Some(2), "{info}");
    run.complete(&["wait-a"]).await;
    run.finish().await;
}

/// A first server that is not there, or takes connections and does not answer, keeps nobody from the others.
#[tokio::test(flavor = "multi_thread")]
async fn it_starts_with_one_of_three_servers_frozen() {
    let run = or_skip!(run().await);
    assert_eq!(run.dispatcher.terminate().await, Some(0));
    let frozen = run.env.nats.stream_leader("JOBS").await;
    frozen.freeze().await;
    until("the dispatcher to start", PATIENCE, || run.env.dispatcher().try_start()).await;
    frozen.resume().await;
}

/// A consumer may be on a replica that has not all of the stream yet: what is read there is not taken for all.
#[tokio::test(flavor = "multi_thread")]
async fn a_scan_gives_everything_while_a_replica_catches_up() {
    const MESSAGES: u64 = 60_000;
    let nats = Nats::cluster().await;
    let context = jetstream::context::ContextBuilder::new()
        .timeout(PATIENCE)
        .backpressure_on_inflight(true)
        .build(nats.client().await);
    let config = jetstream::stream::Config {
        name: "S".to_owned(),
        subjects: vec!["s.*".to_owned()],
        num_replicas: 3,
        ..Default::default()
    };
    context.create_stream(config).await.unwrap();
    let publish = |n: u64| {
        let context = context.clone();
        async move { context.publish(format!("s.{n}"), vec![b'x'; 1000].into()).await.unwrap().await.unwrap() }
    };
    stream::iter(0..MESSAGES).map(publish).buffer_unordered(1000).collect::<Vec<_>>().await;
    let leader = nats.stream_leader("S").await;
    let node = nats.nodes.iter().find(|node| node.name != leader.name).unwrap();
    node.kill().await;
    node.lose_store();
    node.start().await;
    let stream = context.get_stream_no_info("S").await.unwrap();
    let whole = std::pin::pin!(nats.until_in_sync());
    let scans = async {
        let (mut good, mut failed) = (0, 0);
        loop {
            let mut count = 0;
            let done =
                scan(&stream, "s.*".to_owned(), DeliverPolicy::LastPerSubject, |_, _, _| count += 1).await;
            match done {
                Ok(()) => {
                    assert_eq!(count, MESSAGES, "after {good} that gave all");
                    good += 1;
                }
                Err(error) => {
                    println!("{error}");
                    failed += 1;
                }
            }
            if good + failed > 12 {
                return (good, failed);
            }
        }
    };
    let (_, (good, failed)) = tokio::join!(whole, scans);
    println!("{good} gave all, {failed} failed");
    assert!(good > 0);
}
