//! A cluster of three NATS servers, with streams of three replicas.

use async_nats::jetstream::{self, consumer::DeliverPolicy};
use dispatcher::nats::scan::scan;
use dispatcher_tests::load_test::LoadTest;
use dispatcher_tests::test_env::TestEnv;
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{Kubernetes, Nats, or_skip, until};
use futures::{StreamExt, stream};
use serde_json::Value;

async fn start() -> Result<LoadTest, String> {
    let namespace = Kubernetes::shared().await?.namespace().await;
    Ok(LoadTest::new(TestEnv::new(Nats::cluster().await, namespace).await).await)
}

/// `NATS_URL` names all three servers.
#[tokio::test(flavor = "multi_thread")]
async fn streams_with_three_replicas_are_accepted_and_unchanged() {
    let run = or_skip!(start().await);
    run.request("wait-a", "ADDED").await;
    assert_eq!(run.dispatcher.terminate().await, Some(0));
    run.dispatcher.restart().await;
    for stream in ["JOBS", "JOB_STATUS", "JOB_REJECTED", "KV_JOB_CANCELS"] {
        let found = run.env.jetstream.get_stream(stream).await.unwrap();
        assert_eq!(found.cached_info().config.num_replicas, 3, "{stream}");
    }
    let answer = run.env.client.request("$JS.API.CONSUMER.INFO.JOBS.dispatcher-simple", "".into()).await;
    let info: Value = serde_json::from_slice(&answer.unwrap().payload).unwrap();
    assert_eq!(info["cluster"]["replicas"].as_array().map(Vec::len), Some(2), "{info}");
    run.complete(&["wait-a"]).await;
    run.finish().await;
}

/// A server that accepts connections and does not answer must not prevent a connection to the
/// others.
#[tokio::test(flavor = "multi_thread")]
async fn dispatcher_starts_while_one_of_three_servers_is_frozen() {
    let run = or_skip!(start().await);
    assert_eq!(run.dispatcher.terminate().await, Some(0));
    let frozen = run.env.nats.stream_leader("JOBS").await;
    frozen.freeze().await;
    until("the dispatcher to start", TIMEOUT, || run.env.dispatcher().try_start()).await;
    frozen.resume().await;
}

/// A consumer may run on a replica that lags behind the stream. A scan must not report its messages
/// as complete.
#[tokio::test(flavor = "multi_thread")]
async fn scan_is_complete_while_a_replica_catches_up() {
    const MESSAGES: u64 = 60_000;
    let nats = Nats::cluster().await;
    let context = jetstream::context::ContextBuilder::new()
        .timeout(TIMEOUT)
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
            let result =
                scan(&stream, "s.*".to_owned(), DeliverPolicy::LastPerSubject, |_, _, _| count += 1).await;
            match result {
                Ok(()) => {
                    assert_eq!(count, MESSAGES, "after {good} complete scans");
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
    let ((), (good, failed)) = tokio::join!(whole, scans);
    println!("{good} complete scans, {failed} failed");
    assert!(good > 0);
}
