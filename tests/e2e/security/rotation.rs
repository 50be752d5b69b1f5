//! Credential rotation under load: the dispatcher reconnects with the new credentials and loses no
//! request.

use dispatcher_tests::load_test::LoadTest;
use dispatcher_tests::test_env::TestEnv;
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{Kubernetes, Nats, or_skip, until};
use nkeys::KeyPair;

use super::config_folder::{ConfigFolder, password, password_env};
use super::jwt::Operator;

/// How many times a client named `dispatcher` has connected.
fn logins(nats: &Nats) -> usize {
    let log = nats.log();
    log.lines()
        .filter(|line| line.contains("<<- [CONNECT ") && line.contains("\"name\":\"dispatcher\""))
        .count()
}

async fn until_logged_in_again(run: &LoadTest, before: usize) {
    until("the dispatcher to log in again", TIMEOUT, || async {
        let now = logins(&run.env.nats);
        if now > before { Ok(()) } else { Err(now) }
    })
    .await;
    until("the dispatcher to be ready", TIMEOUT, || async {
        let (status, body) = run.dispatcher.get("/readyz").await?;
        if status == 200 { Ok(()) } else { Err(body) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replaced_credentials_file_is_used_after_the_old_user_is_revoked() {
    let (config, operator) = (ConfigFolder::new(), Operator::new());
    let nats = operator.serve(&config).await;
    let system = operator.system.options().connect(&nats.url).await.unwrap();
    let users = [KeyPair::new_user(), KeyPair::new_user(), KeyPair::new_user()];
    let creds = |at: usize| operator.dispatcher.creds(&users[at], Some("dispatcher"));
    let file = config.write("dispatcher.creds", &creds(0));
    let namespace = or_skip!(Kubernetes::shared().await).namespace().await;
    let mut env = TestEnv::new(nats, namespace).await;
    env.settings = vec![("NATS_CREDS".to_owned(), file)];
    let run = LoadTest::new(env).await;
    tokio::join!(run.load(0, 300), async {
        for (round, jobs) in [(1, 60), (2, 160)] {
            run.until_jobs(jobs).await;
            let before = logins(&run.env.nats);
            config.write("dispatcher.creds", &creds(round));
            let revoked: Vec<_> = users[..round].iter().collect();
            operator.revoke(&system, &revoked).await;
            until_logged_in_again(&run, before).await;
        }
    });
    run.finish().await;
}

/// First the password file of the dispatcher changes, then the server reloads its own.
#[tokio::test(flavor = "multi_thread")]
async fn changed_password_is_used_after_a_server_reload() {
    let config = ConfigFolder::new();
    let passwords = |dispatcher: &str| format!("DISPATCHER_PASSWORD: \"{dispatcher}\"\n");
    config.write("passwords.conf", &passwords("first"));
    config.edit("accounts.conf", "\naccounts {", "\ninclude \"passwords.conf\"\naccounts {");
    let file = config.write("password", "first\n");
    let mut env = or_skip!(password_env(config.by_password("accounts.conf").await).await);
    env.settings = [("NATS_USER", "dispatcher"), ("NATS_PASSWORD_FILE", &file)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
    assert_ne!(password("dispatcher"), "first");
    let run = LoadTest::new(env).await;
    tokio::join!(run.load(0, 300), async {
        for (new, jobs) in [("second", 60), ("third", 160)] {
            run.until_jobs(jobs).await;
            let before = logins(&run.env.nats);
            config.write("password", &format!("{new}\n"));
            config.write("passwords.conf", &passwords(new));
            run.env.nats.reload().await;
            until_logged_in_again(&run, before).await;
        }
    });
    // The role allows what a reconnect needs: look up and recreate consumers, resync.
    let log = run.env.nats.log();
    let refused: Vec<_> = ["Publish Violation", "Subscription Violation"]
        .iter()
        .flat_map(|violation| log.lines().filter(move |line| line.contains(violation)))
        .collect();
    assert!(refused.is_empty(), "{refused:?}");
    run.finish().await;
}
