//! `tenants.conf`, as it is shipped: two accounts that share a dispatcher and see nothing of each other.

use async_nats::{Subscriber, jetstream};
use dispatcher_tests::or_skip;
use dispatcher_tests::wait::TIMEOUT as PATIENCE;
use futures::StreamExt;
use serde_json::{Value, json};

use super::place::{Place, client, world};

/// Hears until the event `type_` on `subject`; all subjects heard.
async fn until_heard(subscriber: &mut Subscriber, subject: &str, type_: &str) -> Vec<String> {
    let mut heard = vec![];
    loop {
        let message = tokio::time::timeout(PATIENCE, subscriber.next()).await.expect(subject).unwrap();
        heard.push(message.subject.to_string());
        let event = message.headers.as_ref().and_then(|headers| headers.get("Job-Event"));
        if message.subject.as_str() == subject && event.is_some_and(|event| event.as_str() == type_) {
            return heard;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tenants_share_a_dispatcher_and_see_nothing_of_each_other() {
    let world = or_skip!(world(Place::new().by_password("tenants.conf").await).await);
    let _dispatcher = world.dispatcher().start().await;
    let (acme, globex) = (client(&world.nats, "acme").await, client(&world.nats, "globex").await);
    let (mut all_of_acme, mut all_of_globex) =
        (acme.subscribe("jobs.>").await.unwrap(), globex.subscribe("jobs.>").await.unwrap());
    acme.flush().await.unwrap();
    globex.flush().await.unwrap();
    // A stream of the tenant's own keeps what it hears.
    let own = jetstream::stream::Config {
        name: "MINE".into(),
        subjects: vec!["jobs.simple.status.>".into()],
        ..jetstream::stream::Config::default()
    };
    let own = jetstream::new(acme.clone()).create_stream(own).await.unwrap();

    let stored = acme.request("jobs.simple.create", r#"{"foo":"acme"}"#.into()).await.unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&stored.payload).unwrap()["stream"], "JOBS");
    let query =
        json!({"name": "of-globex", "foo": "x", "reqBytes": "16Mi", "limBytes": "64Mi", "allocBytes": "1Mi"})
            .to_string();
    let stored = globex.request("jobs.create", query.into()).await.unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&stored.payload).unwrap()["stream"], "JOBS");

    let of_acme = until_heard(&mut all_of_acme, "jobs.simple.status.simple-job-acme", "OUTCOME").await;
    let of_globex = until_heard(&mut all_of_globex, "jobs.status.of-globex", "OUTCOME").await;
    assert!(of_acme.iter().all(|subject| subject.starts_with("jobs.simple.")), "{of_acme:?}");
    assert!(
        of_globex.iter().all(|subject| subject.starts_with("jobs.status.") || subject == "jobs.create"),
        "{of_globex:?}"
    );

    for (tenant, subject) in [(&acme, "jobs.simple.last.simple-job-acme"), (&globex, "jobs.last.of-globex")] {
        let last = tenant.request(subject, "".into()).await.unwrap();
        assert_eq!(last.headers.unwrap().get("Job-Event").unwrap().as_str(), "OUTCOME", "{subject}");
    }
    assert!(own.get_last_raw_message_by_subject("jobs.simple.status.simple-job-acme").await.is_ok());
    // Else they would be asked themselves.
    for (tenant, subscriber) in [(&acme, &mut all_of_acme), (&globex, &mut all_of_globex)] {
        subscriber.unsubscribe().await.unwrap();
        tenant.flush().await.unwrap();
    }
    // What is another's is nobody's here: no stream, no service, no events.
    let foreign = [
        (&acme, "jobs.memory.create"),
        (&acme, "jobs.memory.submit"),
        (&globex, "jobs.simple.create"),
        (&globex, "jobs.memory.create"),
    ];
    for (tenant, subject) in foreign {
        let error =
            tokio::time::timeout(PATIENCE, tenant.request(subject, "{}".into())).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), async_nats::RequestErrorKind::NoResponders, "{subject}");
    }
    let mut jobs = world.jetstream.get_stream("JOBS").await.unwrap();
    assert_eq!(jobs.info().await.unwrap().state.last_sequence, 2, "the two requests");
}
