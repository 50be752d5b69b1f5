//! The shipped `tenants.conf`: two accounts share a dispatcher and are isolated from each other.

use async_nats::Subscriber;
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{or_skip, until};
use futures::StreamExt;
use serde_json::{Value, json};

use super::config_folder::{ConfigFolder, client, password_env};

/// Reads messages up to the event `type_` on `subject`, and returns the subjects of all.
async fn read_until(subscriber: &mut Subscriber, subject: &str, type_: &str) -> Vec<String> {
    let mut subjects = vec![];
    loop {
        let message = tokio::time::timeout(TIMEOUT, subscriber.next()).await.expect(subject).unwrap();
        subjects.push(message.subject.to_string());
        let event = message.headers.as_ref().and_then(|headers| headers.get("Job-Event"));
        if message.subject.as_str() == subject && event.is_some_and(|event| event.as_str() == type_) {
            return subjects;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_share_a_dispatcher_and_are_isolated() {
    let env = or_skip!(password_env(ConfigFolder::new().by_password("tenants.conf").await).await);
    let _dispatcher = env.dispatcher().start().await;
    let (acme, globex) = (client(&env.nats, "acme").await, client(&env.nats, "globex").await);
    let (mut all_of_acme, mut all_of_globex) =
        (acme.subscribe("jobs.>").await.unwrap(), globex.subscribe("jobs.>").await.unwrap());
    acme.flush().await.unwrap();
    globex.flush().await.unwrap();
    let stored = acme.request("jobs.simple.create", r#"{"foo":"acme"}"#.into()).await.unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&stored.payload).unwrap()["stream"], "JOBS");
    let query =
        json!({"name": "of-globex", "foo": "x", "reqBytes": "16Mi", "limBytes": "64Mi", "allocBytes": "1Mi"})
            .to_string();
    let stored = globex.request("jobs.create", query.into()).await.unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&stored.payload).unwrap()["stream"], "JOBS");

    let of_acme = read_until(&mut all_of_acme, "jobs.simple.status.simple-job-acme", "OUTCOME").await;
    let of_globex = read_until(&mut all_of_globex, "jobs.status.of-globex", "OUTCOME").await;
    assert!(of_acme.iter().all(|subject| subject.starts_with("jobs.simple.")), "{of_acme:?}");
    assert!(
        of_globex.iter().all(|subject| subject.starts_with("jobs.status.") || subject == "jobs.create"),
        "{of_globex:?}"
    );

    for (tenant, subject) in [(&acme, "jobs.simple.last.simple-job-acme"), (&globex, "jobs.last.of-globex")] {
        let last = tenant.request(subject, "".into()).await.unwrap();
        assert_eq!(last.headers.unwrap().get("Job-Event").unwrap().as_str(), "OUTCOME", "{subject}");
    }
    // A dead letter by the sequence in the answer to the request.
    let bad = acme.request("jobs.simple.create", "{}".into()).await.unwrap();
    let sequence = serde_json::from_slice::<Value>(&bad.payload).unwrap()["seq"].as_u64().unwrap();
    until("the dead letter", TIMEOUT, || async {
        let subject = format!("jobs.simple.dead-letter.{sequence}");
        let found = acme.request(subject, "".into()).await.map_err(|e| e.to_string())?;
        let headers = found.headers.unwrap_or_default();
        let reason = headers.get("Job-Error").map(ToString::to_string);
        if reason.as_deref() == Some("InvalidRequest") { Ok(()) } else { Err(format!("{headers:?}")) }
    })
    .await;
    // Their own `jobs.>` subscriptions would receive the requests below.
    for (tenant, subscriber) in [(&acme, &mut all_of_acme), (&globex, &mut all_of_globex)] {
        subscriber.unsubscribe().await.unwrap();
        tenant.flush().await.unwrap();
    }
    // The other tenant's streams and services have no responders in this account.
    let foreign = [
        (&acme, "jobs.memory.create"),
        (&acme, "jobs.memory.submit"),
        (&globex, "jobs.simple.create"),
        (&globex, "jobs.memory.create"),
    ];
    for (tenant, subject) in foreign {
        let error =
            tokio::time::timeout(TIMEOUT, tenant.request(subject, "{}".into())).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), async_nats::RequestErrorKind::NoResponders, "{subject}");
    }
    let mut jobs = env.jetstream.get_stream("JOBS").await.unwrap();
    assert_eq!(jobs.info().await.unwrap().state.last_sequence, 3, "another request was stored");
}
