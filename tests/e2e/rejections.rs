//! Bad requests: none is lost, each is told with its reason, and none stops the next.

use std::collections::BTreeMap;

use dispatcher_tests::or_skip;
use futures::StreamExt;
use kube::api::ListParams;
use serde_json::Value;

use dispatcher_tests::job_controller::managed_template;
use dispatcher_tests::test_env::{TestEnv as World, header};
use dispatcher_tests::wait::TIMEOUT as PATIENCE;

/// Payload, the reason's word, and what the message must name.
const BAD: [(&[u8], &str, &str); 15] = [
    (b"", "InvalidJson", "nothing"),
    (b"{\"foo\":", "InvalidJson", "JSON object"),
    (b"{\"foo\":\"\xff\"}", "InvalidJson", "offset 8"),
    (b"[\"foo\"]", "InvalidRequest", "JSON object"),
    (b"{}", "InvalidRequest", "`foo`"),
    (b"{\"foo\":15}", "InvalidRequest", "`foo`"),
    (b"{\"foo\":\"a\",\"image\":\"evil\"}", "InvalidRequest", "\"image\""),
    (b"{\"foo\":\"a\",\"foo\":\"b\"}", "InvalidRequest", "twice"),
    (b"{\"foo\":\"Upper\"}", "InvalidName", "`foo`"),
    (b"{\"foo\":\"a\",\"name\":\"a.b\"}", "InvalidName", "`name`"),
    (b"{\"foo\":\"a\",\"name\":\"*\"}", "InvalidName", "`name`"),
    (b"{\"foo\":\"a\",\"name\":\"a\\r\\nJob-Error: x\"}", "InvalidName", "`name`"),
    (b"{\"foo\":\"a\",\"name\":7}", "InvalidName", "`name`"),
    (b"{\"foo\":\"a\",\"generateName\":\"_\"}", "InvalidName", "`generateName`"),
    (b"{\"foo\":\"a\",\"name\":\"b\",\"generateName\":\"c-\"}", "InvalidName", "`generateName`"),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_request_is_kept_with_its_reason_and_told_to_who_watches() {
    let world = or_skip!(World::start().await);
    let (_folder, templates) = managed_template();
    let _dispatcher = world.dispatcher().templates(templates).start().await;
    let mut watching = world.client.subscribe("jobs.simple.status.>").await.unwrap();
    world.client.flush().await.unwrap();
    let mut sent = BTreeMap::new();
    for (payload, reason, names) in BAD {
        sent.insert(world.publish(payload.to_vec(), None).await, (payload, reason, names));
    }
    for (sequence, (payload, reason, names)) in &sent {
        let letter = world.dead_letter(*sequence).await;
        let shown = String::from_utf8_lossy(payload);
        assert_eq!(&letter.payload[..], *payload, "the payload is kept as it was");
        assert_eq!(header(&letter, "Job-Error"), *reason, "{shown}");
        assert!(header(&letter, "Job-Error-Message").contains(names), "{shown}: {:?}", letter.headers);
        assert!(!header(&letter, "Job-Request-Id").is_empty());
        // The name that it would have had, where that is valid: something may be known of it.
        let name = match &*shown {
            "{\"foo\":15}" => "simple-job-15",
            other if other.contains("evil") => "simple-job-a",
            _ => "",
        };
        assert_eq!(header(&letter, "Job-Name"), name, "{shown}");
    }
    let mut told = BTreeMap::new();
    while told.len() < sent.len() {
        let notice = tokio::time::timeout(PATIENCE, watching.next()).await.expect("a notice each").unwrap();
        assert_eq!(notice.subject.as_str(), "jobs.simple.status._rejected");
        let notice: Value = serde_json::from_slice(&notice.payload).unwrap();
        assert_eq!(notice["type"], "REJECTED");
        told.insert(notice["requestSeq"].as_u64().unwrap(), notice);
    }
    for (sequence, (_, reason, names)) in &sent {
        let notice = &told[sequence];
        assert_eq!(notice["reason"], *reason);
        assert!(notice["message"].as_str().unwrap().contains(names), "{notice}");
    }
    // None of them stopped the next, and none became a Job.
    world.request(r#"{"foo":"next"}"#).await;
    world.until_last("simple-job-next", "ADDED").await;
    world.until_queue_is_empty().await;
    assert_eq!(world.namespace.jobs.list(&ListParams::default()).await.unwrap().items.len(), 1);
    assert_eq!(world.dead_letters().await.len(), sent.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_kubernetes_refuses_is_rejected_with_its_words() {
    let world = or_skip!(World::start().await);
    let folder = dispatcher_tests::paths::temp_dir("templates").unwrap();
    let simple = dispatcher_tests::paths::workspace().join("deploy/templates/simple.yaml");
    let refused =
        std::fs::read_to_string(simple).unwrap().replace("restartPolicy: Never", "restartPolicy: Always");
    std::fs::write(folder.path().join("simple.yaml"), refused).unwrap();
    let _dispatcher = world.dispatcher().templates(folder.path()).start().await;
    let sequence = world.request(r#"{"foo":"a"}"#).await;
    let letter = world.dead_letter(sequence).await;
    assert_eq!(header(&letter, "Job-Error"), "Refused");
    assert!(header(&letter, "Job-Error-Message").contains("restartPolicy"), "{:?}", letter.headers);
    assert_eq!(header(&letter, "Job-Name"), "simple-job-a");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_does_not_exist_is_refused_at_the_publish() {
    let world = or_skip!(World::start().await);
    let _dispatcher = world.dispatcher().start().await;
    let sent = world.jetstream.publish("jobs.unknown.create", "{}".into()).await.unwrap();
    assert!(sent.await.is_err(), "no stream takes it");
}
