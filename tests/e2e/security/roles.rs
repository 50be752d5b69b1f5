//! The permissions of each role. Every subject is tried on a server with the shipped
//! `accounts.conf`.

use dispatcher_tests::{Nats, or_skip};

use super::config_folder::{ConfigFolder, client, create_streams, password_env, publish, send_operation};

const WATCHED: [&str; 3] = ["JOBS", "JOB_STATUS", "JOB_REJECTED"];

/// A role, with subjects that it may and may not use.
struct Role {
    user: &'static str,
    publish: &'static [&'static str],
    not_publish: &'static [&'static str],
    subscribe: &'static [&'static str],
    not_subscribe: &'static [&'static str],
}

const ROLES: [Role; 4] = [
    Role {
        user: "submitter",
        publish: &[
            "jobs.nosuch.create",
            "jobs.simple.submit",
            "jobs.simple.get",
            "$SRV.PING",
            "$SRV.INFO.dispatcher",
        ],
        not_publish: &[
            "dispatcher.event.simple.x",
            "jobs.simple.status.x",
            "jobs.simple.status._rejected",
            "jobs.simple.rejected.1",
            "jobs.simple.cancel",
            "$KV.JOB_CANCELS.x",
            "$JS.API.INFO",
            "$JS.API.STREAM.INFO.JOBS",
            "$JS.API.STREAM.DELETE.JOBS",
            "$JS.API.STREAM.PURGE.JOBS",
            "$JS.API.STREAM.MSG.GET.JOBS",
            "$JS.API.DIRECT.GET.JOB_STATUS",
            "$JS.API.CONSUMER.CREATE.JOB_STATUS.x",
            "$JS.API.CONSUMER.MSG.NEXT.JOBS.dispatcher-simple",
            "$JS.ACK.JOBS.dispatcher-simple.1.1.1.1.0",
            "_INBOX.reader.x",
            "_INBOX.dispatcher.x",
            "$SYS.REQ.ACCOUNT.DISPATCHER.INFO",
        ],
        subscribe: &["_INBOX.submitter.>"],
        not_subscribe: &[
            ">",
            "jobs.>",
            "jobs.*.create",
            "jobs.simple.status.>",
            "jobs.*.rejected.*",
            "_INBOX.>",
            "_INBOX.dispatcher.>",
            "dispatcher.event.>",
            "$JS.>",
            "jobs.simple.submit",
            "$SRV.PING",
        ],
    },
    Role {
        user: "reader",
        publish: &[
            "JS.DISPATCHER.API.DIRECT.GET.JOB_STATUS",
            "JS.DISPATCHER.API.DIRECT.GET.JOB_STATUS.jobs.simple.status.x",
            "JS.DISPATCHER.API.DIRECT.GET.JOB_REJECTED.jobs.simple.rejected.1",
            "JS.DISPATCHER.API.STREAM.INFO.JOB_STATUS",
            "JS.DISPATCHER.API.CONSUMER.INFO.JOB_STATUS.reader",
            "JS.DISPATCHER.API.CONSUMER.MSG.NEXT.JOB_STATUS.reader",
            "$JS.ACK.JOB_STATUS.reader.1.1.1.1.0",
        ],
        not_publish: &[
            "jobs.simple.create",
            "jobs.simple.submit",
            "jobs.simple.cancel",
            "dispatcher.event.simple.x",
            "jobs.simple.status.x",
            "jobs.simple.status._rejected",
            "jobs.simple.rejected.1",
            "$JS.API.STREAM.INFO.JOB_STATUS",
            "JS.DISPATCHER.API.STREAM.INFO.JOBS",
            "JS.DISPATCHER.API.STREAM.UPDATE.JOB_STATUS",
            "JS.DISPATCHER.API.STREAM.DELETE.JOB_STATUS",
            "JS.DISPATCHER.API.STREAM.PURGE.JOB_STATUS",
            "JS.DISPATCHER.API.STREAM.MSG.DELETE.JOB_STATUS",
            "JS.DISPATCHER.API.DIRECT.GET.JOBS",
            "JS.DISPATCHER.API.CONSUMER.CREATE.JOB_STATUS.x",
            "JS.DISPATCHER.API.CONSUMER.DURABLE.CREATE.JOB_STATUS.x",
            "JS.DISPATCHER.API.CONSUMER.DELETE.JOB_STATUS.reader",
            "JS.DISPATCHER.API.CONSUMER.MSG.NEXT.JOB_STATUS.other",
            "JS.DISPATCHER.API.CONSUMER.MSG.NEXT.JOBS.dispatcher-simple",
            "$JS.ACK.JOBS.dispatcher-simple.1.1.1.1.0",
            "_INBOX.submitter.x",
        ],
        subscribe: &["jobs.simple.status.x", "jobs.*.status.>", "jobs.*.rejected.*", "_INBOX.reader.>"],
        not_subscribe: &[
            "JS.>",
            ">",
            "jobs.>",
            "jobs.*.create",
            "_INBOX.>",
            "_INBOX.submitter.>",
            "dispatcher.event.>",
            "$JS.>",
        ],
    },
    Role {
        user: "dispatcher",
        publish: &[
            "jobs.simple.status._rejected",
            "$JS.API.STREAM.INFO.JOBS",
            "$JS.API.CONSUMER.DELETE.JOBS.dispatcher-simple",
            "_INBOX.administrator.x",
        ],
        not_publish: &[
            "jobs.simple.status.x",
            "jobs.simple.cancelled",
            "$JS.API.INFO",
            "$JS.API.STREAM.CREATE.OTHER",
            "$JS.API.STREAM.DELETE.JOB_STATUS",
            "$JS.API.STREAM.PURGE.JOB_STATUS",
            "$JS.API.STREAM.PURGE.JOBS",
            "$JS.API.STREAM.MSG.DELETE.JOB_STATUS",
            "$JS.API.STREAM.MSG.DELETE.JOB_REJECTED",
            "$JS.API.CONSUMER.DELETE.JOB_REJECTED.x",
            "$JS.ACK.JOB_STATUS.reader.1.1.1.1.0",
            "anything.else",
        ],
        subscribe: &["_INBOX.dispatcher.>", "jobs.*.submit", "jobs.*.status.*", "$SRV.PING"],
        not_subscribe: &[
            ">",
            "jobs.>",
            "jobs.*.create",
            "_INBOX.>",
            "dispatcher.event.>",
            "$JS.>",
            "jobs.*.rejected.*",
        ],
    },
    Role {
        user: "administrator",
        publish: &["$JS.API.STREAM.INFO.JOBS", "$JS.API.CONSUMER.LIST.JOB_STATUS"],
        not_publish: &[],
        subscribe: &[">"],
        not_subscribe: &[],
    },
];

async fn sizes(env: &dispatcher_tests::test_env::TestEnv) -> Vec<u64> {
    let mut sizes = vec![];
    for stream in WATCHED {
        sizes.push(env.jetstream.get_stream(stream).await.unwrap().cached_info().state.messages);
    }
    sizes
}

#[tokio::test(flavor = "multi_thread")]
async fn role_has_its_permissions_and_no_other() {
    let env = or_skip!(password_env(ConfigFolder::new().by_password("accounts.conf").await).await);
    create_streams(&env).await;
    let mut failures = vec![];
    for role in &ROLES {
        let cases = [
            (role.publish, true, true),
            (role.not_publish, true, false),
            (role.subscribe, false, true),
            (role.not_subscribe, false, false),
        ];
        for (subjects, publishes, allowed) in cases {
            for subject in subjects {
                let operation = if publishes {
                    publish(subject, "", "{}")
                } else {
                    format!("SUB {subject} 1\r\n").into_bytes()
                };
                let answer = send_operation(&env.nats, role.user, &operation).await;
                let refused = answer.as_ref().is_err_and(|error| error.contains("Permissions Violation"));
                if answer.is_ok() != allowed || refused == allowed {
                    failures.push(format!("{} {publishes} {subject}: {answer:?}", role.user));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
    assert_eq!(sizes(&env).await, [0, 0, 0], "a refused publish was stored");
}

/// The server sends an answer to any reply subject, regardless of the permissions of the requester.
/// Separate accounts confine it.
#[tokio::test(flavor = "multi_thread")]
async fn reply_subject_cannot_inject_a_message_into_a_stream() {
    let env = or_skip!(password_env(ConfigFolder::new().by_password("accounts.conf").await).await);
    create_streams(&env).await;
    let nats = &env.nats;
    assert_eq!(
        send_operation(nats, "submitter", &publish("jobs.simple.create", "_INBOX.submitter.x", "{}")).await,
        Ok(())
    );
    assert_eq!(
        send_operation(nats, "administrator", &publish("dispatcher.event.simple.x", "", "{}")).await,
        Ok(())
    );
    assert_eq!(sizes(&env).await, [1, 1, 0]);
    let subscription = env.client.subscribe("jobs.*.status.*").await.unwrap();
    env.client.flush().await.unwrap();
    let targets = [
        "dispatcher.event.simple.forged",
        "jobs.simple.status.forged",
        "jobs.simple.rejected.1",
        "jobs.simple.create",
    ];
    for target in targets {
        let request = |user, subject, payload| {
            let operation = publish(subject, target, payload);
            async move { send_operation(nats, user, &operation).await.unwrap() }
        };
        request("submitter", "jobs.simple.create", "{}").await;
        request("reader", "JS.DISPATCHER.API.STREAM.INFO.JOB_STATUS", "").await;
        request("reader", "JS.DISPATCHER.API.DIRECT.GET.JOB_STATUS.jobs.simple.status.x", "").await;
        request(
            "reader",
            "JS.DISPATCHER.API.DIRECT.GET.JOB_STATUS",
            r#"{"last_by_subj":"jobs.simple.status.x"}"#,
        )
        .await;
        request("reader", "JS.DISPATCHER.API.CONSUMER.MSG.NEXT.JOB_STATUS.reader", "").await;
    }
    // The server answers in order, so all earlier requests are answered afterwards.
    assert_reader_gets_answer(nats).await;
    assert_eq!(sizes(&env).await, [5, 1, 0], "only the requests of the submitter are stored");
    drop(subscription);
}

async fn assert_reader_gets_answer(nats: &Nats) {
    let reader = client(nats, "reader").await;
    let subject = "JS.DISPATCHER.API.DIRECT.GET.JOB_STATUS.jobs.simple.status.x";
    let answer = reader.request(subject, "".into()).await.unwrap();
    assert_eq!(&answer.payload[..], b"{}");
}
