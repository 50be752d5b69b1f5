//! Credentials that change while requests come in: the dispatcher goes on with the new ones, and no request is lost.

use dispatcher_tests::wait::TIMEOUT as PATIENCE;
use dispatcher_tests::{Kubernetes, Nats, or_skip, until};
use nkeys::KeyPair;

use super::jwt::Operator;
use super::place::{Place, password, world};
use dispatcher_tests::load_test::LoadTest as Run;
use dispatcher_tests::test_env::TestEnv as World;

/// How often a client named `dispatcher` has logged in.
fn logins(nats: &Nats) -> usize {
    let log = nats.log();
    log.lines()
        .filter(|line| line.contains("<<- [CONNECT ") && line.contains("\"name\":\"dispatcher\""))
        .count()
}

async fn until_logged_in_again(run: &Run, before: usize) {
    until("the dispatcher to log in again", PATIENCE, || async {
        let now = logins(&run.env.nats);
        if now > before { Ok(()) } else { Err(now) }
    })
    .await;
    until("the dispatcher to be ready", PATIENCE, || async {
        let (status, body) = run.dispatcher.get("/readyz").await?;
        if status == 200 { Ok(()) } else { Err(body) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credentials_file_is_replaced_and_the_old_user_revoked() {
    let (place, operator) = (Place::new(), Operator::new());
    let nats = operator.serve(&place).await;
    let system = operator.system.options().connect(&nats.url).await.unwrap();
    let users = [KeyPair::new_user(), KeyPair::new_user(), KeyPair::new_user()];
    let creds = |at: usize| operator.dispatcher.creds(&users[at], Some("dispatcher"));
    let file = place.write("dispatcher.creds", &creds(0));
    let namespace = or_skip!(Kubernetes::shared().await).namespace().await;
    let mut world = World::new(nats, namespace).await;
    world.settings = vec![("NATS_CREDS".to_owned(), file)];
    let run = Run::new(world).await;
    tokio::join!(run.load(0, 300), async {
        for (round, jobs) in [(1, 60), (2, 160)] {
            run.until_jobs(jobs).await;
            let before = logins(&run.env.nats);
            place.write("dispatcher.creds", &creds(round));
            let revoked: Vec<_> = users[..round].iter().collect();
            operator.revoke(&system, &revoked).await;
            until_logged_in_again(&run, before).await;
        }
    });
    run.finish().await;
}

/// As an operator does it: first the file that the dispatcher reads, then the server.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_changed_by_a_reload() {
    let place = Place::new();
    let passwords = |dispatcher: &str| format!("DISPATCHER_PASSWORD: \"{dispatcher}\"\n");
    place.write("passwords.conf", &passwords("first"));
    place.edit("accounts.conf", "\naccounts {", "\ninclude \"passwords.conf\"\naccounts {");
    let file = place.write("password", "first\n");
    let mut world = or_skip!(world(place.by_password("accounts.conf").await).await);
    world.settings = [("NATS_USER", "dispatcher"), ("NATS_PASSWORD_FILE", &file)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
    assert_ne!(password("dispatcher"), "first");
    let run = Run::new(world).await;
    tokio::join!(run.load(0, 300), async {
        for (new, jobs) in [("second", 60), ("third", 160)] {
            run.until_jobs(jobs).await;
            let before = logins(&run.env.nats);
            place.write("password", &format!("{new}\n"));
            place.write("passwords.conf", &passwords(new));
            run.env.nats.reload().await;
            until_logged_in_again(&run, before).await;
        }
    });
    run.finish().await;
}
