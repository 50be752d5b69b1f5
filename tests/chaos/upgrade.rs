//! Upgrade and rollback under load, between another version of the dispatcher and this one.
//!
//! `make upgrade-test` builds the other version and sets `PREVIOUS_DISPATCHER` to its program.

use std::path::PathBuf;

use dispatcher_tests::load_test::LoadTest;
use dispatcher_tests::paths;
use dispatcher_tests::test_env::TestEnv;

use crate::scenario::repeat_on;

/// The requests during each rollout.
const REQUESTS: usize = 300;

#[tokio::test(flavor = "multi_thread")]
async fn upgraded_rolled_back_and_upgraded_again() {
    let Some(previous) = std::env::var_os("PREVIOUS_DISPATCHER").map(PathBuf::from) else {
        println!(
            "not run without PREVIOUS_DISPATCHER: `make upgrade-test` builds another version and sets it"
        );
        return;
    };
    let this = paths::built("dispatcher").unwrap();
    let start = async || Ok(LoadTest::of_program(TestEnv::start().await?, previous.clone()).await);
    let fault = "two replicas are upgraded from another version, rolled back, and upgraded again";
    repeat_on(fault, start, async |scenario, random| {
        let replica = async |program: &PathBuf| scenario.replica().program(program).start().await;
        let second = replica(&previous).await;
        scenario.load(0, REQUESTS).await;
        let mut stopped = vec![];
        let mut running = vec![second];
        for (rollout, program) in [&this, &previous, &this].into_iter().enumerate() {
            let from = (rollout + 1) * REQUESTS;
            tokio::join!(scenario.load(from, REQUESTS), async {
                scenario.until_jobs(from + random.usize(1..REQUESTS / 2)).await;
                // As a Deployment does: a new replica is ready before an old one stops.
                let new = [replica(program).await, replica(program).await];
                if rollout == 0 {
                    assert_eq!(scenario.dispatcher.terminate().await, Some(0));
                }
                for old in &running {
                    assert_eq!(old.terminate().await, Some(0), "{}", old.log_end());
                }
                stopped.extend(std::mem::replace(&mut running, Vec::from(new)));
            });
        }
        scenario.until_works("after").await;
    })
    .await;
}
