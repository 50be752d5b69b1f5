//! Rejected requests: each becomes a dead letter with its reason, and none blocks the next request.

use std::collections::BTreeMap;

use dispatcher_tests::job_controller::managed_template;
use dispatcher_tests::or_skip;
use dispatcher_tests::test_env::{TestEnv, header};
use dispatcher_tests::wait::TIMEOUT;
use futures::StreamExt;
use kube::api::ListParams;
use serde_json::Value;

/// Payload, `Job-Error`, and a part of the message.
const INVALID: [(&[u8], &str, &str); 15] = [
    (b"", "InvalidJson", ""),
    (b"{\"foo\":", "InvalidJson", "JSON object"),
    (b"{\"foo\":\"\xff\"}", "InvalidJson", "offset 8"),
    (b"[\"foo\"]", "InvalidRequest", "JSON object"),
    (b"{}", "InvalidRequest", "`foo`"),
    (b"{\"foo\":15}", "InvalidRequest", "`foo`"),
    (b"{\"foo\":\"a\",\"image\":\"evil\"}", "InvalidRequest", "\"image\""),
    (b"{\"foo\":\"a\",\"foo\":\"b\"}", "InvalidRequest", "foo"),
    (b"{\"foo\":\"Upper\"}", "InvalidName", "`foo`"),
    (b"{\"foo\":\"a\",\"name\":\"a.b\"}", "InvalidName", "`name`"),
    (b"{\"foo\":\"a\",\"name\":\"*\"}", "InvalidName", "`name`"),
    (b"{\"foo\":\"a\",\"name\":\"a\\r\\nJob-Error: x\"}", "InvalidName", "`name`"),
    (b"{\"foo\":\"a\",\"name\":7}", "InvalidName", "`name`"),
    (b"{\"foo\":\"a\",\"generateName\":\"_\"}", "InvalidName", "`generateName`"),
    (b"{\"foo\":\"a\",\"name\":\"b\",\"generateName\":\"c-\"}", "InvalidName", "`generateName`"),
];

#[tokio::test(flavor = "multi_thread")]
async fn invalid_request_becomes_a_dead_letter_and_a_rejection_notice() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    let mut notices_subscription = env.client.subscribe("jobs.simple.status.>").await.unwrap();
    env.client.flush().await.unwrap();
    let mut sent = BTreeMap::new();
    for (payload, reason, fragment) in INVALID {
        sent.insert(env.publish(payload.to_vec(), None).await, (payload, reason, fragment));
    }
    for (sequence, (payload, reason, fragment)) in &sent {
        let dead_letter = env.dead_letter(*sequence).await;
        let payload_text = String::from_utf8_lossy(payload);
        assert_eq!(&dead_letter.payload[..], *payload, "the payload was changed");
        assert_eq!(header(&dead_letter, "Job-Error"), *reason, "{payload_text}");
        assert!(
            header(&dead_letter, "Job-Error-Message").contains(fragment),
            "{payload_text}: {:?}",
            dead_letter.headers
        );
        assert!(!header(&dead_letter, "Job-Request-Id").is_empty());
        // The name of the Job, if the request has a valid one.
        let name = match &*payload_text {
            "{\"foo\":15}" => "simple-job-15",
            other if other.contains("evil") => "simple-job-a",
            _ => "",
        };
        assert_eq!(header(&dead_letter, "Job-Name"), name, "{payload_text}");
    }
    let mut notices = BTreeMap::new();
    while notices.len() < sent.len() {
        let notice = tokio::time::timeout(TIMEOUT, notices_subscription.next())
            .await
            .expect("a notice is missing")
            .unwrap();
        assert_eq!(notice.subject.as_str(), "jobs.simple.status._rejected");
        let notice: Value = serde_json::from_slice(&notice.payload).unwrap();
        assert_eq!(notice["type"], "REJECTED");
        notices.insert(notice["requestSeq"].as_u64().unwrap(), notice);
    }
    for (sequence, (_, reason, fragment)) in &sent {
        let notice = &notices[sequence];
        assert_eq!(notice["reason"], *reason);
        assert!(notice["message"].as_str().unwrap().contains(fragment), "{notice}");
    }
    // The next request is handled, and no invalid one became a Job.
    env.request(r#"{"foo":"next"}"#).await;
    env.until_last("simple-job-next", "ADDED").await;
    env.until_queue_is_empty().await;
    assert_eq!(env.namespace.jobs.list(&ListParams::default()).await.unwrap().items.len(), 1);
    assert_eq!(env.dead_letters().await.len(), sent.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn job_refused_by_kubernetes_is_rejected_with_its_message() {
    let env = or_skip!(TestEnv::start().await);
    let folder = dispatcher_tests::paths::temp_dir("templates").unwrap();
    let simple = dispatcher_tests::paths::workspace().join("deploy/templates/simple.yaml");
    let refused = std::fs::read_to_string(simple).unwrap().replace("          restartPolicy: Never\n", "");
    std::fs::write(folder.path().join("simple.yaml"), refused).unwrap();
    let _dispatcher = env.dispatcher().templates(folder.path()).start().await;
    let sequence = env.request(r#"{"foo":"a"}"#).await;
    let dead_letter = env.dead_letter(sequence).await;
    assert_eq!(header(&dead_letter, "Job-Error"), "Refused");
    assert!(header(&dead_letter, "Job-Error-Message").contains("restartPolicy"), "{:?}", dead_letter.headers);
    assert_eq!(header(&dead_letter, "Job-Name"), "simple-job-a");
}

#[tokio::test(flavor = "multi_thread")]
async fn request_for_an_unknown_template_is_refused_at_publish() {
    let env = or_skip!(TestEnv::start().await);
    let _dispatcher = env.dispatcher().start().await;
    let sent = env.jetstream.publish("jobs.unknown.create", "{}".into()).await.unwrap();
    assert!(sent.await.is_err(), "a stream stored it");
}
